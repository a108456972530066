//! A crypto module with nothing in it: every export is there and does the least that its type
//! allows. A case replaces some of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::WasmType;
use wit_parser::{
    Function, LiftLowerAbi, ManglingAndAbi, Resolve, Type, TypeDefKind, WasmExport, WasmExportKind, WorldId,
    WorldItem, WorldKey,
};

const ABI: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);

/// The contract, for a case to change.
pub(crate) fn contract() -> Vec<(&'static str, String)> {
    vec![
        ("types.wit", include_str!("../../../wit/types.wit").to_owned()),
        ("module-info.wit", include_str!("../../../wit/module-info.wit").to_owned()),
        ("key-derivation.wit", include_str!("../../../wit/key-derivation.wit").to_owned()),
        ("encryption.wit", include_str!("../../../wit/encryption.wit").to_owned()),
        ("file-store.wit", include_str!("../../../wit/file-store.wit").to_owned()),
        ("primitives.wit", include_str!("../../../wit/primitives.wit").to_owned()),
        ("world.wit", include_str!("../../../wit/world.wit").to_owned()),
    ]
}

/// A module to be: WebAssembly text, for what differs from the empty one.
///
/// Memory: 64 bytes of zeros at 0, a refusal (`other`) at 64, the result of `unlock` at 128, and
/// 64 bytes for the case at 192. The heap starts at 1024.
#[derive(Clone)]
pub(crate) struct Shell {
    wit: Vec<(&'static str, String)>,
    random: String,
    /// Bodies by the name of the export, such as `encryption.[method]keyring.open`.
    bodies: BTreeMap<String, String>,
    /// The body of every export that has no other one, `unlock` excepted.
    rest: Option<String>,
    /// Further fields of the core module.
    fields: String,
    memory: String,
    realloc: String,
    /// A further core module, and how often it is instantiated.
    beside: Option<(String, u8)>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            wit: contract(),
            random: include_str!("../../../wit/deps/random/random.wit").to_owned(),
            bodies: BTreeMap::new(),
            rest: None,
            fields: String::new(),
            memory: "(memory (export \"memory\") 2)".to_owned(),
            realloc: REALLOC.to_owned(),
            beside: None,
        }
    }

    /// Puts instances of another core module into the component.
    pub(crate) fn beside(mut self, module: &str, instances: u8) -> Self {
        self.beside = Some((module.to_owned(), instances));
        self
    }

    /// Replaces the body of one export.
    pub(crate) fn body(mut self, export: &str, body: &str) -> Self {
        self.bodies.insert(export.to_owned(), body.to_owned());
        self
    }

    /// Replaces the bodies of all exports but `unlock`.
    pub(crate) fn rest(mut self, body: &str) -> Self {
        self.rest = Some(body.to_owned());
        self
    }

    pub(crate) fn fields(mut self, fields: &str) -> Self {
        self.fields = fields.to_owned();
        self
    }

    pub(crate) fn memory(mut self, memory: &str) -> Self {
        self.memory = memory.to_owned();
        self
    }

    pub(crate) fn realloc(mut self, realloc: &str) -> Self {
        self.realloc = realloc.to_owned();
        self
    }

    /// Edits a file of the contract.
    pub(crate) fn wit(mut self, file: &str, from: &str, to: &str) -> Self {
        for (name, text) in &mut self.wit {
            if *name == file {
                *text = text.replace(from, to);
            }
        }
        if file == "random.wit" {
            self.random = self.random.replace(from, to);
        }
        self
    }

    /// The component.
    pub(crate) fn build(&self) -> Result<Vec<u8>> {
        let mut resolve = Resolve::default();
        resolve.push_str(Path::new("random.wit"), &self.random)?;
        // One package in several files is one file to the parser when each but the first lacks the
        // package line, which only world.wit has.
        let whole: String = self.wit.iter().rev().map(|(_, text)| text.as_str()).collect();
        let package = resolve.push_str(Path::new("contract.wit"), &whole)?;
        let world = resolve.select_world(&[package], None)?;
        let text = self.text(&resolve, world)?;
        let mut module = wat::parse_str(&text).with_context(|| text.clone())?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
        let mut component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
        if let Some((text, instances)) = &self.beside {
            let index = core_modules(&component)?;
            section(&mut component, CORE_MODULE, &wat::parse_str(text)?);
            // Each: instantiate, the module, no arguments.
            let made = [0, index, 0].repeat((*instances).into());
            section(&mut component, CORE_INSTANCE, &[&[*instances], made.as_slice()].concat());
        }
        Ok(component)
    }

    fn text(&self, resolve: &Resolve, world: WorldId) -> Result<String> {
        let mut text = String::from("(module\n");
        let world = resolve.worlds.get(world).context("no world")?;
        for (key, item) in &world.imports {
            match item {
                WorldItem::Interface { id, .. } => {
                    let interface = resolve.interfaces.get(*id).context("no interface")?;
                    let module = resolve.name_world_key(key);
                    for function in interface.functions.values() {
                        import(&mut text, resolve, &module, function)?;
                    }
                }
                WorldItem::Function(function) => import(&mut text, resolve, "$root", function)?,
                WorldItem::Type { .. } => {}
            }
        }
        for (resource, interface) in [("keyring", "encryption"), ("document", "file-store")] {
            let mut exports = world.exports.keys().map(|key| resolve.name_world_key(key));
            let module = exports.find(|name| name.contains(interface)).context("no interface")?;
            writeln!(
                text,
                "(import \"[export]{module}\" \"[resource-new]{resource}\"
                   (func $new-{resource} (param i32) (result i32)))
                 (import \"[export]{module}\" \"[resource-drop]{resource}\"
                   (func $drop-{resource} (param i32)))"
            )?;
        }
        for (key, item) in &world.exports {
            if let WorldItem::Interface { id, .. } = item {
                let interface = resolve.interfaces.get(*id).context("no interface")?;
                for function in interface.functions.values() {
                    self.export(&mut text, resolve, key, interface.name.as_deref(), function)?;
                }
            }
        }
        writeln!(text, "{}\n{}\n{}\n{DATA})", self.memory, self.realloc, self.fields)?;
        Ok(text)
    }

    fn export(
        &self,
        text: &mut String,
        resolve: &Resolve,
        key: &WorldKey,
        interface: Option<&str>,
        function: &Function,
    ) -> Result<()> {
        let signature = resolve.wasm_signature(ABI.export_variant(), function);
        let name = |kind| {
            resolve.wasm_export_name(ABI, WasmExport::Func { interface: Some(key), func: function, kind })
        };
        let short = format!("{}.{}", interface.unwrap_or_default(), function.name);
        let params = types("param", &signature.params);
        let results = types("result", &signature.results);
        let unlock = short.ends_with("keyring.unlock");
        let body = match (self.bodies.get(&short), &self.rest) {
            (Some(body), _) => body.as_str(),
            (None, Some(rest)) if !unlock => rest,
            _ if unlock => UNLOCK,
            _ if fails(resolve, function) => "(i32.const 64)",
            _ => match signature.results.as_slice() {
                [] => "",
                [WasmType::I64] => "(i64.const 0)",
                _ => "(i32.const 0)",
            },
        };
        let normal = name(WasmExportKind::Normal);
        writeln!(text, "(func (export \"{normal}\") {params} {results} {body})")?;
        let post = format!("post.{short}");
        if let Some(body) = self.bodies.get(&post) {
            let post = name(WasmExportKind::PostReturn);
            writeln!(text, "(func (export \"{post}\") {} {body})", types("param", &signature.results))?;
        }
        Ok(())
    }
}

