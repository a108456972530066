//! The keyring: data keys, each wrapped under the KEK, and what is sealed with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bindings::exports::omni::credentials::encryption::{
    self, Guest, GuestKeyring, Keyring, KeyringBorrow,
};
use crate::bindings::exports::omni::credentials::key_derivation::{self, ProtectedKeyring};
use crate::bindings::exports::omni::credentials::types::{Error, Failure, Identity};
use crate::identity::{Canonical, short};
use crate::kdf::{self, Key, Secret};
use crate::{Module, SUITE, aead, packed, random, refuse, refuse_found, stamp};

/// Most keys of a keyring.
pub(crate) const KEYS: usize = 256;
const FORMAT: &str = "example keyring 1";
/// Version and suite: every sealed value begins with them, so that any module can tell whose it is.
const HEADER: [u8; 2] = [1, SUITE];
/// A value's length shows in steps of so many bytes only.
const BUCKET: usize = 32;
/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

/// What is stored, without its last line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    salt: String,
    costs: Option<kdf::Costs>,
    /// Tells a wrong secret from an altered keyring.
    check: String,
    /// By the id of the key.
    slots: BTreeMap<u64, Slot>,
}

/// A wrapped key. The one with the highest number is current, and of several the one with the highest id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    number: u32,
    wrapped: String,
}

/// An unlocked keyring.
#[derive(Clone)]
pub(crate) struct Keys {
    stored: Stored,
    kek: Key,
    keys: BTreeMap<u64, Key>,
}

/// A sealed value, and the expiry that it is bound to besides its identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    /// In seconds since 1970.
    pub(crate) expires: Option<u64>,
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
        let stored = Stored { format: FORMAT.into(), salt, costs, check, slots: BTreeMap::new() };
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
        for (id, slot) in &stored.slots {
            let wrapped = hex::decode(&slot.wrapped).map_err(|_| tampered())?;
            let aad = slot_aad(*id, slot.number);
            let key = Zeroizing::new(aead::open(&kek, &aad, &wrapped).map_err(|_| tampered())?);
            keys.insert(*id, Zeroizing::new(key.as_slice().try_into().map_err(|_| tampered())?));
        }
        Ok(Self { stored, kek, keys })
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(&self.stored).map_err(|_| refuse(Error::Other))?;
        Ok(stamp::put(&*kdf::subkey(&self.kek, b"example keyring")?, body))
    }

    fn insert(&mut self, id: u64, number: u32, key: Key) -> Result<(), Failure> {
        if self.keys.len() >= KEYS {
            return Err(refuse(Error::TooManyKeys));
        }
        let wrapped = hex::encode(aead::seal(&self.kek, &slot_aad(id, number), key.as_ref())?);
        self.stored.slots.insert(id, Slot { number, wrapped });
        self.keys.insert(id, key);
        Ok(())
    }

    fn add_key(&mut self) -> Result<(), Failure> {
        let highest = self.stored.slots.values().map(|slot| slot.number).max().unwrap_or(0);
        let number = highest.checked_add(1).ok_or_else(|| refuse(Error::TooManyKeys))?;
        self.insert(u64::from_be_bytes(random()?), number, Zeroizing::new(random()?))
    }

    /// Takes over the keys of another keyring. Under one wrapping the union is the same from either side.
    pub(crate) fn unite(&mut self, other: &Self) -> Result<u32, Failure> {
        let one_wrapping = self.wrapping() == other.wrapping();
        let mut united = self.clone();
        for (id, key) in &other.keys {
            let slot = &other.stored.slots[id];
            match united.stored.slots.get(id) {
                Some(known) if known.number != slot.number || united.keys[id] != *key => {
                    return Err(refuse(Error::InvalidArgument));
                }
                // Taken over by both, each with a nonce of its own.
                Some(known) if one_wrapping && slot < known => {
                    united.stored.slots.insert(*id, slot.clone());
                }
                Some(_) => {}
                None => {
                    united.insert(*id, slot.number, key.clone())?;
                    if one_wrapping {
                        united.stored.slots.insert(*id, slot.clone());
                    }
                }
            }
        }
        let added = united.keys.len() - self.keys.len();
        *self = united;
        Ok(added as u32)
    }

    /// Drops the keys that no sealed value uses, except for the current one.
    pub(crate) fn retire<'a>(&mut self, sealed: impl Iterator<Item = &'a [u8]>) -> u32 {
        let mut used: BTreeSet<u64> = sealed.filter_map(|sealed| Some(split(sealed).ok()?.0)).collect();
        used.insert(self.current());
        let before = self.keys.len();
        self.keys.retain(|id, _| used.contains(id));
        self.stored.slots.retain(|id, _| used.contains(id));
        (before - self.keys.len()) as u32
    }

    pub(crate) fn current(&self) -> u64 {
        self.stored.current()
    }

    /// Where a key stands among all, the current one last.
    pub(crate) fn rank(&self, id: u64) -> Option<(u32, u64)> {
        self.stored.slots.get(&id).map(|slot| (slot.number, id))
    }

    /// Tells a keyring from the same keys under another master secret.
    pub(crate) fn wrapping(&self) -> [u8; 16] {
        self.stored.wrapping()
    }

    pub(crate) fn key(&self, id: u64) -> Result<&Key, Failure> {
        self.keys.get(&id).ok_or_else(|| refuse(Error::UnknownKey))
    }

    /// With a fresh nonce; or with that of a value which is only sealed again.
    fn seal(
        &self,
        identity: &Canonical,
        expires: Option<u64>,
        value: &[u8],
        nonce: Option<[u8; aead::NONCE]>,
    ) -> Result<Vec<u8>, Failure> {
        check_expiry(expires)?;
        if value.len() > aead::VALUE_BYTES {
            return Err(refuse_found(Error::ValueTooLarge, value.len()));
        }
        let mut padded = Zeroizing::new(value.to_vec());
        padded.push(0x80);
        let length = padded.len().next_multiple_of(BUCKET);
        padded.resize(length, 0);
        let header = [&HEADER[..], &self.current().to_be_bytes()].concat();
        let nonce = nonce.map_or_else(random, Ok)?;
        let aad = identity.aad(&header, expires);
        let sealed = aead::seal_with(self.key(self.current())?, nonce, &aad, &padded)?;
        Ok([header, sealed].concat())
    }

    /// Under the current key: the same version, and the same bytes whoever does it.
    fn reseal(&self, identity: &Canonical, sealed: &Sealed) -> Result<Vec<u8>, Failure> {
        let value = Zeroizing::new(self.open(identity, sealed)?);
        let (id, _, rest) = split(&sealed.bytes)?;
        if id == self.current() {
            return Ok(sealed.bytes.clone());
        }
        self.seal(identity, sealed.expires, &value, rest.first_chunk().copied())
    }

    pub(crate) fn open(&self, identity: &Canonical, sealed: &Sealed) -> Result<Vec<u8>, Failure> {
        check_expiry(sealed.expires)?;
        let (id, header, rest) = split(&sealed.bytes)?;
        let mut value = aead::open(self.key(id)?, &identity.aad(header, sealed.expires), rest)?;
        let end = value.iter().rposition(|byte| *byte != 0).filter(|end| value[*end] == 0x80);
        value.truncate(end.ok_or_else(|| refuse(Error::Malformed))?);
        Ok(value)
    }
}

