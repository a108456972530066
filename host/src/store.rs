//! Stores: the sandboxes that modules run in, their limits, and what a module can ask of the host.

use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::bindings::CryptoModule;
use crate::bindings::wasi::random::random;
use crate::module::Loaded;
use crate::runtime::Shared;
use crate::{Error, Failure, signals};

/// Most random bytes a module gets in one request; it needs 32 at a time.
const MAX_RANDOM: u64 = 64 << 10;

/// Which sort of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lives as long as its keyring. Small, for a backend keeps what it once had.
    Row,
    /// For one derivation, one file or one large value, and dropped at once.
    Work,
}

impl Kind {
    /// Linear memory, all memories of the store together, in bytes.
    const fn memory(self) -> usize {
        match self {
            Self::Row => 8 << 20,
            // 256 MiB for Argon2id at its costliest; or a file of 64 MiB, parsed, merged with
            // another, and written.
            Self::Work => 1 << 30,
        }
    }

    /// Bytes that one call may hand to the host.
    const fn returned(self) -> usize {
        match self {
            Self::Row => 1 << 20,
            // The records of a file of 64 MiB, once for each side of a merge.
            Self::Work => 128 << 20,
        }
    }
}

/// What belongs to a store.
pub(crate) struct State {
    kind: Kind,
    /// Linear memory granted so far, in bytes.
    memory: usize,
    refused_memory: bool,
    interrupt: Option<fn() -> bool>,
    before_call: Option<fn()>,
}

/// A store with a module instantiated in it.
pub(crate) struct Sandbox {
    store: Store<State>,
    bindings: CryptoModule,
}

/// What the epoch callback ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// What a request for too many random bytes ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("asked for {0} random bytes at once")]
struct TooMuchRandom(u64);

/// What a failing entropy source ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("the system has no entropy: {0}")]
struct NoEntropy(getrandom::Error);

impl Sandbox {
    /// A fresh instance of the module.
    pub(crate) fn new(shared: &Shared, module: &Loaded, kind: Kind) -> Result<Self, Error> {
        signals::keep_alternate_stack();
        let (interrupt, before_call) = (shared.interrupt(), shared.before_call());
        let state = State { kind, memory: 0, refused_memory: false, interrupt, before_call };
        // Instantiation runs the module's start function.
        if let Some(before_call) = before_call {
            before_call();
        }
        let mut store = Store::new(shared.engine(), state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(kind.returned());
        // The deadline is moved by the callback alone, so that a tick between two calls is noticed by
        // the second one.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| match context.data().interrupt {
            Some(interrupt) if interrupt() => Err(Interrupted.into()),
            _ => Ok(UpdateDeadline::Continue(1)),
        });
        let instance = match module.instance_pre().instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(convert(&error, store.data(), "instantiation")),
        };
        let bindings = module
            .indices()
            .load(&mut store, &instance)
            .map_err(|error| crate::module::wrong_contract(format!("{error:#}")))?;
        Ok(Self { store, bindings })
    }

    /// Calls an export. After any error but [`Error::Refused`] the sandbox is of no more use.
    pub(crate) fn call<T, F: Into<Failure>>(
        &mut self,
        export: &'static str,
        call: impl FnOnce(&CryptoModule, &mut Store<State>) -> wasmtime::Result<Result<T, F>>,
    ) -> Result<T, Error> {
        // A store may be moved to a thread that has not called into a module before.
        signals::keep_alternate_stack();
        if let Some(before_call) = self.store.data().before_call {
            before_call();
        }
        match call(&self.bindings, &mut self.store) {
            Ok(result) => result.map_err(|failure| Error::Refused(failure.into())),
            Err(error) => Err(convert(&error, self.store.data(), export)),
        }
    }
}

/// The one place where the runtime's errors become ours.
#[cold]
fn convert(error: &wasmtime::Error, state: &State, export: &'static str) -> Error {
    if error.is::<Interrupted>() {
        return Error::Interrupted;
    }
    let limit_mib = state.kind.memory() >> 20;
    let trap = |reason: String| Error::Trap { export, reason };
    match error.downcast_ref::<Trap>() {
        // A Rust module that is refused memory aborts, which is this trap.
        Some(Trap::UnreachableCodeReached) if state.refused_memory => {
            Error::OutOfMemory { export, limit_mib }
        }
        Some(reason) => trap(reason.to_string()),
        None if state.refused_memory => Error::OutOfMemory { export, limit_mib },
        // Causes are the engine's and this file's own; a module's text never gets into them.
        None => trap(format!("{error:#}")),
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        let granted = total <= self.kind.memory();
        if granted {
            self.memory = total;
        } else {
            self.refused_memory = true;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_memory = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 10_000)
    }

    /// A component is the module and the few adapters that the component encoder adds.
    fn instances(&self) -> usize {
        8
    }

    fn tables(&self) -> usize {
        8
    }

    fn memories(&self) -> usize {
        2
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let wanted = usize::try_from(len).ok().filter(|_| len <= MAX_RANDOM);
        let mut bytes = vec![0; wanted.ok_or(TooMuchRandom(len))?];
        getrandom::fill(&mut bytes).map_err(NoEntropy)?;
        Ok(bytes)
    }
}
