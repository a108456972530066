use std::io;
use std::path::PathBuf;

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The input cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    /// The output cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
    /// The input is no WebAssembly.
    #[error("not WebAssembly: {0}")]
    Parse(#[from] wasmparser::BinaryReaderError),
    /// The encoder refuses it; it may have been built without `wit-bindgen`.
    #[error("cannot make a component: {0}")]
    Encode(String),
    /// The component would import what no host gives it.
    #[error("the component imports {0}; a crypto module imports wasi:random/random and nothing else")]
    Import(String),
    /// The component does not import what it must.
    #[error("the component does not import wasi:random/random")]
    NoEntropy,
}
