//! Merging two versions of a file: what to do is the module's decision (FORMAT.md, section 8), and where it leaves one
//! to people, theirs.

use std::path::Path;

use omni_credentials_host::{
    Conflict, Document, Entry, EntryRef, Error as HostError, ErrorCode, Files, Keyring, KeyringHandle,
    OwnedIdentity, Preference, Reconciled, Side, Wrapping,
};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::Error;
use crate::{hints, identity, store};

/// A merged file, and what it took over.
pub(crate) struct Combined {
    /// The file, sealed.
    pub(crate) bytes: Vec<u8>,
    /// What ours did not have.
    pub(crate) to_ours: Vec<Entry>,
    /// What theirs did not have.
    pub(crate) to_theirs: Vec<Entry>,
    /// What neither had, because a person edited it.
    pub(crate) edited: Vec<OwnedIdentity>,
    /// Changed on both sides, and decided as preferred or chosen.
    pub(crate) conflicts: Vec<String>,
    /// Whose master secret the file has, where the sides have different ones.
    pub(crate) wrapping: Wrapping,
}

/// What becomes of a credential that is in conflict.
pub(crate) enum Choice {
    /// What ours has, or its deletion.
    Ours,
    /// What theirs has, or its deletion.
    Theirs,
    /// Something else.
    Value {
        /// When it expires.
        expires: Option<u64>,
        /// The value.
        value: Zeroizing<Vec<u8>>,
    },
}

/// What both sides have of a credential; none if it is not there.
pub(crate) struct Versions {
    pub(crate) ours: Option<Entry>,
    pub(crate) theirs: Option<Entry>,
}

/// Merges two files whose common ancestor is `base`; of an ancestor that is no credentials file nothing is known. `path` is
/// for messages. With conflicts and no preference it is an error that names them.
pub(crate) fn combine(
    context: &Context,
    path: &Path,
    base: &[u8],
    ours: &[u8],
    theirs: &[u8],
    prefer: Preference,
) -> Result<Combined, Error> {
    Merge::new(context, path, base, ours, theirs)?.finish(prefer, Vec::new())
}

/// Two versions of a file that become one.
pub(crate) struct Merge<'a> {
    context: &'a Context,
    path: &'a Path,
    files: Files,
    ancestor: Vec<u8>,
    ours: Side,
    theirs: Side,
    /// Whether the secrets of both sides are at hand.
    one_secret: bool,
}

