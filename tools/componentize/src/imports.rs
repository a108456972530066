//! What a component imports.

use wit_parser::{Function, Resolve, WorldKey};

use crate::error::Error;

/// The entropy interface, of any patch version.
const ENTROPY: [&str; 2] = ["wasi:random/random@0.2.", "wasi:random/random@0.3."];

/// Exactly one interface with exactly one function: entropy.
pub(crate) fn check(component: &[u8]) -> Result<(), Error> {
    let decoded = wit_component::decode(component).map_err(|cause| Error::Encode(format!("{cause:#}")))?;
    let resolve = decoded.resolve();
    let mut entropy = false;
    for world in resolve.worlds.iter().map(|(_, world)| world) {
        for key in world.imports.keys() {
            let name = resolve.name_world_key(key);
            let is_entropy = ENTROPY.iter().any(|interface| name.starts_with(interface));
            if !is_entropy || only_function(resolve, key) != Some("get-random-bytes") {
                return Err(Error::Import(name));
            }
            entropy = true;
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
