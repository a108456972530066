//! Another host, which answers over a pipe.
//!
//! A driver is a program that is started with the path of a module. It reads a JSON object a line and answers each
//! with one: `{"ok": …}`, `{"refused": {"class": …, "line": …, "found": …}}`, or `{"unsupported": true}` for what its
//! host has no way to do. Bytes are hexadecimal, and files are passed by their path. The operations are those of
//! [`Subject`]; beside the KEK stands the master secret, for hosts that take nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::encoding::mismatch;
use crate::golden::Golden;
use crate::hostile::Manifest;
use crate::{Answer, Costs, Identity, Mismatch, ReconcileCase, ReconcileResult, Record, Refusal, Subject};

/// A running driver.
pub struct Driver {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
    files: u32,
    suite: u8,
    exact: bool,
    /// The master secrets of the vectors' KEKs, both hexadecimal.
    secrets: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Ok(Value),
    Refused {
        class: String,
        #[serde(default)]
        line: u32,
        #[serde(default)]
        found: u64,
    },
    Unsupported(bool),
}

impl Driver {
    /// Starts a driver. One that is not `exact` tells the class of a refusal only.
    ///
    /// # Errors
    /// Where it does not start or does not say which suite it has.
    pub fn start(command: &mut Command, exact: bool) -> Result<Self, Mismatch> {
        let fault = |cause: io::Error| mismatch("the driver", "started", cause);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(fault)?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (requests, answers) = pipes.ok_or_else(|| mismatch("the driver", "two pipes", "none"))?;
        let mut driver = Self {
            process,
            requests,
            answers: BufReader::new(answers),
            folder: tempfile::tempdir().map_err(fault)?,
            files: 0,
            suite: 0,
            exact,
            secrets: BTreeMap::new(),
        };
        let suite = driver.ask::<u8>("suite", json!({}));
        driver.suite = suite.map_err(|refusal| mismatch("suite", "a number", refusal.class))?;
        for keyring in Golden::load(driver.suite)?.keyrings {
            driver.secrets.insert(keyring.kek, keyring.secret);
        }
        let manifest = Manifest::load(driver.suite)?;
        driver.secrets.insert(manifest.kek, manifest.secret);
        Ok(driver)
    }

    /// One request and its answer. A driver that breaks down is a trap.
    fn ask<T: serde::de::DeserializeOwned>(&mut self, operation: &str, arguments: Value) -> Answer<T> {
        let mut request = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        request.insert("op".to_owned(), operation.into());
        match self.exchange(&Value::Object(request)) {
            Ok(Reply::Ok(value)) => serde_json::from_value(value).map_err(trap),
            Ok(Reply::Refused { class, line, found }) => Err(Refusal { class, line, found }),
            Ok(Reply::Unsupported(true)) => {
                Err(Refusal { class: "unsupported".to_owned(), line: 0, found: 0 })
            }
            Ok(Reply::Unsupported(false)) => Err(trap("neither done nor unsupported")),
            Err(error) => Err(trap(error)),
        }
    }

    fn exchange(&mut self, request: &Value) -> io::Result<Reply> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{error}: {line:?}")))
    }

    fn bytes(&mut self, operation: &str, arguments: Value) -> Answer<Vec<u8>> {
        hex::decode(self.ask::<String>(operation, arguments)?).map_err(trap)
    }

    /// What operations with a keyring have in common.
    fn keyed(&self, kek: &[u8; 32], more: Value) -> Value {
        let kek = hex::encode(kek);
        let mut arguments = json!({ "secret": self.secrets.get(&kek), "kek": kek });
        if let (Value::Object(arguments), Value::Object(more)) = (&mut arguments, more) {
            arguments.extend(more);
        }
        arguments
    }

    /// Puts bytes into a file of their own, for the time of the driver.
    fn file(&mut self, bytes: &[u8]) -> Answer<PathBuf> {
        self.files += 1;
        let path = self.folder.path().join(format!("{}.credentials", self.files));
        fs::write(&path, bytes).map_err(trap)?;
        Ok(path)
    }
}

impl Subject for Driver {
    fn suite(&self) -> u8 {
        self.suite
    }

    fn is_exact(&self) -> bool {
        self.exact
    }

