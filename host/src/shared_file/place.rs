use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::{FileFault, Version, fault_of, read_opened};
use crate::Error;

/// Symbolic links that one path may go through.
const MAX_LINKS: u32 = 40;
/// Opens a name without following a link and without any right to its contents.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// `STATX_ATTR_MOUNT_ROOT` of statx(2).
const MOUNT_ROOT: u64 = 0x2000;
/// `STATX_ATTR_IMMUTABLE` and `STATX_ATTR_APPEND`: the file cannot be replaced.
const IMMUTABLE: u64 = 0x10;
const APPEND: u64 = 0x20;
/// `f_type` of file systems that one kernel alone has mounted: ext2 to ext4, XFS, btrfs, F2FS, bcachefs, ZFS, tmpfs,
/// ramfs, overlayfs.
const LOCAL: [u64; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
];

/// Where a file is: its folder, held open, and its name there. Clones share the folder.
///
/// A path is resolved once, when the place is opened. A symbolic link in it is followed if it belongs to the account of
/// this process or to root: any other account could turn its link to a file that only this process may write. From then
/// on every step names a file in the opened folder, and follows no link.
#[derive(Debug, Clone)]
pub struct Place {
    folder: Arc<OwnedFd>,
    path: PathBuf,
    name: OsString,
    through_link: bool,
}

