//! `hostile-modules FOLDER`: writes crypto modules that do one evil thing each, `FOLDER/NAME.wasm`.
//!
//! They keep to the contract as far as types go, so that a host loads them (but for those whose evil is
//! that they do not). Every host tests with the same files that it survives them.

mod cases;
mod shell;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| anyhow::anyhow!("usage: hostile-modules FOLDER"))?;
    std::fs::create_dir_all(&folder)?;
    for (name, component) in cases::all()? {
        std::fs::write(folder.join(format!("{name}.wasm")), component)?;
    }
    Ok(())
}
