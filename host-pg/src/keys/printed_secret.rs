//! A master secret that a program prints: the program runs once per start of the server where backends share keys, and
//! otherwise once per backend.

use std::cell::RefCell;
use std::collections::HashMap;

use omni_credentials_host::secret::{self, CommandFailure, CommandFault};
use omni_credentials_host::{Digest, Error as HostError};
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::keys::derivation_lock::DerivationLock;
use crate::keys::kek_cache_shared::{self as shared, Turn};
use crate::postgres::{interrupt, server_log};

/// What the program prints that `variable`_COMMAND names. The environment of a server does not change while it runs, so the
/// variable stands for the program, and what it printed is kept until the server stops.
pub(crate) fn printed_secret(variable: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    if let Some(secret) = OWN.with_borrow(|own| own.get(variable).cloned()) {
        return Ok(secret);
    }
    if !shared::is_available() {
        let secret = run(variable)?;
        OWN.with_borrow_mut(|own| own.insert(variable.to_owned(), secret.clone()));
        return Ok(secret);
    }
    let id = Digest::of(variable.as_bytes());
    if let Some(secret) = shared::find_secret(&id) {
        return Ok(secret);
    }
    // The other sessions wait for the one that runs the program; an error releases the lock.
    let lock = DerivationLock::for_variable(&id);
    let turn = Taken { id };
    let secret = match my_turn(&id) {
        Some(secret) => Ok(secret),
        None => run(variable).inspect(|secret| shared::keep_secret(&id, secret)),
    };
    drop(turn);
    lock.release();
    secret
}

/// A turn, which an error ends, too.
struct Taken {
    id: Digest,
}

impl Drop for Taken {
    fn drop(&mut self) {
        shared::end_turn(&self.id, i32::try_from(std::process::id()).unwrap_or(0));
    }
}

thread_local! {
    /// What the programs of this backend printed, where it shares nothing.
    static OWN: RefCell<HashMap<String, Zeroizing<Vec<u8>>>> = RefCell::default();
}

/// Waits for the processes of the same parallel query: the lock of one does not keep out the others. Gives the secret, if
/// one of them has kept it.
fn my_turn(id: &Digest) -> Option<Zeroizing<Vec<u8>>> {
    loop {
        match shared::take_turn(id) {
            Turn::Known(secret) => return Some(secret),
            Turn::Mine => return None,
            Turn::Of(process) => {
                // SAFETY: signal 0 only asks whether the process exists.
                if unsafe { libc::kill(process, 0) } != 0 {
                    shared::end_turn(id, process);
                }
                pgrx::check_for_interrupts!();
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// Runs the program. The server's log has what it wrote to standard error, which may tell more about the server than a role
/// may know.
fn run(variable: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    // SAFETY: both are set when the process starts.
    let is_postmaster = unsafe { pg_sys::IsPostmasterEnvironment && !pg_sys::IsUnderPostmaster };
    if is_postmaster {
        return Err(Error::Internal("the postmaster runs no program".to_owned()));
    }
    match secret::from_command(variable, interrupt::wanted) {
        Ok(secret) => Ok(secret),
        Err(HostError::Command(CommandFailure { fault: CommandFault::Interrupted, .. })) => {
            Err(Error::Interrupted)
        }
        Err(HostError::Command(CommandFailure { program, fault, printed })) => {
            let said = if printed.is_empty() { "nothing".to_owned() } else { printed };
            server_log::write(&format!(
                "omni_credentials: {variable}_COMMAND: {fault}; program {program:?} wrote to standard error: {said}"
            ));
            Err(Error::MasterSecretCommand { variable: variable.to_owned(), reason: fault.to_string() })
        }
        Err(other) => Err(Error::Internal(other.to_string())),
    }
}
