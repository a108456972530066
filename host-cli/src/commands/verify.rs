use omni_credentials_host::KeyOf;

use crate::context::Context;
use crate::error::Error;
use crate::output::{self, IdentityFields};
use crate::store::Store;
use crate::terminal::Progress;
use crate::{identity, terminal};

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let mut opened = Store::read(context)?.unlock(context)?;
    let live: Vec<_> = opened.store.live().cloned().collect();
    let mut progress = Progress::new("opening", live.len());
    let (mut unreadable, mut older) = (Vec::new(), 0_usize);
    for (done, entry) in live.iter().enumerate() {
        progress.at(done)?;
        match opened.value(entry) {
            Ok(_) if opened.keyring.key_of(&entry.sealed)? == KeyOf::Current => {}
            Ok(_) => older += 1,
            Err(error @ omni_credentials_host::Error::Refused(_)) => unreadable.push((entry, error)),
            Err(error) => return Err(error.into()),
        }
    }
    drop(progress);
    if context.json {
        let failures = unreadable.iter().map(|(entry, error)| {
            Ok(Unreadable { identity: IdentityFields::new(&entry.identity())?, reason: error.to_string() })
        });
        output::json(&Verified {
            generation: opened.store.generation,
            values: live.len(),
            under_older_keys: older,
            unreadable: failures.collect::<Result<_, Error>>()?,
        })?;
    } else {
        for (entry, error) in &unreadable {
            output::line(&format!("{}: {error}", identity::shown(&entry.identity())))?;
        }
    }
    if !unreadable.is_empty() {
        return Err(Error::Unreadable { unreadable: unreadable.len(), total: live.len() });
    }
    terminal::note(&format!("the seal is right and all {} values open", live.len()));
    if older > 0 {
        terminal::note(&format!(
            "{older} are under older keys; to encrypt them again: omni-credentials rotate-key"
        ));
    }
    Ok(())
}

/// What `verify` prints with `--json`.
#[derive(serde::Serialize)]
struct Verified {
    generation: u64,
    values: usize,
    under_older_keys: usize,
    unreadable: Vec<Unreadable>,
}

#[derive(serde::Serialize)]
struct Unreadable {
    #[serde(flatten)]
    identity: IdentityFields,
    reason: String,
}
