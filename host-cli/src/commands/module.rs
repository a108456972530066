use std::path::PathBuf;

use omni_credentials_conformance::{Component, of_suite};
use omni_credentials_host::Module;

use crate::args::ModuleCommand;
use crate::context::{self, Context};
use crate::error::Error;
use crate::output::{self, Object};
use crate::terminal::{self, Progress};

pub(crate) fn run(context: &Context, command: ModuleCommand) -> Result<(), Error> {
    match command {
        ModuleCommand::Inspect { path } => print(context, &module(context, path)?),
        ModuleCommand::Verify { path } => verify(context, &module(context, path)?),
    }
}

/// The checks that every host makes before it trusts a module, and then every vector there is for its suite.
fn verify(context: &Context, module: &Module) -> Result<(), Error> {
    module.check()?;
    let suite = module.describe()?.suite.id;
    let mut subject = Component::new(module.clone())?;
    let sets: Vec<_> = of_suite(suite).collect();
    let mut progress = Progress::new("sets of vectors", sets.len());
    let mut passed = Vec::new();
    for (done, set) in sets.into_iter().enumerate() {
        progress.at(done)?;
        passed.push((set.name, set.run(&mut subject)?));
    }
    drop(progress);
    if context.json {
        let sets = passed.iter().fold(Object::default(), |sets, (name, count)| sets.number(name, *count));
        return describe(module)?.object("passed", &sets).print();
    }
    print(context, module)?;
    for (name, count) in &passed {
        output::line(&format!("passed    {name} ({count})"))?;
    }
    let total: usize = passed.iter().map(|(_, count)| count).sum();
    terminal::note(&format!(
        "the module has the properties that every module must have, and passes all {total} vectors for its suite"
    ));
    Ok(())
}

fn module(context: &Context, path: Option<PathBuf>) -> Result<Module, Error> {
    match path {
        Some(path) => context::load(&context::read_module(&path)?),
        None => context.module().cloned(),
    }
}

fn print(context: &Context, module: &Module) -> Result<(), Error> {
    if context.json {
        return describe(module)?.print();
    }
    let it = module.describe()?;
    let (digest, imports) = (module.digest(), module.imports());
    let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") };
    output::line(&format!("name      {} {}", it.name.escape_debug(), it.version.escape_debug()))?;
    output::line(&format!("digest    {digest}"))?;
    output::line(&format!("contract  {}", it.contract.escape_debug()))?;
    output::line(&format!("suite     {} ({})", it.suite.name.escape_debug(), it.suite.id))?;
    output::line(&format!("imports   {imports}"))
}

fn describe(module: &Module) -> Result<Object, Error> {
    let it = module.describe()?;
    let limits = Object::default()
        .number("name_bytes", it.limits.name_bytes)
        .number("scope_bytes", it.limits.scope_bytes)
        .number("value_bytes", it.limits.value_bytes)
        .number("file_bytes", it.limits.file_bytes)
        .number("file_records", it.limits.file_records)
        .number("keyring_keys", it.limits.keyring_keys)
        .number("kdf_memory_kib", it.limits.kdf_memory_kib);
    Ok(Object::default()
        .text("name", &it.name)
        .text("version", &it.version)
        .text("digest", &module.digest().to_string())
        .text("contract", &it.contract)
        .object("suite", &Object::default().number("id", it.suite.id).text("name", &it.suite.name))
        .list("imports", module.imports().iter().map(|name| output::quoted(name)))
        .object("limits", &limits))
}
