//! One keyring for both sides (§8.2).

use super::{Preference, Side};
use crate::manifest::{self, Manifest};
use crate::slots::StoredKeyring;
use crate::suite::Suite;
use crate::{Entropy, Error, Failure, Keyring};

/// Under whose master secret, salt and costs the keyring of both sides is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Both sides have the same.
    Same,
    /// That of ours: theirs has not changed its own since both agreed.
    Ours,
    /// That of theirs: ours has not changed its own since both agreed.
    Theirs,
    /// Both have changed it, or it is not known which did. The preferred side's; with no preference theirs, or ours
    /// where theirs came without its own keyring.
    Conflict,
}

/// The keys of both, under the wrapping of the side that changed it.
pub(super) fn united<S: Suite>(
    ancestor: Option<&Manifest>,
    ours: &Side<'_, S>,
    theirs: &Side<'_, S>,
    prefer: Preference,
    entropy: &mut impl Entropy,
) -> Result<(Keyring<S>, Wrapping), Failure> {
    let (our_wrapping, their_wrapping) = (wrapping(ours), wrapping(theirs));
    let before = ancestor.map(|ancestor| ancestor.wrapping);
    let found = if our_wrapping == their_wrapping {
        Wrapping::Same
    } else if before == Some(our_wrapping) {
        Wrapping::Theirs
    } else if before == Some(their_wrapping) {
        Wrapping::Ours
    } else {
        Wrapping::Conflict
    };
    let ours_leads = match found {
        Wrapping::Ours => true,
        Wrapping::Theirs => false,
        Wrapping::Conflict => match prefer {
            Preference::Ours => true,
            Preference::Theirs => false,
            Preference::Neither => is_locked(theirs),
        },
        // The same bytes from either side, if the slots are.
        Wrapping::Same => true,
    };
    let (lead, other) = if ours_leads { (ours, theirs) } else { (theirs, ours) };
    if is_locked(lead) {
        return Err(Error::WrongMasterSecret.into());
    }
    let mut keyring = lead.keyring.clone();
    if is_locked(other) {
        let stored = StoredKeyring::parse::<S>(other.document.keyring_bytes())?;
        if stored.slots.iter().any(|slot| keyring.rank(&slot.id).is_none()) {
            return Err(Error::UnknownKey.into());
        }
    } else {
        keyring.unite(other.keyring, entropy)?;
    }
    Ok((keyring, found))
}

/// A table has no keyring but the one that it came with.
fn wrapping<S: Suite>(side: &Side<'_, S>) -> manifest::Hash {
    let of_table = side.document.is_table();
    manifest::wrapping(if of_table { side.keyring.protection() } else { side.document.protection() })
}

/// Whether a file came with the other side's keyring instead of its own.
fn is_locked<S: Suite>(side: &Side<'_, S>) -> bool {
    !side.document.is_table() && side.document.protection() != side.keyring.protection()
}
