//! The keyring: data keys, each wrapped under the KEK, and what is sealed with them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bindings::exports::omni::credentials::encryption::{Guest, GuestKeyring, Keyring, KeyringBorrow};
use crate::bindings::exports::omni::credentials::key_derivation::{self, ProtectedKeyring};
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::Canonical;
use crate::kdf::{self, Key, Secret};
use crate::{Module, SUITE, aead, random, refuse, refuse_found, stamp};

/// Most keys of a keyring.
pub(crate) const KEYS: usize = 256;
const FORMAT: &str = "example keyring 1";
/// Version and suite: every sealed value begins with them, so that any module can tell whose it is.
const HEADER: [u8; 2] = [1, SUITE];
/// A value's length shows in steps of so many bytes only.
const BUCKET: usize = 32;

/// What is stored, without its last line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    salt: String,
    costs: Option<kdf::Costs>,
    /// Tells a wrong secret from an altered keyring.
    check: String,
    current: u64,
    /// Wrapped keys by their id.
    slots: BTreeMap<u64, String>,
}

/// An unlocked keyring.
pub(crate) struct Keys {
    stored: Stored,
    kek: Key,
    keys: BTreeMap<u64, Key>,
}

/// The resource of the contract.
pub(crate) struct Unlocked(pub(crate) RefCell<Keys>);

impl Keys {
    /// A new keyring with one key, or one without any where `keys` come from another.
    fn create(secret: &[u8], costs: Option<kdf::Costs>) -> Result<Self, Failure> {
        let secret = Secret::parse(secret)?;
        let (salt, costs) = (random::<16>()?, secret.costs(costs));
        let kek = secret.kek(&salt, costs)?;
        let check = hex::encode(kdf::subkey(&kek, b"example check")?.as_ref());
        let salt = hex::encode(salt);
        let stored = Stored { format: FORMAT.into(), salt, costs, check, current: 0, slots: BTreeMap::new() };
        Ok(Self { stored, kek, keys: BTreeMap::new() })
    }

    pub(crate) fn unlock(bytes: &[u8], kek: &[u8]) -> Result<Self, Failure> {
        let stored = Stored::parse(bytes)?;
        let kek: [u8; 32] = kek.try_into().map_err(|_| refuse(Error::InvalidArgument))?;
        let kek = Zeroizing::new(kek);
        stored.belongs_to(&kek)?;
        let tampered = || refuse(Error::KeyringTampered);
        if !stamp::holds(&*kdf::subkey(&kek, b"example keyring")?, bytes) {
            return Err(tampered());
        }
        let mut keys = BTreeMap::new();
        for (id, wrapped) in &stored.slots {
            let wrapped = hex::decode(wrapped).map_err(|_| tampered())?;
            let key = Zeroizing::new(aead::open(&kek, &id.to_be_bytes(), &wrapped).map_err(|_| tampered())?);
            keys.insert(*id, Zeroizing::new(key.as_slice().try_into().map_err(|_| tampered())?));
        }
        Ok(Self { stored, kek, keys })
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(&self.stored).map_err(|_| refuse(Error::Other))?;
        Ok(stamp::put(&*kdf::subkey(&self.kek, b"example keyring")?, body))
    }

    fn insert(&mut self, id: u64, key: Key) -> Result<(), Failure> {
        if self.keys.len() >= KEYS {
            return Err(refuse(Error::TooManyKeys));
        }
        let wrapped = aead::seal(&self.kek, &id.to_be_bytes(), key.as_ref())?;
        self.stored.slots.insert(id, hex::encode(wrapped));
        self.keys.insert(id, key);
        Ok(())
    }

    fn add_key(&mut self) -> Result<(), Failure> {
        let id = u64::from_be_bytes(random()?);
        self.insert(id, Zeroizing::new(random()?))?;
        self.stored.current = id;
        Ok(())
    }

    pub(crate) fn current(&self) -> u64 {
        self.stored.current
    }

    pub(crate) fn key(&self, id: u64) -> Result<&Key, Failure> {
        self.keys.get(&id).ok_or_else(|| refuse(Error::UnknownKey))
    }

    fn seal(&self, identity: &Canonical, value: &[u8]) -> Result<Vec<u8>, Failure> {
        if value.len() > aead::VALUE_BYTES {
            return Err(refuse_found(Error::ValueTooLarge, value.len()));
        }
        let mut padded = Zeroizing::new(value.to_vec());
        padded.push(0x80);
        let length = padded.len().next_multiple_of(BUCKET);
        padded.resize(length, 0);
        let header = [&HEADER[..], &self.current().to_be_bytes()].concat();
        let sealed = aead::seal(self.key(self.current())?, &identity.aad(&header), &padded)?;
        Ok([header, sealed].concat())
    }

    pub(crate) fn open(&self, identity: &Canonical, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
        let (id, header, sealed) = split(sealed)?;
        let mut value = aead::open(self.key(id)?, &identity.aad(header), sealed)?;
        let end = value.iter().rposition(|byte| *byte != 0).filter(|end| value[*end] == 0x80);
        value.truncate(end.ok_or_else(|| refuse(Error::Malformed))?);
        Ok(value)
    }
}

