//! The cache of compiled modules: native code, one file for each module and engine.
//!
//! # Why running what is found there is safe
//!
//! Loading a compiled artifact is running it, so the question is who can write one. The folder has mode
//! 0700 and artifacts have mode 0600; both must belong to the effective user and must not be
//! writable by anyone else, or they are not looked at. The file is opened once, checked and read
//! through that one descriptor into memory, and only that copy is used, so that nothing can change between the
//! check and the use. What is left is an attacker with our own user id: such a one can attach a
//! debugger to this very process, read the master secret from its environment and replace the host's
//! own binary, and no check made here could stand in the way.
//!
//! The digest in the header therefore guards against accidents and not against that attacker: a
//! torn write, a full disk, a failing one, an artifact copied to the name of another module or
//! another engine. It covers the module's digest and the engine's key beside the code. Whatever does
//! not match is compiled again and replaced. It is BLAKE3, because SHA-256 over a megabyte of code
//! would be half of the time that loading takes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Digest;

/// The first bytes of an artifact file: what it is, and the version of this layout.
const MAGIC: &[u8; 16] = b"omni-native\0\0\0\0\x01";
/// Longer files are not read. A module of a megabyte compiles to a few.
const MAX_ARTIFACT: u64 = 128 << 20;

pub(crate) struct Cache {
    folder: PathBuf,
    /// Differs for every engine version, setting and set of processor features that matters.
    engine_key: u64,
    warn: Option<fn(&str)>,
    warned: AtomicBool,
}

impl Cache {
    pub(crate) fn new(folder: PathBuf, engine: &Engine, warn: Option<fn(&str)>) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self { folder, engine_key: hasher.finish(), warn, warned: AtomicBool::new(false) }
    }

    /// The compiled module, if a sound artifact is there.
    pub(crate) fn load(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(digest);
        let file = match read_private(&self.folder, &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(&path, &error);
                return None;
            }
        };
        let artifact = self.verify(&file, digest)?;
        // SAFETY: `artifact` was written by `keep` of this very code and engine, from
        // `Component::serialize`: the file and its folder can be written by our own user only, and the
        // BLAKE3 over engine key, module digest and artifact was checked on this copy in memory.
        unsafe { Component::deserialize(engine, artifact) }.ok()
    }

    /// Keeps a compiled module for the next process. A failure is said once and has no other effect.
    pub(crate) fn keep(&self, component: &Component, digest: &Digest) {
        let path = self.path(digest);
        let result = match component.serialize() {
            Ok(artifact) => self.write(&path, digest, &artifact),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        if let Err(error) = result {
            self.complain(&path, &error);
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{digest}-{:016x}.native", self.engine_key))
    }

    fn verify<'a>(&self, file: &'a [u8], digest: &Digest) -> Option<&'a [u8]> {
        let (sum, artifact) = file.strip_prefix(MAGIC)?.split_at_checked(32)?;
        (self.sum(digest, artifact) == sum).then_some(artifact)
    }

    fn sum(&self, digest: &Digest, artifact: &[u8]) -> [u8; 32] {
        let mut sum = blake3::Hasher::new();
        sum.update(MAGIC).update(&self.engine_key.to_be_bytes()).update(digest.as_bytes()).update(artifact);
        sum.finalize().into()
    }

    /// Readers see the old file or the new one, whole: written beside it, synced, renamed.
    fn write(&self, path: &Path, digest: &Digest, artifact: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        check_private(&fs::symlink_metadata(&self.folder)?)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.tmp", process::id()));
        // Left behind by a process of the same id that died on the way.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&self.sum(digest, artifact)))
            .and_then(|()| file.write_all(artifact))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn complain(&self, path: &Path, error: &io::Error) {
        if let Some(warn) = self.warn
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            warn(&format!(
                "compiled crypto modules cannot be kept in {}, so every process compiles them anew: {error}",
                path.parent().unwrap_or(path).display()
            ));
        }
    }
}

/// Reads a file that nobody but us can have written.
fn read_private(folder: &Path, path: &Path) -> io::Result<Vec<u8>> {
    check_private(&fs::symlink_metadata(folder)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    check_private(&metadata)?;
    if !metadata.is_file() || metadata.len() > MAX_ARTIFACT {
        return Err(io::Error::other("what is there is not an artifact"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_ARTIFACT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_private(metadata: &fs::Metadata) -> io::Result<()> {
    // SAFETY: `geteuid` has no arguments, no failure and no effect on memory.
    let we = unsafe { libc::geteuid() };
    if metadata.file_type().is_symlink() {
        return Err(io::Error::other("it is a symbolic link"));
    }
    if metadata.uid() != we {
        return Err(io::Error::other(format!("it belongs to user id {}, not to {we}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it"));
    }
    Ok(())
}
