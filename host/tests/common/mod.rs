//! What the tests share.

#![allow(dead_code, reason = "every test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use omni_credentials_host::{Config, Costs, Digest, Identity, Module, Runtime};

/// The names of the modules that ship.
pub(crate) const MODULES: [&str; 2] = ["xchacha20poly1305", "aes256gcmsiv"];

/// Argon2id costs that a test can afford.
pub(crate) const CHEAP: Option<Costs> = Some(Costs { memory_kib: 64, passes: 1, lanes: 1 });

pub(crate) const STRIPE: Identity<'static> =
    Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true}"# };

/// The bytes of a built module, such as `aes256gcmsiv` or `hostile/loop`.
pub(crate) fn wasm(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("OMNI_CREDENTIALS_MODULES").map_or_else(
        || {
            // TARGET/release/deps/TEST
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(3).unwrap().join("modules")
        },
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; build the modules with `./just modules`", path.display())
    })
}

/// One runtime without a cache folder, as in a backend: tests in threads share it.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(Config::default()).unwrap())
}

/// A module that ships, compiled once for each test program.
pub(crate) fn load(name: &str) -> Module {
    static LOADED: Mutex<BTreeMap<String, Module>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap();
    let module = loaded.entry(name.to_owned()).or_insert_with(|| {
        let wasm = wasm(name);
        runtime().load(&wasm, &Digest::of(&wasm)).unwrap_or_else(|error| panic!("{name}: {error}"))
    });
    module.clone()
}
