//! What all commands share: the file they work on, the crypto module, and the master secret.

use std::cell::{OnceCell, RefCell};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use omni_credentials_host::shared_file::{self, Place};
use omni_credentials_host::{self as host, Config, Digest, ErrorCode, Kek, Module, Runtime};

use crate::args::Global;
use crate::error::Error;
use crate::interrupt;
use crate::secret::{self, Secret};

/// The default module's bytes; `build.rs` finds them.
static BUILTIN: &[u8] = include_bytes!(env!("OMNI_CREDENTIALS_BUILTIN_MODULE"));
/// The longest credentials file, in bytes: the format's limit.
pub(crate) const MAX_FILE: u64 = 64 << 20;
/// The longest module that is read, in bytes.
const MAX_MODULE: u64 = 64 << 20;
/// The name of the file if none is given.
const DEFAULT_FILE: &str = "credentials.omni";

pub(crate) struct Context {
    pub(crate) file: PathBuf,
    pub(crate) json: bool,
    pub(crate) wait: Duration,
    pub(crate) variable: String,
    place: OnceCell<Place>,
    module_file: Option<PathBuf>,
    module: OnceCell<Module>,
    secret: OnceCell<Secret>,
    more_secrets: RefCell<Vec<Secret>>,
    /// KEKs derived so far, by keyring: a derivation costs a fifth of a second.
    keks: RefCell<Vec<(Vec<u8>, Kek)>>,
}

impl Context {
    /// `is_new` says that the command makes the file, so that one in a parent folder is not meant.
    pub(crate) fn new(global: Global, is_new: bool) -> Self {
        let file = global.file.or_else(|| {
            let named = std::env::var_os("OMNI_CREDENTIALS_FILE").filter(|name| !name.is_empty());
            named.map(PathBuf::from)
        });
        let file = file.or_else(|| if is_new { None } else { found_above() });
        Self {
            file: file.unwrap_or_else(|| DEFAULT_FILE.into()),
            json: global.json,
            wait: Duration::from_secs(global.wait),
            variable: global.secret_env,
            place: OnceCell::new(),
            module_file: global.module,
            module: OnceCell::new(),
            secret: OnceCell::new(),
            more_secrets: RefCell::default(),
            keks: RefCell::default(),
        }
    }

    /// Where the file is. The path is resolved once.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        if let Some(place) = self.place.get() {
            return Ok(place.clone());
        }
        let place = Place::open(&self.file)?;
        Ok(self.place.get_or_init(|| place).clone())
    }

    /// Reads the file. Errors name it as the caller does.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Error> {
        self.place()?.read(MAX_FILE).map_err(|error| match error {
            host::Error::File { fault, .. } => Error::File { path: self.file.clone(), fault },
            other => other.into(),
        })
    }

    /// The crypto module, loaded on first use.
    pub(crate) fn module(&self) -> Result<&Module, Error> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let module = match &self.module_file {
            Some(path) => load(&read_module(path)?)?,
            None => load(BUILTIN)?,
        };
        Ok(self.module.get_or_init(|| module))
    }

    /// The master secret. The command asks for it at most once.
    pub(crate) fn secret(&self) -> Result<&Secret, Error> {
        if let Some(secret) = self.secret.get() {
            return Ok(secret);
        }
        let secret = secret::existing(&self.variable)?;
        Ok(self.secret.get_or_init(|| secret))
    }

    /// Whether there is a master secret without asking a person. Fails where the environment names one that cannot be
    /// read.
    pub(crate) fn has_secret(&self) -> Result<bool, Error> {
        if self.secret.get().is_none()
            && let Some(secret) = secret::from_environment(&self.variable)?
        {
            let _ = self.secret.set(secret);
        }
        Ok(self.secret.get().is_some())
    }

    /// Tries one more master secret where the first one is wrong.
    pub(crate) fn also_try(&self, secret: Secret) {
        self.more_secrets.borrow_mut().push(secret);
    }

    /// The KEK of the keyring of the file at `path`.
    pub(crate) fn kek(&self, path: &Path, keyring: &[u8]) -> Result<Kek, Error> {
        let known = self.keks.borrow().iter().find(|(bytes, _)| bytes == keyring).map(|(_, kek)| kek.clone());
        if let Some(kek) = known {
            return Ok(kek);
        }
        let module = self.module()?;
        let mut derived = module.derive_kek(self.secret()?, keyring);
        for secret in self.more_secrets.borrow().iter() {
            match &derived {
                Err(host::Error::Refused(failure)) if failure.code == ErrorCode::WrongMasterSecret => {
                    derived = module.derive_kek(secret, keyring);
                }
                _ => break,
            }
        }
        let kek = derived.map_err(Error::of_file(path))?;
        self.remember(keyring, &kek);
        Ok(kek)
    }

    /// Remembers the KEK of a keyring that was changed or made here.
    pub(crate) fn remember(&self, keyring: &[u8], kek: &Kek) {
        self.keks.borrow_mut().push((keyring.to_vec(), kek.clone()));
    }
}

/// The file in the closest parent folder, if the current folder has none. The search ends at the top of a work tree, at
/// another file system, and at a folder in which every user can put a file, such as /tmp.
fn found_above() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let device = here.metadata().ok()?.dev();
    for folder in here.ancestors() {
        let metadata = folder.metadata().ok()?;
        if metadata.dev() != device || (folder != here && metadata.mode() & 0o002 != 0) {
            return None;
        }
        let file = folder.join(DEFAULT_FILE);
        if file.symlink_metadata().is_ok() {
            // In the current folder, the name alone is easier to read.
            return (folder != here).then_some(file);
        }
        if folder.join(".git").symlink_metadata().is_ok() {
            return None;
        }
    }
    None
}

/// Reads a module, which may be piped in as `-`.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Error> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = || io::stdin().take(MAX_MODULE).read_to_end(&mut bytes);
        interrupt::blocking(read)?.map_err(Error::io("standard input"))?;
        return Ok(bytes);
    }
    Ok(shared_file::read(path, MAX_MODULE)?)
}

/// Loads a module with the process's one runtime.
pub(crate) fn load(wasm: &[u8]) -> Result<Module, Error> {
    let runtime = Runtime::new(Config {
        cache_dir: cache_folder(),
        interrupt: Some(interrupt::requested),
        before_call: Some(interrupt::remind),
        // Compiling again takes less than a second: not worth a warning.
        warn: None,
    })?;
    interrupt::tick(runtime.ticker());
    Ok(runtime.load(wasm, &Digest::of(wasm))?)
}

fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("omni-credentials"))
}
