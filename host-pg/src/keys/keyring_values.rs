//! Opening values with the keyrings of an instance.

use omni_credentials_host::{self as host, Identity, Value};

use crate::error::{Error, Unreadable};
use crate::keys::keyrings::{Keyrings, MOST_KEYRINGS};
use crate::keys::modules;

/// How opening a value can fail.
pub(crate) enum OpenError {
    /// The value.
    Value(Unreadable),
    /// No keyring that opens here has its key. The first keyring that does not open says why.
    Closed(Error),
    /// The instance, or this server.
    Store(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl OpenError {
    /// Whether another keyring may open the value.
    pub(crate) fn is_of_another_key(&self) -> bool {
        match self {
            Self::Value(reason) => reason.is_of_another_key(),
            Self::Closed(_) => true,
            Self::Store(_) => false,
        }
    }
}

impl Keyrings {
    /// Opens a value with whichever keyring has its key. One that does not open here keeps no value of the others from being
    /// opened.
    pub(crate) fn open(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Value, OpenError> {
        let (mut first, mut closed, mut tried) = (None, None, 0_usize);
        let (last, count) = (self.last, self.loaded.len());
        // Most often the one that opened the value before.
        let places = std::iter::once(last).chain((0..count).filter(|index| *index != last));
        for index in places.filter(|index| *index < count) {
            if self.is_copy(index) {
                continue;
            }
            if !self.is_unlocked(index) {
                tried = tried.saturating_add(1);
                if tried > MOST_KEYRINGS {
                    return Err(self.too_many().into());
                }
            }
            match self.open_with(index, identity, expires, sealed) {
                Ok(Ok(value)) => {
                    self.last = index;
                    return Ok(value);
                }
                Ok(Err(reason)) if reason.is_of_another_key() => {
                    first.get_or_insert(reason);
                }
                Ok(Err(reason)) => return Err(OpenError::Value(reason)),
                Err(error) if error.is_of_keyring() => {
                    closed.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match (closed, first) {
            (Some(error), Some(_)) => Err(OpenError::Closed(error)),
            (Some(error), None) => Err(error.into()),
            (None, first) => Err(OpenError::Value(first.unwrap_or(Unreadable::UnknownKey))),
        }
    }

    /// Seals a value again with the current keyring; `None` where another one has its key.
    pub(crate) fn reseal(
        &mut self,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Option<Result<Vec<u8>, Unreadable>>, Error> {
        Ok(match answer(self.unlocked(0)?.reseal(identity, expires, sealed))? {
            Err(reason) if reason.is_of_another_key() => None,
            again => Some(again),
        })
    }

    /// Opens a value with one keyring.
    pub(crate) fn open_with(
        &mut self,
        index: usize,
        identity: &Identity<'_>,
        expires: Option<u64>,
        sealed: &[u8],
    ) -> Result<Result<Value, Unreadable>, Error> {
        answer(self.unlocked(index)?.open(identity, expires, sealed))
    }

    /// Whether a keyring has the key of a value, or may have it: where the value's format is unknown, no one can tell.
    pub(crate) fn may_have_key_of(&mut self, index: usize, sealed: &[u8]) -> Result<bool, Error> {
        // No value was sealed for this identity, so what counts is whether it is the key that is missing.
        const NO_IDENTITY: Identity<'_> =
            Identity { name: b"?", kind: b"?", principal: b"?", scope: b"null" };
        Ok(match self.open_with(index, &NO_IDENTITY, None, sealed)? {
            Err(Unreadable::Malformed) => false,
            Err(reason) => !reason.is_of_another_key(),
            Ok(_) => true,
        })
    }

    /// Whether a keyring has the key of a value; or why the module cannot tell.
    pub(crate) fn key_of(&mut self, index: usize, sealed: &[u8]) -> Result<Result<bool, Unreadable>, Error> {
        Ok(match answer(self.unlocked(index)?.key_of(sealed))? {
            Err(reason) if reason.is_of_another_key() => Ok(false),
            key => key.map(|key| key != host::KeyOf::Unknown),
        })
    }
}

/// What a module says of a value: its answer, or why it refuses the value. An error where it refuses anything else.
fn answer<T>(said: Result<T, host::Error>) -> Result<Result<T, Unreadable>, Error> {
    match said {
        Ok(answer) => Ok(Ok(answer)),
        Err(host::Error::Refused(failure)) => match Unreadable::of(&failure) {
            Some(reason) => Ok(Err(reason)),
            None => Err(Error::ModuleFailed { reason: failure.to_string() }),
        },
        Err(error) => Err(modules::module_error(error)),
    }
}
