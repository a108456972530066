use std::path::PathBuf;

use omni_credentials_conformance::{Component, of_suite};
use omni_credentials_host::Module;
use serde::{Serialize, Serializer};

use crate::args::ModuleCommand;
use crate::context::{self, Context};
use crate::error::Error;
use crate::output;
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
        return output::json(&Described { passed: Some(Passed(passed)), ..describe(module)? });
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
        return output::json(&describe(module)?);
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

fn describe(module: &Module) -> Result<Described, Error> {
    let it = module.describe()?;
    Ok(Described {
        name: it.name,
        version: it.version,
        digest: module.digest().to_string(),
        contract: it.contract,
        suite: Suite { id: it.suite.id, name: it.suite.name },
        imports: module.imports(),
        limits: Limits {
            name_bytes: it.limits.name_bytes,
            scope_bytes: it.limits.scope_bytes,
            value_bytes: it.limits.value_bytes,
            file_bytes: it.limits.file_bytes,
            file_records: it.limits.file_records,
            keyring_keys: it.limits.keyring_keys,
            kdf_memory_kib: it.limits.kdf_memory_kib,
        },
        passed: None,
    })
}

/// What `module inspect` and `module verify` print with `--json`.
#[derive(Serialize)]
struct Described {
    name: String,
    version: String,
    digest: String,
    contract: String,
    suite: Suite,
    imports: Vec<String>,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<Passed>,
}

#[derive(Serialize)]
struct Suite {
    id: u8,
    name: String,
}

#[derive(Serialize)]
struct Limits {
    name_bytes: u32,
    scope_bytes: u32,
    value_bytes: u32,
    file_bytes: u32,
    file_records: u32,
    keyring_keys: u32,
    kdf_memory_kib: u32,
}

/// The sets of vectors by name, in the order in which they ran, with the number of vectors.
struct Passed(Vec<(&'static str, usize)>);

impl Serialize for Passed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}
