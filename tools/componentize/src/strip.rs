//! Custom sections that say nothing about what a module does.

use wasm_encoder::{Component, Module, RawSection};
use wasmparser::{Parser, Payload};

use crate::error::Error;

/// A core module without its names and producers.
pub(crate) fn module(module: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Module::new();
    for (id, data) in sections(module)? {
        out.section(&RawSection { id, data });
    }
    Ok(out.finish())
}

/// A component without its names and producers.
pub(crate) fn component(component: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Component::new();
    for (id, data) in sections(component)? {
        out.section(&RawSection { id, data });
    }
    Ok(out.finish())
}

/// The sections to keep, of the outermost level, in order.
fn sections(wasm: &[u8]) -> Result<Vec<(u8, &[u8])>, Error> {
    let mut kept = Vec::new();
    let mut nested = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if nested == 0 && !is_noise(&payload) {
            kept.extend(payload.as_section().and_then(|(id, range)| {
                let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
                Some((id, wasm.get(start..end)?))
            }));
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => nested += 1,
            Payload::End(_) => nested = nested.saturating_sub(1),
            _ => {}
        }
    }
    Ok(kept)
}

fn is_noise(payload: &Payload<'_>) -> bool {
    match payload {
        Payload::CustomSection(section) => {
            matches!(section.name(), "name" | "producers" | "component-name" | "target_features")
        }
        _ => false,
    }
}