impl Place {
    /// Resolves a path. The file itself need not exist, its folder must.
    ///
    /// # Errors
    ///
    /// [`Error::File`]: [`NoFolder`](FileFault::NoFolder), [`ForeignLink`](FileFault::ForeignLink),
    /// [`LinkLoop`](FileFault::LinkLoop), and what keeps a folder from being opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Walk::start(path)
            .and_then(|walk| walk.finish())
            .map_err(|fault| Error::File { path: path.to_owned(), fault })
    }

    /// Reads the file, if it is a regular file of at most `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::File`], as [`read`](super::read), and [`Link`](FileFault::Link) where a link took the file's place.
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, Error> {
        self.read_version(max_bytes).map(|(bytes, _)| bytes).map_err(|fault| self.error(fault))
    }

    /// Reads the file, and tells which version of it that was.
    pub(super) fn read_version(&self, max_bytes: u64) -> Result<(Vec<u8>, Version), FileFault> {
        self.open_existing().and_then(|file| read_opened(file, max_bytes))
    }

    /// Which version of the file is there now; `None` where there is none.
    pub(super) fn version(&self) -> rustix::io::Result<Option<Version>> {
        match rustix::fs::statat(self.folder(), &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Version {
                length: stat.st_size,
                modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(i64::MAX)),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file's path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another path leads to the same file. One folder can have several paths without links: bind mounts.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let folder = |place: &Self| rustix::fs::fstat(place.folder()).map(|stat| (stat.st_dev, stat.st_ino));
        self.path == other.path
            || (self.name == other.name
                && folder(self).is_ok_and(|ours| folder(other).is_ok_and(|theirs| ours == theirs)))
    }

    /// Whether the path went through a symbolic link.
    pub fn is_through_link(&self) -> bool {
        self.through_link
    }

    pub(super) fn error(&self, fault: FileFault) -> Error {
        Error::File { path: self.path.clone(), fault }
    }

    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The path of another file in the same folder, for messages.
    pub(super) fn sibling(&self, name: &OsStr) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Opens a file of the folder to read it. It must be a regular file; a pipe does not block.
    pub(super) fn open_file(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(self.folder(), name, flags, Mode::empty())
    }

    /// Creates a file in the folder, exclusively.
    pub(super) fn create_file(&self, name: &OsStr, mode: u32) -> rustix::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.folder(), name, flags, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Removes a file or a link of the folder.
    pub(super) fn remove_file(&self, name: &OsStr) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(self.folder(), name, AtFlags::empty())
    }

    /// Whether the folder still exists.
    pub(super) fn folder_exists(&self) -> bool {
        rustix::fs::fstat(self.folder()).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Whether no other machine can have the folder mounted, as far as the type of its file system tells.
    pub(super) fn is_local(&self) -> bool {
        rustix::fs::fstatfs(self.folder())
            .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
    }

    /// What there is of the file: `None` where there is none. Fails where it is not a regular file, or cannot be replaced.
    pub(super) fn existing(&self) -> Result<Option<Stat>, FileFault> {
        let stat = match rustix::fs::statat(self.folder(), &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(fault_of(error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(FileFault::IsDirectory),
            FileType::Symlink => return Err(FileFault::Link),
            _ => return Err(FileFault::NotRegular),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let attributes = rustix::fs::statx(self.folder(), &self.name, flags, StatxFlags::empty())
            .map_or(0, |found| found.stx_attributes.bits());
        if attributes & MOUNT_ROOT != 0 {
            Err(FileFault::MountPoint)
        } else if attributes & (IMMUTABLE | APPEND) != 0 {
            Err(FileFault::Immutable)
        } else if self.is_kept_by_sticky_bit(&stat) {
            Err(FileFault::Sticky)
        } else {
            Ok(Some(stat))
        }
    }

    /// Whether this process may not replace a file because of the folder's sticky bit. Root may.
    fn is_kept_by_sticky_bit(&self, file: &Stat) -> bool {
        let user = effective_user();
        user != 0
            && file.st_uid != user
            && rustix::fs::fstat(self.folder()).is_ok_and(|folder| {
                Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX) && folder.st_uid != user
            })
    }

    /// Makes what was done in the folder survive a crash.
    pub(super) fn sync_folder(&self) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::fsync(rustix::fs::openat(self.folder(), ".", flags, Mode::empty())?)
    }

    fn open_existing(&self) -> Result<File, FileFault> {
        match self.open_file(&self.name) {
            Ok(file) => Ok(file.into()),
            Err(Errno::LOOP) => Err(FileFault::Link),
            Err(Errno::NOENT) if !self.folder_exists() => Err(FileFault::NoFolder),
            Err(error) => Err(fault_of(error)),
        }
    }
}

/// A path on the way to its file.
struct Walk {
    folder: OwnedFd,
    /// The opened folder, without links.
    path: PathBuf,
    rest: VecDeque<OsString>,
    links: u32,
}

impl Walk {
    fn start(path: &Path) -> Result<Self, FileFault> {
        let mut walk = if path.is_absolute() {
            Self::from_root()?
        } else {
            let path = env::current_dir().map_err(|error| FileFault::Other(error.to_string()))?;
            Self { folder: open_folder(CWD, ".")?, path, rest: VecDeque::new(), links: 0 }
        };
        walk.put_before(path);
        Ok(walk)
    }

    fn from_root() -> Result<Self, FileFault> {
        Ok(Self { folder: open_folder(CWD, "/")?, path: PathBuf::from("/"), rest: VecDeque::new(), links: 0 })
    }

    fn put_before(&mut self, path: &Path) {
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => self.rest.push_front(name.to_owned()),
                Component::ParentDir => self.rest.push_front(OsString::from("..")),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
    }

    fn finish(mut self) -> Result<Place, FileFault> {
        while let Some(name) = self.rest.pop_front() {
            let is_last = self.rest.is_empty();
            if name == ".." {
                self.folder = open_folder(&self.folder, "..")?;
                self.path.pop();
                continue;
            }
            let found = match rustix::fs::openat(&self.folder, &name, LOOK, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::NOENT) if is_last => return Ok(self.at(name)),
                Err(Errno::NOENT) => return Err(FileFault::NoFolder),
                Err(error) => return Err(fault_of(error)),
            };
            let stat = rustix::fs::fstat(&found).map_err(fault_of)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => self.follow(&name, &found, &stat)?,
                _ if is_last => return Ok(self.at(name)),
                FileType::Directory => {
                    self.folder = found;
                    self.path.push(&name);
                }
                _ => return Err(FileFault::NoFolder),
            }
        }
        Err(FileFault::IsDirectory)
    }

    fn follow(&mut self, name: &OsStr, link: &OwnedFd, stat: &Stat) -> Result<(), FileFault> {
        if stat.st_uid != 0 && stat.st_uid != effective_user() {
            return Err(FileFault::ForeignLink { link: self.path.join(name) });
        }
        self.links = self.links.saturating_add(1);
        if self.links > MAX_LINKS {
            return Err(FileFault::LinkLoop);
        }
        // The link that was looked at, whatever has its name now.
        let target = rustix::fs::readlinkat(link, "", Vec::new()).map_err(fault_of)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            let root = Self::from_root()?;
            (self.folder, self.path) = (root.folder, root.path);
        }
        self.put_before(&target);
        Ok(())
    }

    fn at(self, name: OsString) -> Place {
        Place {
            folder: Arc::new(self.folder),
            path: self.path.join(&name),
            name,
            through_link: self.links > 0,
        }
    }
}

