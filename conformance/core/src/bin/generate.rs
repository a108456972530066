//! Writes the golden and hostile vectors into `conformance/vectors`. Run once for a format, then frozen:
//! `cargo run --release -p omni-credentials-core-conformance --bin generate`.

use std::fs;
use std::io::{Error, Result};

use omni_credentials_core_conformance::{generate, vectors};

fn main() -> Result<()> {
    let files = generate::all().map_err(Error::other)?;
    for (path, bytes) in &files {
        let path = vectors().join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, bytes)?;
    }
    println!("{} files", files.len());
    Ok(())
}
