use std::path::PathBuf;

use omni_credentials_host::Module;

use crate::args::ModuleCommand;
use crate::context::{self, Context};
use crate::error::Error;
use crate::output::{self, Object};
use crate::terminal;

pub(crate) fn run(context: &Context, command: ModuleCommand) -> Result<(), Error> {
    match command {
        ModuleCommand::Inspect { path } => print(context, &module(context, path)?),
        ModuleCommand::Verify { path } => {
            let module = module(context, path)?;
            module.check()?;
            print(context, &module)?;
            terminal::note(
                "the module passes all known-answer tests and has the properties every module must have",
            );
            Ok(())
        }
    }
}

fn module(context: &Context, path: Option<PathBuf>) -> Result<Module, Error> {
    match path {
        Some(path) => context::load(&context::read_module(&path)?),
        None => context.module().cloned(),
    }
}

fn print(context: &Context, module: &Module) -> Result<(), Error> {
    let it = module.describe()?;
    let digest = module.digest().to_string();
    let imports = module.imports();
    if context.json {
        let limits = Object::default()
            .number("name_bytes", it.limits.name_bytes)
            .number("scope_bytes", it.limits.scope_bytes)
            .number("value_bytes", it.limits.value_bytes)
            .number("file_bytes", it.limits.file_bytes)
            .number("file_records", it.limits.file_records)
            .number("keyring_keys", it.limits.keyring_keys)
            .number("kdf_memory_kib", it.limits.kdf_memory_kib);
        return Object::default()
            .text("name", &it.name)
            .text("version", &it.version)
            .text("digest", &digest)
            .text("contract", &it.contract)
            .object("suite", &Object::default().number("id", it.suite.id).text("name", &it.suite.name))
            .list("imports", imports.iter().map(|name| output::quoted(name)))
            .object("limits", &limits)
            .print();
    }
    let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") };
    output::line(&format!("name      {} {}", it.name.escape_debug(), it.version.escape_debug()))?;
    output::line(&format!("digest    {digest}"))?;
    output::line(&format!("contract  {}", it.contract.escape_debug()))?;
    output::line(&format!("suite     {} ({})", it.suite.name.escape_debug(), it.suite.id))?;
    output::line(&format!("imports   {imports}"))
}
