//! `encryption`.

use std::cell::RefCell;

use omni_credentials_core::{self as core, Suite};

use crate::bindings::exports::omni::credentials::encryption::{
    Failure, Guest, GuestKeyring, Identity, Key, Keyring, KeyringBorrow,
};
use crate::convert;
use crate::entropy::Host;

/// An unlocked keyring as a resource.
pub struct KeyringResource<S: Suite>(pub(crate) RefCell<core::Keyring<S>>);

impl<S: Suite> KeyringResource<S> {
    pub(crate) fn resource(keyring: core::Keyring<S>) -> Keyring {
        Keyring::new(Self(RefCell::new(keyring)))
    }
}

impl<S: Suite> Guest for crate::Module<S> {
    type Keyring = KeyringResource<S>;

    fn canonical(identity: Identity) -> Result<Identity, Failure> {
        let canonical = convert::identity(&identity).canonical().map_err(convert::failure)?;
        Ok(convert::owned_identity(&canonical.into()))
    }
}

impl<S: Suite> GuestKeyring for KeyringResource<S> {
    fn unlock(keyring: Vec<u8>, kek: Vec<u8>) -> Result<Keyring, Failure> {
        let keyring = core::Keyring::<S>::unlock(&keyring, &kek).map_err(convert::failure)?;
        Ok(Self::resource(keyring))
    }

    fn seal(&self, identity: Vec<u8>, expires: Option<u64>, value: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let seal = |identity| self.0.borrow().seal(&identity, expires, &value, &mut Host);
        convert::packed_identity(&identity).and_then(seal).map_err(convert::failure)
    }

    fn open(&self, identity: Vec<u8>, expires: Option<u64>, sealed: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let open = |identity| self.0.borrow().open_owned(&identity, expires, sealed);
        convert::packed_identity(&identity).and_then(open).map_err(convert::failure)
    }

    fn reseal(&self, identity: Vec<u8>, expires: Option<u64>, sealed: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let reseal = |identity| self.0.borrow().reseal(&identity, expires, &sealed);
        convert::packed_identity(&identity).and_then(reseal).map_err(convert::failure)
    }

    fn key_of(&self, sealed: Vec<u8>) -> Result<Key, Failure> {
        let key = self.0.borrow().key_of(&sealed).map_err(convert::failure)?;
        Ok(match key {
            core::KeyOf::Current => Key::Current,
            core::KeyOf::Known => Key::Known,
            core::KeyOf::Unknown => Key::Unknown,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.borrow().to_bytes()
    }

    fn add_key(&self) -> Result<(), Failure> {
        self.0.borrow_mut().add_key(&mut Host).map_err(convert::failure)
    }

    fn unite(&self, other: KeyringBorrow<'_>) -> Result<u32, Failure> {
        let other: &Self = other.get();
        // A keyring that is its own argument has nothing new, and cannot be borrowed twice.
        if std::ptr::eq(self, other) {
            return Ok(0);
        }
        self.0.borrow_mut().unite(&other.0.borrow(), &mut Host).map_err(convert::failure)
    }
}