    fn aead_open(&mut self, key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Answer<Vec<u8>> {
        self.bytes(
            "aead-open",
            json!({ "key": hex(key), "nonce": hex(nonce), "aad": hex(aad), "sealed": hex(sealed) }),
        )
    }

    fn hkdf_sha256(&mut self, ikm: &[u8], salt: &[u8], info: &[u8], length: u32) -> Answer<Vec<u8>> {
        let arguments = json!({ "ikm": hex(ikm), "salt": hex(salt), "info": hex(info), "length": length });
        self.bytes("hkdf-sha256", arguments)
    }

    fn argon2id(&mut self, password: &[u8], salt: &[u8], costs: Costs, length: u32) -> Answer<Vec<u8>> {
        let Costs { memory_kib, passes, lanes } = costs;
        let arguments = json!({
            "password": hex(password), "salt": hex(salt), "length": length,
            "memory_kib": memory_kib, "passes": passes, "lanes": lanes,
        });
        self.bytes("argon2id", arguments)
    }

    fn derive_kek(&mut self, secret: &[u8], keyring: &[u8]) -> Answer<[u8; 32]> {
        let kek = self.bytes("derive-kek", json!({ "secret": hex(secret), "keyring": hex(keyring) }))?;
        kek.try_into().map_err(|_| trap("a KEK of another length"))
    }

    fn unlock(&mut self, keyring: &[u8], kek: &[u8; 32]) -> Answer<Vec<u8>> {
        let arguments = self.keyed(kek, json!({ "keyring": hex(keyring) }));
        self.bytes("unlock", arguments)
    }

    fn seal(&mut self, keyring: &[u8], kek: &[u8; 32], identity: &Identity, value: &[u8]) -> Answer<Vec<u8>> {
        let more = json!({ "keyring": hex(keyring), "identity": identity, "value": hex(value) });
        let arguments = self.keyed(kek, more);
        self.bytes("seal", arguments)
    }

    fn open(
        &mut self,
        keyring: &[u8],
        kek: &[u8; 32],
        identity: &Identity,
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        let more = json!({ "keyring": hex(keyring), "identity": identity, "sealed": hex(sealed) });
        let arguments = self.keyed(kek, more);
        self.bytes("open", arguments)
    }

    fn canonical_scope(&mut self, keyring: &[u8], scope: &[u8]) -> Answer<Vec<u8>> {
        self.bytes("canonical-scope", json!({ "keyring": hex(keyring), "scope": hex(scope) }))
    }

    fn read_file(&mut self, file: &[u8], kek: &[u8; 32]) -> Answer<(Vec<Record>, u64)> {
        #[derive(Deserialize)]
        struct Found {
            records: Vec<Record>,
            generation: u64,
        }
        let path = self.file(file)?;
        let arguments = self.keyed(kek, json!({ "file": path }));
        let found = self.ask::<Found>("read-file", arguments);
        remove(&path)?;
        found.map(|found| (found.records, found.generation))
    }

    fn reconcile(&mut self, case: ReconcileCase<'_>) -> Answer<ReconcileResult> {
        let (ours, theirs) = (self.file(case.ours)?, self.file(case.theirs)?);
        let secret = |kek: Option<&[u8; 32]>| kek.and_then(|kek| self.secrets.get(&hex(kek)).cloned());
        let arguments = json!({
            "ancestor": hex(case.ancestor), "ours": ours, "theirs": theirs,
            "ours_complete": case.ours_complete, "prefer": case.prefer,
            "our_kek": case.our_kek.map(|kek| hex(kek)), "our_secret": secret(case.our_kek),
            "their_kek": case.their_kek.map(|kek| hex(kek)), "their_secret": secret(case.their_kek),
        });
        let found = self.ask("reconcile", arguments);
        remove(&ours)?;
        remove(&theirs)?;
        found
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It ends with its standard input; one that does not must not be waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn remove(path: &Path) -> Answer<()> {
    fs::remove_file(path).map_err(trap)
}

#[allow(clippy::needless_pass_by_value, reason = "what map_err calls takes the error")]
fn trap(cause: impl ToString) -> Refusal {
    Refusal { class: format!("trap: {}", cause.to_string()), line: 0, found: 0 }
}
