use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::CryptoModule;
use crate::cache::Cache;
use crate::large::LastLarge;
use crate::limits::State;
use crate::loaded::Loaded;
use crate::{Digest, Error, Module, engine, limits, system};

/// What a host decides.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where compiled modules are kept; it is made, with mode 0700, when missing. Without a folder
    /// every process compiles again.
    pub cache_dir: Option<PathBuf>,
    /// Asked after [`Ticker::tick`], from inside a call: true ends the call with
    /// [`Error::Interrupted`]. It must return: no unwinding, no `longjmp`.
    pub interrupt: Option<fn() -> bool>,
    /// Called before every call into a module: the place to make sure that a tick will come.
    pub before_call: Option<fn()>,
    /// Told, once for each runtime, that the cache is of no use, and why.
    pub warn: Option<fn(&str)>,
}

/// Loads modules. One for each process: a ticker ticks the runtime it came from and no other.
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What a runtime and its modules share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) cache: Option<Cache>,
    pub(crate) interrupt: Option<fn() -> bool>,
    pub(crate) before_call: Option<fn()>,
    pub(crate) large: LastLarge,
}

/// Makes the runtime ask [`Config::interrupt`].
#[derive(Clone)]
pub struct Ticker {
    engine: Engine,
}

impl Runtime {
    /// A runtime. Nothing is read or compiled yet.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] on a processor or system that the engine does not support.
    pub fn new(config: Config) -> Result<Self, Error> {
        let engine = engine::new()?;
        let mut linker = Linker::new(&engine);
        CryptoModule::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)
            .and_then(|()| limits::add_entropy_of_wasi_0_3(&mut linker))
            .map_err(|error| Error::Engine(error.to_string()))?;
        let cache = config.cache_dir.map(|folder| Cache::new(folder, &engine, config.warn));
        let Config { interrupt, before_call, .. } = config;
        let large = LastLarge::default();
        Ok(Self { shared: Arc::new(Shared { engine, linker, cache, interrupt, before_call, large }) })
    }

    /// Loads a module from its bytes.
    ///
    /// # Errors
    ///
    /// [`Error::DigestMismatch`] when the bytes are not those of `digest`, which is looked at first;
    /// [`Error::NotAComponent`], [`Error::ForbiddenImport`], [`Error::WrongContract`].
    pub fn load(&self, wasm: &[u8], digest: &Digest) -> Result<Module, Error> {
        check_digest(wasm, digest)?;
        match self.load_cached(digest) {
            Some(module) => Ok(module),
            None => self.compile(wasm, digest),
        }
    }

    /// Loads a module, asking for its bytes only if no compiled one is in the cache.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and what `fetch` returns.
    pub fn load_with(
        &self,
        digest: &Digest,
        fetch: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Module, Error> {
        match self.load_cached(digest) {
            Some(module) => Ok(module),
            None => {
                let wasm = fetch()?;
                check_digest(&wasm, digest)?;
                self.compile(&wasm, digest)
            }
        }
    }

    /// A module that is in the cache. Compiles nothing, and no code of a module runs; so this may be done before a process
    /// forks.
    pub fn load_cached(&self, digest: &Digest) -> Option<Module> {
        let component = self.shared.cache.as_ref()?.load(&self.shared.engine, digest)?;
        self.module(&component, digest).ok()
    }

    /// Gives back the memory that is kept for the next large value (see [`Keyring`](crate::Keyring)).
    pub fn release_large(&self) {
        self.shared.large.release();
    }

    /// A ticker for this runtime.
    pub fn ticker(&self) -> Ticker {
        Ticker { engine: self.shared.engine.clone() }
    }

    fn compile(&self, wasm: &[u8], digest: &Digest) -> Result<Module, Error> {
        let component = Component::from_binary(&self.shared.engine, wasm).map_err(|error| {
            match system::refuses_executable_memory() {
                Some(reason) => Error::NoExecutableMemory(reason),
                None => Error::NotAComponent(format!("{error:#}")),
            }
        })?;
        // Only what may run gets into the cache.
        let module = self.module(&component, digest)?;
        if let Some(cache) = &self.shared.cache {
            cache.keep(&component, digest);
        }
        Ok(module)
    }

    fn module(&self, component: &Component, digest: &Digest) -> Result<Module, Error> {
        let loaded = Loaded::new(&self.shared.engine, &self.shared.linker, component)?;
        Ok(Module::new(Arc::clone(&self.shared), loaded, *digest))
    }
}

impl Ticker {
    /// Makes running calls ask [`Config::interrupt`] soon, and those that come after once more.
    /// Async-signal-safe: one atomic increment.
    pub fn tick(&self) {
        self.engine.increment_epoch();
    }
}

fn check_digest(wasm: &[u8], expected: &Digest) -> Result<(), Error> {
    let found = Digest::of(wasm);
    if found == *expected { Ok(()) } else { Err(Error::DigestMismatch { expected: *expected, found }) }
}
