//! What belongs to a store: its limits, and what a module can ask of the host.

use wasmtime::component::Linker;
use wasmtime::{ResourceLimiter, StoreContextMut};

use crate::bindings::wasi::random::random;
use crate::system;

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
    pub(crate) const fn memory(self) -> usize {
        match self {
            Self::Row => 8 << 20,
            // 256 MiB for Argon2id at its costliest; or a file of 64 MiB, parsed, merged with
            // another, and written.
            Self::Work => 1 << 30,
        }
    }

    /// Bytes that one call may hand to the host.
    pub(crate) const fn returned(self) -> usize {
        match self {
            Self::Row => 1 << 20,
            // The records of a file of 64 MiB, once for each side of a merge.
            Self::Work => 128 << 20,
        }
    }
}

/// What belongs to a store.
pub(crate) struct State {
    pub(crate) kind: Kind,
    /// Linear memory granted so far, in bytes.
    memory: usize,
    /// Whether the module asked for more than it may have.
    pub(crate) refused_memory: bool,
    /// What the system said when it had no more.
    pub(crate) refused_by_system: Option<String>,
    pub(crate) interrupt: Option<fn() -> bool>,
    pub(crate) before_call: Option<fn()>,
}

impl State {
    pub(crate) fn new(kind: Kind, interrupt: Option<fn() -> bool>, before_call: Option<fn()>) -> Self {
        Self { kind, memory: 0, refused_memory: false, refused_by_system: None, interrupt, before_call }
    }
}

/// What a request for too many random bytes ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("asked for {0} random bytes at once")]
struct TooMuchRandom(u64);

/// What a failing entropy source ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("the system has no entropy: {0}")]
struct NoEntropy(getrandom::Error);

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

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_memory = true;
        self.refused_by_system = system::refused_as(&error);
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

/// Offers the entropy of WASI 0.3, too: one function, called as that of 0.2. A host of 0.3 may return fewer bytes than
/// asked for; this one does not.
pub(crate) fn add_entropy_of_wasi_0_3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance("wasi:random/random@0.3.0")?.func_wrap(
        "get-random-bytes",
        |mut store: StoreContextMut<'_, State>, (len,): (u64,)| {
            Ok((random::Host::get_random_bytes(store.data_mut(), len)?,))
        },
    )
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let wanted = usize::try_from(len).ok().filter(|_| len <= MAX_RANDOM);
        let mut bytes = vec![0; wanted.ok_or(TooMuchRandom(len))?];
        getrandom::fill(&mut bytes).map_err(NoEntropy)?;
        Ok(bytes)
    }
}
