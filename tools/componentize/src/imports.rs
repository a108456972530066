//! What a component imports.

use wit_parser::{Function, Resolve, TypeDefKind, WorldItem, WorldKey};

use crate::error::Error;

/// The entropy interface, of any patch version.
const ENTROPY: &str = "wasi:random/random@0.2.";

/// Exactly one interface with something to call: entropy. Names of plain types may be imported beside it.
pub(crate) fn check(component: &[u8]) -> Result<(), Error> {
    let decoded = wit_component::decode(component).map_err(|cause| Error::Encode(format!("{cause:#}")))?;
    let resolve = decoded.resolve();
    let mut entropy = false;
    for world in resolve.worlds.iter().map(|(_, world)| world) {
        for (key, item) in &world.imports {
            let name = resolve.name_world_key(key);
            if name.starts_with(ENTROPY) && only_function(resolve, key) == Some("get-random-bytes") {
                entropy = true;
            } else if !plain_types(resolve, item) {
                return Err(Error::Import(name));
            }
        }
    }
    if entropy { Ok(()) } else { Err(Error::NoEntropy) }
}

fn only_function<'a>(resolve: &'a Resolve, key: &WorldKey) -> Option<&'a str> {
    let WorldKey::Interface(id) = key else { return None };
    let functions = &resolve.interfaces.get(*id)?.functions;
    let only: &Function = functions.values().next().filter(|_| functions.len() == 1)?;
    Some(&only.name)
}

/// Whether nothing can be called through it.
fn plain_types(resolve: &Resolve, item: &WorldItem) -> bool {
    let plain = |id| resolve.types.get(id).is_some_and(|def| !matches!(def.kind, TypeDefKind::Resource));
    match item {
        WorldItem::Interface { id, .. } => resolve.interfaces.get(*id).is_some_and(|interface| {
            interface.functions.is_empty() && interface.types.values().all(|id| plain(*id))
        }),
        WorldItem::Type { id, .. } => plain(*id),
        WorldItem::Function(_) => false,
    }
}
