//! Stores: the sandboxes that modules run in.

use wasmtime::component::ResourceAny;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::bindings::CryptoModule;
use crate::error::wrong_contract;
use crate::limits::{Kind, State};
use crate::loaded::Loaded;
use crate::runtime::Shared;
use crate::{Error, ErrorCode, Failure, signals, system};

/// A store with a module instantiated in it.
pub(crate) struct Sandbox {
    store: Store<State>,
    bindings: CryptoModule,
}

/// What the epoch callback ends a call with.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

impl Sandbox {
    /// A fresh instance of the module.
    pub(crate) fn new(shared: &Shared, module: &Loaded, kind: Kind) -> Result<Self, Error> {
        signals::keep_alternate_stack();
        let (interrupt, before_call) = (shared.interrupt, shared.before_call);
        let state = State::new(kind, interrupt, before_call);
        // Instantiation runs the module's start function.
        if let Some(before_call) = before_call {
            before_call();
        }
        let mut store = Store::new(&shared.engine, state);
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
            .map_err(|error| wrong_contract(format!("{error:#}")))?;
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
        self.store.data_mut().refused_by_system = None;
        match call(&self.bindings, &mut self.store) {
            Ok(result) => result.map_err(|failure| {
                let failure = failure.into();
                match self.store.data_mut().refused_by_system.take() {
                    // A module may notice that it got no memory, and has no word for it.
                    Some(reason) if failure.code == ErrorCode::Other => Error::SystemMemory(reason),
                    _ => Error::Refused(failure),
                }
            }),
            Err(error) => Err(convert(&error, self.store.data(), export)),
        }
    }

    /// Gives up a resource of the module. After an error the sandbox is of no more use.
    pub(crate) fn close(&mut self, export: &'static str, resource: ResourceAny) -> Result<(), Error> {
        signals::keep_alternate_stack();
        if let Some(before_call) = self.store.data().before_call {
            before_call();
        }
        resource.resource_drop(&mut self.store).map_err(|error| convert(&error, self.store.data(), export))
    }
}

/// The one place where the runtime's errors become ours.
#[cold]
fn convert(error: &wasmtime::Error, state: &State, export: &'static str) -> Error {
    if error.is::<Interrupted>() {
        return Error::Interrupted;
    }
    let by_system = system::refused_as(error).or_else(|| {
        // A Rust module that is refused memory aborts.
        let aborted = error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached);
        state.refused_by_system.clone().filter(|_| aborted)
    });
    if let Some(reason) = by_system {
        return Error::SystemMemory(reason);
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