/// Makes a resource and returns it: result, own handle.
const UNLOCK: &str = "(i32.store (i32.const 136) (call $new-keyring (i32.const 7)))
    (i32.const 128)";

/// A refusal: result 1, error 32 (`other`), line 0, found 0.
const DATA: &str = r#"(data (i32.const 64) "\01") (data (i32.const 72) "\20")"#;

/// Gives new memory to anyone who asks, and never takes any back.
const REALLOC: &str = "(global $heap (mut i32) (i32.const 1024))
    (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (local i32)
      (local.set 4 (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
      (global.set $heap (i32.add (local.get 4) (local.get 3)))
      (loop $grow
        (if (i32.lt_u (i32.shl (memory.size) (i32.const 16)) (global.get $heap))
          (then
            (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
            unreachable)))
      (local.get 4))";

/// Sections of a component.
const CORE_MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;

/// How many core modules a component has.
fn core_modules(component: &[u8]) -> Result<u8> {
    let mut rest = component.get(8..).context("no component")?;
    let mut found = 0;
    while let Some((id, after)) = rest.split_first() {
        let (mut length, mut shift, mut at) = (0_usize, 0, 0_usize);
        loop {
            let byte = *after.get(at).context("a section without an end")?;
            length |= usize::from(byte & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        found += u8::from(*id == CORE_MODULE);
        rest = after.get(at + length..).context("a section without an end")?;
    }
    Ok(found)
}

/// Appends a section.
fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    let mut length = content.len();
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            component.push(low);
            break;
        }
        component.push(low | 0x80);
    }
    component.extend(content);
}

/// Whether the function returns a result that may be a failure.
fn fails(resolve: &Resolve, function: &Function) -> bool {
    match function.result {
        Some(Type::Id(id)) => {
            resolve.types.get(id).is_some_and(|def| matches!(def.kind, TypeDefKind::Result(_)))
        }
        _ => false,
    }
}

fn import(text: &mut String, resolve: &Resolve, module: &str, function: &Function) -> Result<()> {
    let signature = resolve.wasm_signature(ABI.import_variant(), function);
    let (params, results) = (types("param", &signature.params), types("result", &signature.results));
    let name = &function.name;
    writeln!(text, "(import \"{module}\" \"{name}\" (func ${name} {params} {results}))")?;
    Ok(())
}

fn types(what: &str, types: &[WasmType]) -> String {
    let types = types.iter().map(|ty| match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => " i32",
        WasmType::I64 | WasmType::PointerOrI64 => " i64",
        WasmType::F32 => " f32",
        WasmType::F64 => " f64",
    });
    format!("({what}{})", types.collect::<String>())
}