/// The key id, the header, and the rest of a sealed value.
pub(crate) fn split(sealed: &[u8]) -> Result<(u64, &[u8], &[u8]), Failure> {
    let malformed = || refuse(Error::Malformed);
    let (&[version, suite], _) = sealed.split_first_chunk::<2>().ok_or_else(malformed)?;
    if version != HEADER[0] {
        return Err(refuse_found(Error::UnknownVersion, version.into()));
    }
    if suite != SUITE {
        return Err(refuse_found(Error::UnknownSuite, suite.into()));
    }
    let (header, rest) = sealed.split_at_checked(10).ok_or_else(malformed)?;
    let id = header.last_chunk::<8>().ok_or_else(malformed)?;
    let padded = rest.len().checked_sub(aead::NONCE + aead::TAG).ok_or_else(malformed)?;
    if padded == 0 || padded % BUCKET != 0 || padded > aead::VALUE_BYTES + BUCKET {
        return Err(malformed());
    }
    Ok((u64::from_be_bytes(*id), header, rest))
}

impl Stored {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let malformed = |_| refuse(Error::Malformed);
        let stored: Self = serde_json::from_slice(stamp::body(bytes).map_err(malformed)?)
            .map_err(|_| refuse(Error::Malformed))?;
        let known = stored.format == FORMAT && stored.slots.contains_key(&stored.current);
        if known && stored.slots.len() <= KEYS { Ok(stored) } else { Err(refuse(Error::Malformed)) }
    }

    fn belongs_to(&self, kek: &[u8; 32]) -> Result<(), Failure> {
        let check = hex::encode(kdf::subkey(kek, b"example check")?.as_ref());
        let same: bool = check.as_bytes().ct_eq(self.check.as_bytes()).into();
        if same { Ok(()) } else { Err(refuse(Error::WrongMasterSecret)) }
    }
}

/// Whether bytes are a keyring, as far as that can be said without its KEK.
pub(crate) fn is_keyring(bytes: &[u8]) -> Result<(), Failure> {
    Stored::parse(bytes).map(drop)
}

impl key_derivation::Guest for Module {
    fn create_keyring(
        secret: Vec<u8>,
        costs: Option<key_derivation::Costs>,
    ) -> Result<ProtectedKeyring, Failure> {
        let mut keys = Keys::create(&secret, costs.map(Into::into))?;
        keys.add_key()?;
        Ok(ProtectedKeyring { keyring: keys.to_bytes()?, kek: keys.kek.to_vec() })
    }

    fn derive_kek(secret: Vec<u8>, keyring: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let secret = Secret::parse(&secret)?;
        let stored = Stored::parse(&keyring)?;
        let salt = hex::decode(&stored.salt).map_err(|_| refuse(Error::Malformed))?;
        let kek = secret.kek(&salt, stored.costs)?;
        stored.belongs_to(&kek)?;
        Ok(kek.to_vec())
    }

    fn rewrap(
        keyring: Vec<u8>,
        kek: Vec<u8>,
        new_secret: Vec<u8>,
        costs: Option<key_derivation::Costs>,
    ) -> Result<ProtectedKeyring, Failure> {
        let old = Keys::unlock(&keyring, &kek)?;
        let mut new = Keys::create(&new_secret, costs.map(Into::into))?;
        for (id, key) in &old.keys {
            new.insert(*id, key.clone())?;
        }
        new.stored.current = old.current();
        Ok(ProtectedKeyring { keyring: new.to_bytes()?, kek: new.kek.to_vec() })
    }

    fn generate_master_key() -> Result<Vec<u8>, Failure> {
        kdf::generate()
    }
}

impl Guest for Module {
    type Keyring = Unlocked;
}

impl GuestKeyring for Unlocked {
    fn unlock(keyring: Vec<u8>, kek: Vec<u8>) -> Result<Keyring, Failure> {
        Ok(Keyring::new(Self(RefCell::new(Keys::unlock(&keyring, &kek)?))))
    }

    fn seal(&self, identity: Identity, value: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.0.borrow().seal(&Canonical::new(&identity)?, &value)
    }

    fn open(&self, identity: Identity, sealed: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.0.borrow().open(&Canonical::new(&identity)?, &sealed)
    }

    fn is_current(&self, sealed: Vec<u8>) -> Result<bool, Failure> {
        Ok(split(&sealed)?.0 == self.0.borrow().current())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.borrow().to_bytes().unwrap_or_default()
    }

    fn add_key(&self) -> Result<(), Failure> {
        self.0.borrow_mut().add_key()
    }

    fn absorb(&self, other: KeyringBorrow<'_>) -> Result<u32, Failure> {
        let other: &Self = other.get();
        // A keyring that is its own argument has nothing new, and cannot be borrowed twice.
        if std::ptr::eq(self, other) {
            return Ok(0);
        }
        let (mut mine, theirs) = (self.0.borrow_mut(), other.0.borrow());
        let mut added = 0;
        for (id, key) in &theirs.keys {
            if !mine.keys.contains_key(id) {
                mine.insert(*id, key.clone())?;
                added += 1;
            }
        }
        Ok(added)
    }
}