fn open_folder(start: impl AsFd, name: &str) -> Result<OwnedFd, FileFault> {
    rustix::fs::openat(start, name, LOOK | OFlags::DIRECTORY, Mode::empty()).map_err(fault_of)
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> FileFault {
        match result.unwrap_err() {
            Error::File { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }

    /// Gives a link to another account; false where this process may not.
    fn give_away(link: &Path) -> bool {
        std::os::unix::fs::lchown(link, Some(65534), None).is_ok()
    }

    #[test]
    fn resolves_links_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("deep")).unwrap();
        symlink("deep/file", real.join("link")).unwrap();
        symlink(real.join("link"), real.join("deep/link2")).unwrap();
        let place = Place::open(&real.join("deep/../deep/./link2")).unwrap();
        assert_eq!((place.path(), place.is_through_link()), (real.join("deep/file").as_path(), true));
        fs::write(real.join("deep/file"), b"x").unwrap();
        assert_eq!(place.read(1), Ok(b"x".to_vec()));
        assert!(!Place::open(&real.join("new")).unwrap().is_through_link());
        assert_eq!(fault(Place::open(&real.join("none/new"))), FileFault::NoFolder);
        assert_eq!(fault(Place::open(&real.join("deep/file/new"))), FileFault::NoFolder);
        assert_eq!(fault(Place::open(&real.join("deep/.."))), FileFault::IsDirectory);
        symlink("loop", real.join("loop")).unwrap();
        assert_eq!(fault(Place::open(&real.join("loop"))), FileFault::LinkLoop);
    }

    #[test]
    fn refuses_links_of_other_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("deep")).unwrap();
        symlink("deep/file", real.join("link")).unwrap();
        symlink("deep", real.join("folder")).unwrap();
        if !give_away(&real.join("link")) || !give_away(&real.join("folder")) {
            return;
        }
        for (path, link) in [("link", "link"), ("folder/file", "folder")] {
            let link = real.join(link);
            assert_eq!(fault(Place::open(&real.join(path))), FileFault::ForeignLink { link }, "{path}");
        }
    }

    #[test]
    fn one_file_by_two_paths() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Place::open(&folder.path().join(name)).unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        assert!(at("file").is_same_as(&at("deep/../file")));
        assert!(!at("file").is_same_as(&at("other")));
        assert!(!at("file").is_same_as(&at("deep/file")));
    }

    #[test]
    fn follows_no_link_after_it_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("deep/file"), b"ours").unwrap();
        let place = Place::open(&at("deep/file")).unwrap();
        // The folder is replaced: the place stays in the one that was opened.
        fs::rename(at("deep"), at("moved")).unwrap();
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("deep/file"), b"theirs").unwrap();
        assert_eq!(place.read(9), Ok(b"ours".to_vec()));
        // The file is replaced.
        fs::write(at("secret"), b"secret").unwrap();
        fs::remove_file(at("moved/file")).unwrap();
        symlink(at("secret"), at("moved/file")).unwrap();
        assert_eq!(fault(place.read(9)), FileFault::Link);
    }
}
