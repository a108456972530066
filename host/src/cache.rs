//! The cache of compiled modules: native code, one file for each module and engine.
//!
//! # Why running what is found there is safe
//!
//! Loading a compiled artifact is running it, so the question is who can write one. The folder has mode
//! 0700 and artifacts have mode 0600; both must belong to the effective user and must not be
//! writable by anyone else, or they are not looked at. The file is opened once, and read once through that descriptor:
//! what is hashed goes into memory that is then sealed against any change, and only that copy is used, so that nothing
//! can change between the check and the use. What is left is an attacker with our own user id: such a one can
//! attach a debugger to this very process, read the master secret from its environment and replace the host's
//! own binary, and no check made here could stand in the way.
//!
//! The memory is a sealed memfd, which the engine maps as it is. Given a buffer, the engine would copy a megabyte once
//! more, and the page faults of two copies would be half of a new backend's first read. Where the system has no
//! memfd, or none whose code may run, the buffer it is.
//!
//! The digest in the header therefore guards against accidents and not against that attacker: a
//! torn write, a full disk, a failing one, an artifact copied to the name of another module or
//! another engine. It covers the module's digest and the engine's key beside the code. Whatever does
//! not match is compiled again and replaced. It is BLAKE3, because SHA-256 over a megabyte of code
//! would be half of the time that loading takes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memfd::{FileSeal, MemfdOptions};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Digest;

/// The first bytes of an artifact file: what it is, and the version of this layout.
const MAGIC: &[u8; 16] = b"omni-native\0\0\0\0\x01";
/// Longer files are not read. A module of a megabyte compiles to a few.
const MAX_ARTIFACT: u64 = 128 << 20;
/// Read and hashed at a time, in bytes: few calls, and the processor still has it at hand when it is hashed.
const CHUNK: usize = 256 << 10;

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
        match open_private(&self.folder, &path).and_then(|mut file| self.read(engine, digest, &mut file)) {
            Ok(component) => component,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.complain(&path, &error);
                None
            }
        }
    }

    /// The component in an artifact file; none where that is not a sound one.
    fn read(&self, engine: &Engine, digest: &Digest, file: &mut File) -> io::Result<Option<Component>> {
        if let Ok(Some(artifact)) = self.sealed_copy(digest, file) {
            // SAFETY: the artifact was written by `keep` of this very code and engine, from
            // `Component::serialize`: the file and its folder can be written by our own user only. The BLAKE3 over
            // engine key, module digest and artifact was checked on this copy, which no other process can change any more.
            let component = unsafe {
                Component::deserialize_file(engine, format!("/proc/self/fd/{}", artifact.as_raw_fd()))
            };
            if let Ok(component) = component {
                return Ok(Some(component));
            }
        }
        file.rewind()?;
        self.read_buffered(engine, digest, file)
    }

    /// The same by way of a buffer.
    fn read_buffered(
        &self,
        engine: &Engine,
        digest: &Digest,
        file: &mut File,
    ) -> io::Result<Option<Component>> {
        let mut artifact = Vec::new();
        if !self.copy_checked(digest, file, &mut artifact)? {
            return Ok(None);
        }
        // SAFETY: as in `read`; no other process has this copy.
        Ok(unsafe { Component::deserialize(engine, artifact) }.ok())
    }

    /// The artifact in memory that cannot be changed; none where it is not sound.
    fn sealed_copy(&self, digest: &Digest, file: &mut File) -> io::Result<Option<File>> {
        let memory = MemfdOptions::default()
            .allow_sealing(true)
            .create("omni-credentials-module")
            .map_err(io::Error::other)?;
        if !self.copy_checked(digest, file, &mut memory.as_file())? {
            return Ok(None);
        }
        memory
            .add_seals(&[FileSeal::SealShrink, FileSeal::SealGrow, FileSeal::SealWrite, FileSeal::SealSeal])
            .map_err(io::Error::other)?;
        Ok(Some(memory.into_file()))
    }

    /// Copies the artifact in a file, and tells whether what was copied is sound.
    fn copy_checked(&self, digest: &Digest, file: &mut File, to: &mut impl Write) -> io::Result<bool> {
        let mut file = file.take(MAX_ARTIFACT);
        let (mut magic, mut expected) = ([0; MAGIC.len()], [0; 32]);
        for part in [magic.as_mut_slice(), expected.as_mut_slice()] {
            match file.read_exact(part) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                result => result?,
            }
        }
        if magic != *MAGIC {
            return Ok(false);
        }
        let mut sum = self.hasher(digest);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk)?;
            let Some(chunk) = chunk.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            sum.update(chunk);
            to.write_all(chunk)?;
        }
        Ok(<[u8; 32]>::from(sum.finalize()) == expected)
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

    /// Everything that an artifact's own digest covers, but for the artifact.
    fn hasher(&self, digest: &Digest) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(MAGIC).update(&self.engine_key.to_be_bytes()).update(digest.as_bytes());
        hasher
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
            .and_then(|()| file.write_all(self.hasher(digest).update(artifact).finalize().as_bytes()))
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
                "compiled crypto modules cannot be kept in {}, so every process compiles them again: {error}",
                path.parent().unwrap_or(path).display()
            ));
        }
    }
}

/// Opens a file that only this account can have written.
fn open_private(folder: &Path, path: &Path) -> io::Result<File> {
    check_private(&fs::symlink_metadata(folder)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    check_private(&metadata)?;
    if !metadata.is_file() || metadata.len() > MAX_ARTIFACT {
        return Err(io::Error::other("what is there is not an artifact"));
    }
    Ok(file)
}

fn check_private(metadata: &fs::Metadata) -> io::Result<()> {
    let we = rustix::process::geteuid().as_raw();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// The shortest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn kept(folder: &Path) -> (Engine, Cache, Digest, File) {
        let engine = crate::engine::new().unwrap();
        let cache = Cache::new(folder.to_owned(), &engine, None);
        let digest = Digest::of(EMPTY);
        cache.keep(&Component::from_binary(&engine, EMPTY).unwrap(), &digest);
        let file = File::open(cache.path(&digest)).unwrap();
        (engine, cache, digest, file)
    }

    #[test]
    fn nobody_changes_what_was_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (_, cache, digest, mut file) = kept(folder.path());
        let copy = cache.sealed_copy(&digest, &mut file).unwrap().unwrap();
        assert_eq!(copy.metadata().unwrap().len(), file.metadata().unwrap().len() - 48);
        let again = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", copy.as_raw_fd()));
        for mut copy in [copy, again.unwrap()] {
            copy.rewind().unwrap();
            assert_eq!(copy.write_all(b"x").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(copy.set_len(1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn without_a_memfd_there_is_a_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, cache, digest, mut file) = kept(folder.path());
        assert!(cache.read(&engine, &digest, &mut file).unwrap().is_some());
        file.rewind().unwrap();
        assert!(cache.read_buffered(&engine, &digest, &mut file).unwrap().is_some());
        file.rewind().unwrap();
        assert!(cache.read_buffered(&engine, &Digest::of(b"another"), &mut file).unwrap().is_none());
    }
}
