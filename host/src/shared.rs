use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::cache::Cache;
use crate::state::State;

/// What a runtime and its modules share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) cache: Option<Cache>,
    pub(crate) interrupt: Option<fn() -> bool>,
    pub(crate) before_call: Option<fn()>,
}