impl<'a> Merge<'a> {
    /// Parses and checks both versions; see [`combine`].
    pub(crate) fn new(
        context: &'a Context,
        path: &'a Path,
        base: &[u8],
        ours: &[u8],
        theirs: &[u8],
    ) -> Result<Self, Error> {
        let mut files = context.module()?.files()?;
        let of_file = Error::of_file(path);
        let ours = files.parse(ours).map_err(&of_file)?;
        let theirs = files.parse(theirs).map_err(&of_file)?;
        let ancestor = match files.parse(base) {
            Ok(base) => files.manifest(base)?,
            Err(HostError::Refused(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let ours_unlocked = unlock(context, path, &mut files, ours)?;
        let theirs_unlocked = unlock(context, path, &mut files, theirs)?;
        // Where the secret of one side is not at hand, the other side's keyring may do.
        let our_keyring =
            ours_unlocked.or(theirs_unlocked).ok_or_else(|| Error::WrongSecret { path: path.to_owned() })?;
        let their_keyring = theirs_unlocked.unwrap_or(our_keyring);
        let ours = Side { document: ours, keyring: our_keyring };
        let theirs = Side { document: theirs, keyring: their_keyring };
        for side in [ours, theirs] {
            files.verify(side.document, side.keyring).map_err(locked(path))?;
        }
        let one_secret = ours_unlocked.is_some() && theirs_unlocked.is_some();
        Ok(Self { context, path, files, ancestor, ours, theirs, one_secret })
    }

    /// The credentials that both sides changed in different ways, and a keyring that opens what either side has.
    pub(crate) fn conflicts(&mut self, prefer: Preference) -> Result<(Vec<Conflict>, Keyring), Error> {
        let found = self.reconcile(prefer)?;
        let keyring = self.unlocked(&found, prefer)?;
        Ok((found.conflicts, keyring))
    }

    /// What both sides have of each of these credentials.
    pub(crate) fn versions(&mut self, of: &[OwnedIdentity]) -> Result<Vec<Versions>, Error> {
        let ours = self.files.entries(self.ours.document)?;
        let theirs = self.files.entries(self.theirs.document)?;
        let versions = of.iter().map(|identity| Versions {
            ours: store::live_record(&ours, &identity.as_ref()).cloned(),
            theirs: store::live_record(&theirs, &identity.as_ref()).cloned(),
        });
        Ok(versions.collect())
    }

    /// A scope in canonical form.
    pub(crate) fn canonical_scope(&mut self, scope: &str) -> Result<Vec<u8>, Error> {
        let keyring = self.files.keyring_bytes(self.ours.document)?;
        store::canonical_scope(&mut self.files, &keyring, scope)
    }

    /// The merged file, with the conflicts decided as chosen, and the others as preferred. A conflict that is neither is
    /// an error.
    pub(crate) fn finish(
        &mut self,
        prefer: Preference,
        choices: Vec<(OwnedIdentity, Choice)>,
    ) -> Result<Combined, Error> {
        // With no preference, the keyring is theirs where both changed the master secret.
        let base = if choices.is_empty() { prefer } else { or_theirs(prefer) };
        let found = self.reconcile(base)?;
        if prefer == Preference::Neither {
            self.refuse_two_secrets(&found)?;
            let is_open =
                |conflict: &&Conflict| choices.iter().all(|(chosen, _)| *chosen != conflict.identity);
            let open: Vec<_> = found.conflicts.iter().filter(is_open).map(shown).collect();
            if !open.is_empty() {
                return Err(Error::Conflict(open));
            }
        }
        let conflicts = found.conflicts.iter().map(shown).collect();
        let (document, keyring, wrapping) = (found.document, found.keyring, found.wrapping);
        let mut combined = Combined {
            bytes: Vec::new(),
            to_ours: Vec::new(),
            to_theirs: Vec::new(),
            edited: Vec::new(),
            conflicts,
            wrapping,
        };
        self.apply(found, base, choices, &mut combined)?;
        combined.bytes = self.files.write(document, keyring, 0).map_err(Error::of_file(self.path))?;
        Ok(combined)
    }

    /// Puts what was chosen into the document, and says what each side takes over.
    fn apply(
        &mut self,
        found: Reconciled,
        base: Preference,
        choices: Vec<(OwnedIdentity, Choice)>,
        combined: &mut Combined,
    ) -> Result<(), Error> {
        if choices.is_empty() {
            (combined.to_ours, combined.to_theirs) = (found.to_ours, found.to_theirs);
            return Ok(());
        }
        let mut puts = Vec::new();
        let mut keyring = self.unlocked(&found, base)?;
        let identities: Vec<_> = choices.iter().map(|(identity, _)| identity.clone()).collect();
        let versions = self.versions(&identities)?;
        for ((identity, choice), versions) in choices.into_iter().zip(versions) {
            let entry = match choice {
                Choice::Ours => versions.ours.clone().unwrap_or_else(|| tombstone(&identity)),
                Choice::Theirs => versions.theirs.clone().unwrap_or_else(|| tombstone(&identity)),
                Choice::Value { expires, value } => {
                    let refused = Error::of_argument(identity::shown(&identity.as_ref()));
                    let sealed = keyring.seal(&identity.as_ref(), expires, &value).map_err(refused)?;
                    combined.edited.push(identity.clone());
                    Entry { expires, sealed, deleted: false, ..tombstone(&identity) }
                }
            };
            puts.push((entry, versions));
        }
        let is_put = |entry: &Entry| puts.iter().any(|(put, _)| put.identity() == entry.identity());
        combined.to_ours = found.to_ours.into_iter().filter(|entry| !is_put(entry)).collect();
        combined.to_theirs = found.to_theirs.into_iter().filter(|entry| !is_put(entry)).collect();
        // A deletion that the document has already keeps its generation.
        let entries = self.files.entries(found.document)?;
        let is_news = |entry: &Entry| store::live_record(&entries, &entry.identity()) != live(entry);
        let news: Vec<EntryRef<'_>> =
            puts.iter().filter(|(put, _)| is_news(put)).map(|(put, _)| put.as_ref()).collect();
        self.files.put(found.document, &news).map_err(Error::of_argument("the file"))?;
        for (put, versions) in puts {
            if versions.ours.as_ref() != live(&put) {
                combined.to_ours.push(put.clone());
            }
            if versions.theirs.as_ref() != live(&put) {
                combined.to_theirs.push(put);
            }
        }
        Ok(())
    }

    fn reconcile(&mut self, prefer: Preference) -> Result<Reconciled, Error> {
        let found = self.files.reconcile(&self.ancestor, self.ours, self.theirs, false, prefer);
        found.map_err(locked(self.path))
    }

    /// The keyring of both sides.
    fn unlocked(&mut self, found: &Reconciled, prefer: Preference) -> Result<Keyring, Error> {
        if prefer == Preference::Neither {
            self.refuse_two_secrets(found)?;
        }
        let leading = match (found.wrapping, or_theirs(prefer)) {
            (Wrapping::Ours, _) | (Wrapping::Conflict, Preference::Ours) => self.ours,
            _ => self.theirs,
        };
        let header = self.files.keyring_bytes(leading.document)?;
        let kek = self.context.kek(self.path, &header)?;
        let keyring = self.files.to_bytes(found.keyring)?;
        self.context.module()?.unlock(&keyring, &kek).map_err(Error::of_file(self.path))
    }

    /// Which of two master secrets the file is to have, no one chooses by accident.
    fn refuse_two_secrets(&self, found: &Reconciled) -> Result<(), Error> {
        if found.wrapping == Wrapping::Conflict && !self.one_secret {
            return Err(Error::SecretConflict { path: self.path.to_owned() });
        }
        Ok(())
    }
}

/// A conflict, for people.
pub(crate) fn shown(conflict: &Conflict) -> String {
    let reason = hints::conflict(conflict.reason);
    format!("{} ({reason})", identity::shown(&conflict.identity.as_ref()))
}

/// The preference, or what the merge does without one where both sides changed the master secret.
fn or_theirs(prefer: Preference) -> Preference {
    if prefer == Preference::Neither { Preference::Theirs } else { prefer }
}

fn live(entry: &Entry) -> Option<&Entry> {
    Some(entry).filter(|entry| !entry.deleted)
}

fn tombstone(identity: &OwnedIdentity) -> Entry {
    let OwnedIdentity { name, kind, principal, scope } = identity.clone();
    Entry { name, kind, principal, scope, expires: None, sealed: Vec::new(), deleted: true }
}

fn locked(path: &Path) -> impl Fn(HostError) -> Error {
    move |error| match error {
        HostError::Refused(failure)
            if matches!(failure.code, ErrorCode::UnknownKey | ErrorCode::WrongMasterSecret) =>
        {
            Error::WrongSecret { path: path.to_owned() }
        }
        other => Error::of_file(path)(other),
    }
}

/// The keyring of a document, unlocked; `None` where it is under another master secret than the one at hand.
fn unlock(
    context: &Context,
    path: &Path,
    files: &mut Files,
    document: Document,
) -> Result<Option<KeyringHandle>, Error> {
    let keyring = files.keyring_bytes(document)?;
    match context.kek(path, &keyring) {
        Ok(kek) => Ok(Some(files.unlock(&keyring, &kek).map_err(Error::of_file(path))?)),
        Err(Error::WrongSecret { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