/// Refuses what is after the year 9999.
pub(crate) fn check_expiry(expires: Option<u64>) -> Result<(), Failure> {
    match expires {
        Some(found) if found > LAST => Err(Failure { error: Error::InvalidExpiry, line: 0, found }),
        _ => Ok(()),
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
        let known = stored.format == FORMAT && !stored.slots.is_empty();
        if known && stored.slots.len() <= KEYS { Ok(stored) } else { Err(refuse(Error::Malformed)) }
    }

    fn current(&self) -> u64 {
        let slots = self.slots.iter();
        slots.max_by_key(|(id, slot)| (slot.number, **id)).map_or(0, |(id, _)| *id)
    }

    fn wrapping(&self) -> [u8; 16] {
        short(format!("{} {}", self.salt, self.check).as_bytes())
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

/// The wrapping of a stored keyring.
pub(crate) fn wrapping_of(bytes: &[u8]) -> Result<[u8; 16], Failure> {
    Stored::parse(bytes).map(|stored| stored.wrapping())
}

/// The id of the current key of a stored keyring.
pub(crate) fn current_of(bytes: &[u8]) -> Result<u64, Failure> {
    Stored::parse(bytes).map(|stored| stored.current())
}

/// The ids of the keys of a stored keyring.
pub(crate) fn ids(bytes: &[u8]) -> Result<Vec<u64>, Failure> {
    Stored::parse(bytes).map(|stored| stored.slots.into_keys().collect())
}

fn slot_aad(id: u64, number: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &number.to_be_bytes()].concat()
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
            new.insert(*id, old.stored.slots[id].number, key.clone())?;
        }
        Ok(ProtectedKeyring { keyring: new.to_bytes()?, kek: new.kek.to_vec() })
    }

    fn generate_master_key() -> Result<Vec<u8>, Failure> {
        kdf::generate()
    }
}

impl Guest for Module {
    type Keyring = Unlocked;

    fn canonical(identity: Identity) -> Result<Identity, Failure> {
        Canonical::new(&identity).map(|canonical| canonical.to_contract())
    }
}

impl GuestKeyring for Unlocked {
    fn unlock(keyring: Vec<u8>, kek: Vec<u8>) -> Result<Keyring, Failure> {
        Ok(Keyring::new(Self(RefCell::new(Keys::unlock(&keyring, &kek)?))))
    }

    fn seal(&self, identity: Vec<u8>, expires: Option<u64>, value: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.0.borrow().seal(&packed::one_identity(&identity)?, expires, &value, None)
    }

    fn reseal(&self, identity: Vec<u8>, expires: Option<u64>, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.0.borrow().reseal(&packed::one_identity(&identity)?, &Sealed { bytes, expires })
    }

    fn open(&self, identity: Vec<u8>, expires: Option<u64>, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.0.borrow().open(&packed::one_identity(&identity)?, &Sealed { bytes, expires })
    }

    fn key_of(&self, sealed: Vec<u8>) -> Result<encryption::Key, Failure> {
        let (keys, id) = (self.0.borrow(), split(&sealed)?.0);
        Ok(match keys.rank(id) {
            Some(_) if id == keys.current() => encryption::Key::Current,
            Some(_) => encryption::Key::Known,
            None => encryption::Key::Unknown,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.borrow().to_bytes().unwrap_or_default()
    }

    fn add_key(&self) -> Result<(), Failure> {
        self.0.borrow_mut().add_key()
    }

    fn unite(&self, other: KeyringBorrow<'_>) -> Result<u32, Failure> {
        let other: &Self = other.get();
        // A keyring that is its own argument has nothing new, and cannot be borrowed twice.
        if std::ptr::eq(self, other) {
            return Ok(0);
        }
        self.0.borrow_mut().unite(&other.0.borrow())
    }
}
