//! Which keyring has the key of a value. Keyrings are unlocked one after another, as far as values ask for them.

use omni_credentials_host::{self as host, Digest, Keyring};

use crate::error::{Error, Unreadable};
use crate::keys::keyrings::Keyrings;
use crate::keys::modules;

/// Keyrings by their places, and which of them open.
pub(crate) struct Search {
    keyrings: Keyrings,
    open: Vec<usize>,
    /// Those that no value was looked for in yet; the next one comes last.
    untried: Vec<usize>,
}

/// What the keyrings that open are to one value.
pub(crate) enum Holder {
    Keyring(usize),
    None(Lack),
}

/// Why none of them has its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// To each it is no sealed value.
    Malformed,
    Key,
    /// One of them knows that it is of a later format.
    Format,
}

impl Search {
    /// Among the keyrings at these places.
    pub(crate) fn new(keyrings: Keyrings, mut places: Vec<usize>) -> Self {
        // Those whose KEK is known come first: that costs little, and most often they have the keys of all values.
        let is_locked = |index: usize| keyrings.loaded.get(index).is_none_or(|keyring| keyring.kek.is_none());
        places.sort_by_key(|index| (is_locked(*index), *index));
        places.reverse();
        Self { keyrings, open: Vec::new(), untried: places }
    }

    /// Has a keyring asked last: to look into it can cost a lot.
    pub(crate) fn put_off(&mut self, place: usize) {
        if let Some(at) = self.untried.iter().position(|untried| *untried == place) {
            self.untried.remove(at);
            self.untried.insert(0, place);
        }
    }

    /// Leaves a keyring out from here on.
    pub(crate) fn forget(&mut self, place: usize) {
        self.open.retain(|index| *index != place);
        self.untried.retain(|index| *index != place);
    }

    /// Whether a keyring was asked, and opens.
    pub(crate) fn opens(&self, place: usize) -> bool {
        self.open.contains(&place)
    }

    /// Whether a keyring of the same module opens: then it knows what is a value to that module.
    pub(crate) fn has_sibling(&self, place: usize) -> bool {
        let module = |index: usize| self.keyrings.loaded.get(index).map(|keyring| keyring.stored.module);
        self.open.iter().any(|other| module(*other) == module(place))
    }

    /// Whether a keyring was altered: no one can ever open it as it is.
    pub(crate) fn is_altered(&mut self, place: usize) -> bool {
        matches!(
            self.keyrings.unlocked(place),
            Err(Error::KeyringTampered { .. } | Error::KeyringDamaged { .. })
        )
    }

    /// Whether a keyring has the key of a value; or why the module cannot tell.
    pub(crate) fn key_of(&mut self, place: usize, sealed: &[u8]) -> Result<Result<bool, Unreadable>, Error> {
        self.keyrings.key_of(place, sealed)
    }

    /// A keyring that opens and has the key of a value.
    pub(crate) fn holder(&mut self, sealed: &[u8], without: Option<usize>) -> Result<Holder, Error> {
        let (mut next, mut lack) = (0_usize, None);
        loop {
            let index = match self.open.get(next) {
                Some(index) => *index,
                None => match self.next_to_open()? {
                    Some(index) => index,
                    None => return Ok(Holder::None(lack.unwrap_or(Lack::Key))),
                },
            };
            next = next.saturating_add(1);
            if Some(index) == without {
                continue;
            }
            let found = match self.keyrings.key_of(index, sealed)? {
                Ok(true) => return Ok(Holder::Keyring(index)),
                Ok(false) => Lack::Key,
                Err(Unreadable::Malformed) => Lack::Malformed,
                Err(_) => Lack::Format,
            };
            lack = lack.max(Some(found));
        }
    }

    /// Unlocks the next keyring that opens, and adds it to those.
    fn next_to_open(&mut self) -> Result<Option<usize>, Error> {
        while let Some(index) = self.untried.pop() {
            pgrx::check_for_interrupts!();
            match self.keyrings.unlocked(index) {
                Ok(_) => {
                    self.open.push(index);
                    return Ok(Some(index));
                }
                Err(error) if error.is_of_keyring() => {}
                Err(error) => {
                    self.untried.push(index);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// A keyring that is to be stored, unlocked; or why it does not open here.
    pub(crate) fn unlock(&self, module: &Digest, bytes: &[u8]) -> Result<Keyring, Error> {
        let module = modules::module(module)?;
        let kek = self.keyrings.derive(&module, bytes, "it")?;
        module.unlock(bytes, &kek).map_err(|error| match error {
            host::Error::Refused(_) => Error::KeyringTampered { schema: String::new() },
            error => modules::module_error(error),
        })
    }
}
