//! The core natively against the same core inside the sandbox, side by side in one run.
//!
//! `native-vs-component FOLDER` takes the modules from `FOLDER/NAME.wasm` and prints one table. Each figure is
//! the best of several rounds, native and component taking turns, so that what else the machine
//! does shows in both.

mod clock;
mod files;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use omni_credentials_core::kdf::Costs;
use omni_credentials_core::{self as core, Aes256GcmSiv, Entropy, Identity, Suite, XChaCha20Poly1305};
use omni_credentials_host::{self as host, Digest, Module, Runtime};

use crate::clock::{Timed, race};

const SIZES: [(&str, usize); 5] =
    [("32 B", 32), ("40 B", 40), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];

/// The default, and OWASP's floor for Argon2id.
const COSTS: [(&str, Costs); 2] = [
    ("64 MiB, 3 passes, 4 lanes", Costs::DEFAULT),
    ("19 MiB, 2 passes, 1 lane", Costs { memory_kib: 19_456, passes: 2, lanes: 1 }),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("target/modules"), PathBuf::from);
    println!("| what | native | component | ratio |");
    println!("|---|---:|---:|---:|");
    suite::<XChaCha20Poly1305>(&folder)?;
    suite::<Aes256GcmSiv>(&folder)?;
    Ok(())
}

fn suite<S: Suite>(folder: &Path) -> Result<(), Box<dyn Error>> {
    let wasm = fs::read(folder.join(S::NAME).with_extension("wasm"))?;
    let module = Runtime::new(host::Config::default())?.load(&wasm, &Digest::of(&wasm))?;
    values::<S>(&module)?;
    if S::ID == XChaCha20Poly1305::ID {
        derivation::<S>(&module)?;
        files::files::<S>(&module)?;
    }
    Ok(())
}

fn values<S: Suite>(module: &Module) -> Result<(), Box<dyn Error>> {
    let secret = core::kdf::generate_master_key(&mut Stream(0))?;
    let (native, kek) = core::Keyring::<S>::create(&secret, None, &mut Stream(1))?;
    let mut component = module.unlock(&native.to_bytes(), &host::Kek::from_bytes(&kek))?;
    let who = Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true}"# };
    let guest = host::Identity { name: who.name, kind: who.kind, principal: who.principal, scope: who.scope };
    let mut entropy = Stream(2);
    for (label, size) in SIZES {
        let value = vec![b'x'; size];
        let sealed = native.seal(&who, None, &value, &mut entropy)?;
        let timed = race(
            || native.open(&who, None, &sealed).is_ok_and(|value| value.len() == size),
            || component.open(&guest, None, &sealed).is_ok_and(|value| value.len() == size),
        )?;
        row(&format!("{}: open {label}", S::NAME), timed);
        let timed = race(
            || native.seal(&who, None, &value, &mut entropy).is_ok_and(|out| out.len() == sealed.len()),
            || component.seal(&guest, None, &value).is_ok_and(|out| out.len() == sealed.len()),
        )?;
        row(&format!("{}: seal {label}", S::NAME), timed);
    }
    Ok(())
}

fn derivation<S: Suite>(module: &Module) -> Result<(), Box<dyn Error>> {
    for (label, costs) in COSTS {
        let (keyring, _) = core::Keyring::<S>::create(b"correct horse", Some(costs), &mut Stream(3))?;
        let stored = keyring.to_bytes();
        let timed = race(
            || core::Keyring::<S>::derive_kek(b"correct horse", &stored).is_ok(),
            || module.derive_kek(b"correct horse", &stored).is_ok(),
        )?;
        row(&format!("Argon2id {label}"), timed);
    }
    Ok(())
}

pub(crate) fn row(what: &str, timed: Timed) {
    let ratio = timed.component.as_secs_f64() / timed.native.as_secs_f64();
    println!("| {what} | {:.2?} | {:.2?} | {ratio:.2} |", timed.native, timed.component);
}

/// Bytes that cost nothing: the component's host asks the operating system, and that is not what is
/// compared.
pub(crate) struct Stream(pub(crate) u64);

impl Entropy for Stream {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), core::Error> {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            chunk.iter_mut().zip(self.0.to_be_bytes()).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}
