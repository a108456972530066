//! A component before anyone calls it: what it may import, and that it keeps to the contract.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::Error;
use crate::bindings::CryptoModuleIndices;
use crate::error::wrong_contract;
use crate::limits::State;

/// The one interface a module may import, of any patch version. Both have the same function.
const ENTROPY: [&str; 2] = ["wasi:random/random@0.2.", "wasi:random/random@0.3."];

/// A component that was looked over and linked.
pub(crate) struct Loaded {
    instance_pre: InstancePre<State>,
    indices: CryptoModuleIndices,
}

impl Loaded {
    /// Looks a component over: what it imports, and that it exports what the contract says.
    pub(crate) fn new(engine: &Engine, linker: &Linker<State>, component: &Component) -> Result<Self, Error> {
        refuse_imports(engine, component)?;
        let pre = linker.instantiate_pre(component).map_err(|error| wrong_contract(format!("{error:#}")))?;
        let indices = CryptoModuleIndices::new(&pre).map_err(|error| wrong_contract(format!("{error:#}")))?;
        Ok(Self { instance_pre: pre, indices })
    }

    pub(crate) fn instance_pre(&self) -> &InstancePre<State> {
        &self.instance_pre
    }

    pub(crate) fn indices(&self) -> &CryptoModuleIndices {
        &self.indices
    }
}

/// Entropy is the one thing a module may import: one interface with one function.
fn refuse_imports(engine: &Engine, component: &Component) -> Result<(), Error> {
    for (name, import) in component.component_type().imports(engine) {
        let (true, ComponentItem::ComponentInstance(instance)) = (is_entropy(name), import.ty) else {
            return Err(Error::ForbiddenImport(name.to_owned()));
        };
        for (item, export) in instance.exports(engine) {
            if item != "get-random-bytes" || !matches!(export.ty, ComponentItem::ComponentFunc(_)) {
                return Err(Error::ForbiddenImport(format!("{name}#{item}")));
            }
        }
    }
    Ok(())
}

fn is_entropy(name: &str) -> bool {
    let mut patches = ENTROPY.iter().filter_map(|interface| name.strip_prefix(interface));
    patches.any(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}
