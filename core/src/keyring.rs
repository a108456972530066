//! An unlocked keyring (§4).

use std::collections::BTreeSet;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bytes::push_lp;
use crate::derive::{Key, derive, label};
use crate::entropy::random;
use crate::kdf::{Costs, MasterSecret};
use crate::scope::LastScope;
use crate::slots::{self, KeyId, Protection, Slot, StoredKeyring, WRAPPED};
use crate::suite::{Cipher, KEY, Suite, TAG};
use crate::{CanonicalIdentity, Document, Entropy, Error, Failure, Identity, limits, value};

/// What a sealed value's key is to a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The key that seals.
    Current,
    /// An older one, which still opens.
    Known,
    /// One that is not in the keyring.
    Unknown,
}

/// An unlocked keyring. Its keys are zeroized on drop.
pub struct Keyring<S: Suite> {
    protection: Protection,
    wrap: Wrap<S>,
    current: KeyId,
    /// Sorted by id, never empty.
    keys: Vec<DataKey<S>>,
    last_scope: LastScope,
}

impl<S: Suite> Keyring<S> {
    /// A new keyring of one key, and its KEK. `costs` is for passwords; `None` takes [`Costs::DEFAULT`].
    ///
    /// # Errors
    /// [`Error::InvalidMasterSecret`], [`Error::KdfOutOfBounds`], those of the entropy source.
    pub fn create(
        secret: &[u8],
        costs: Option<Costs>,
        entropy: &mut impl Entropy,
    ) -> Result<(Self, Key), Failure> {
        let (protection, kek) = protect(secret, costs, entropy)?;
        let wrap = Wrap::new(&kek)?;
        let key = wrap.fresh_key(&[], entropy)?;
        Ok((
            Self {
                protection,
                wrap,
                current: key.slot.id,
                keys: vec![key],
                last_scope: LastScope::default(),
            },
            kek,
        ))
    }

    /// Unlocks a stored keyring.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a KEK that is not 32 bytes; [`Error::Malformed`],
    /// [`Error::UnknownVersion`], [`Error::UnknownSuite`] and [`Error::KdfOutOfBounds`] for the stored bytes;
    /// [`Error::WrongMasterSecret`] for the KEK of another keyring; [`Error::KeyringTampered`] for an altered one.
    pub fn unlock(keyring: &[u8], kek: &[u8]) -> Result<Self, Failure> {
        let stored = StoredKeyring::parse::<S>(keyring)?;
        let kek: &[u8; KEY] = kek.try_into().map_err(|_| Error::InvalidArgument)?;
        check_commitment(kek, &stored)?;
        let wrap = Wrap::new(kek)?;
        let current = stored.current()?;
        if !bool::from(wrap.mac(stored.body).ct_eq(stored.mac)) {
            return Err(Error::KeyringTampered.into());
        }
        let keys = stored.slots.into_iter().map(|slot| wrap.unwrap(slot)).collect::<Result<_, _>>()?;
        Ok(Self { protection: stored.protection, wrap, current, keys, last_scope: LastScope::default() })
    }

    /// The KEK of a stored keyring.
    ///
    /// # Errors
    /// [`Error::InvalidMasterSecret`], those of the stored bytes, and [`Error::WrongMasterSecret`].
    pub fn derive_kek(secret: &[u8], keyring: &[u8]) -> Result<Key, Failure> {
        let secret = MasterSecret::parse(secret)?;
        let stored = StoredKeyring::parse::<S>(keyring)?;
        let kek = secret.kek(stored.protection.kdf, &stored.protection.salt)?;
        check_commitment(&kek, &stored)?;
        Ok(kek)
    }

    /// The same keys under another master secret, and the new KEK.
    ///
    /// # Errors
    /// [`Error::InvalidMasterSecret`], [`Error::KdfOutOfBounds`], those of the entropy source.
    pub fn rewrap(
        &self,
        secret: &[u8],
        costs: Option<Costs>,
        entropy: &mut impl Entropy,
    ) -> Result<(Self, Key), Failure> {
        let (protection, kek) = protect(secret, costs, entropy)?;
        let wrap = Wrap::new(&kek)?;
        let keys = self
            .keys
            .iter()
            .map(|key| wrap.wrap(key.slot.number, key.slot.id, &key.secret, entropy))
            .collect::<Result<_, _>>()?;
        Ok((Self { protection, wrap, current: self.current, keys, last_scope: LastScope::default() }, kek))
    }

    /// The keyring, to be stored. Slots that were there before keep their bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = slots::body::<S>(&self.protection, self.keys.iter().map(|key| &key.slot));
        out.extend_from_slice(&self.wrap.mac(&out));
        out
    }

    /// Adds a fresh key and makes it current.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`], those of the entropy source; the keyring is as before then.
    pub fn add_key(&mut self, entropy: &mut impl Entropy) -> Result<(), Failure> {
        if self.keys.len() >= limits::KEYRING_KEYS {
            return Err(Error::TooManyKeys.into());
        }
        let key = self.wrap.fresh_key(&self.keys, entropy)?;
        self.current = key.slot.id;
        let at = self.keys.partition_point(|other| other.slot.id < key.slot.id);
        self.keys.insert(at, key);
        Ok(())
    }

    /// Unites the keyring with another: takes over its keys, and the newest of both becomes the current one. This
    /// keyring's master secret stays. Returns how many keys were new.
    ///
    /// The union of two keyrings under one master secret and salt is the same bytes from either side.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`], [`Error::InvalidArgument`] where one id stands for two keys, those of the
    /// entropy source; the keyring is as before then.
    pub fn unite(&mut self, other: &Self, entropy: &mut impl Entropy) -> Result<u32, Failure> {
        let one_wrapping = self.protection == other.protection;
        let (mut keys, mut added) = (Vec::new(), 0_u32);
        for theirs in &other.keys {
            let slot = &theirs.slot;
            let known = self.key(&slot.id);
            if known.is_some_and(|ours| {
                ours.slot.number != slot.number || !bool::from(ours.secret.ct_eq(&*theirs.secret))
            }) {
                return Err(Error::InvalidArgument.into());
            }
            if known.is_none() {
                added = added.saturating_add(1);
            }
            match known {
                // Two slots for one key, each taken over from elsewhere: the lower bytes, from either side.
                Some(ours) if !one_wrapping || ours.slot <= *slot => {}
                _ if one_wrapping => keys.push(DataKey::new(slot.clone(), theirs.secret.clone())?),
                _ => keys.push(self.wrap.wrap(slot.number, slot.id, &theirs.secret, entropy)?),
            }
        }
        if self.keys.len().saturating_add(added as usize) > limits::KEYRING_KEYS {
            return Err(Error::TooManyKeys.into());
        }
        self.keys.retain(|ours| keys.iter().all(|key: &DataKey<S>| key.slot.id != ours.slot.id));
        self.keys.append(&mut keys);
        self.keys.sort_unstable_by_key(|key| key.slot.id);
        self.choose_current()?;
        Ok(added)
    }

    /// Drops the keys that no record of `document` uses, except for the current one. Returns how many.
    ///
    /// # Errors
    /// Those of a sealed value's bytes; the keyring is as before then.
    pub fn retire(&mut self, document: &Document<S>) -> Result<u32, Failure> {
        let mut used = BTreeSet::from([self.current]);
        for record in document.records() {
            if let Some(sealed) = &record.sealed {
                used.insert(*value::key_id::<S>(sealed)?);
            }
        }
        let before = self.keys.len();
        self.keys.retain(|key| used.contains(&key.slot.id));
        Ok(u32::try_from(before.saturating_sub(self.keys.len())).unwrap_or(u32::MAX))
    }

    /// What a sealed value's key is to this keyring. Authenticates nothing.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], [`Error::UnknownSuite`], [`Error::Malformed`].
    pub fn key_of(&self, sealed: &[u8]) -> Result<KeyOf, Failure> {
        let id = value::key_id::<S>(sealed)?;
        Ok(match self.key(id) {
            Some(_) if *id == self.current => KeyOf::Current,
            Some(_) => KeyOf::Known,
            None => KeyOf::Unknown,
        })
    }

    /// As [`Identity::canonical`], and quicker where the scope is the one of the call before.
    pub(crate) fn canonical<'a>(&self, identity: &Identity<'a>) -> Result<CanonicalIdentity<'a>, Failure> {
        identity.canonical_by(|scope| self.last_scope.canonical(scope))
    }

    /// The id of the current key.
    pub(crate) fn current_id(&self) -> &KeyId {
        &self.current
    }

    /// The cipher for values under the key of this id.
    pub(crate) fn value_cipher(&self, id: &KeyId) -> Result<&Cipher<S>, Error> {
        self.key(id).map(|key| &key.value).ok_or(Error::UnknownKey)
    }

    /// The key that seals files (§7) under the data key of this id.
    pub(crate) fn file_key(&self, id: &KeyId) -> Result<Key, Error> {
        let key = self.key(id).ok_or(Error::UnknownKey)?;
        derive(&key.secret, &[label::FILE, &[S::ID], id])
    }

    /// Where the key of this id stands among all keys, the current one last; `None` for a key that is not here.
    pub(crate) fn rank(&self, id: &KeyId) -> Option<(u32, KeyId)> {
        self.key(id).map(|key| (key.slot.number, key.slot.id))
    }

    /// What makes the wrapping of this keyring's keys another than that of the same keys elsewhere.
    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    fn choose_current(&mut self) -> Result<(), Error> {
        let slot = slots::current(self.keys.iter().map(|key| &key.slot)).ok_or(Error::Other)?;
        self.current = slot.id;
        Ok(())
    }

    fn key(&self, id: &KeyId) -> Option<&DataKey<S>> {
        let at = self.keys.binary_search_by(|key| key.slot.id.cmp(id)).ok()?;
        self.keys.get(at)
    }
}

/// Whether a KEK is the keyring's own. Before anything is unwrapped, for it tells a wrong secret from tampering.
fn check_commitment(kek: &[u8; KEY], stored: &StoredKeyring<'_>) -> Result<(), Error> {
    let commitment = derive(kek, &[label::KEK_COMMITMENT])?;
    let same = bool::from(commitment.ct_eq(&stored.protection.kek_commitment));
    if same { Ok(()) } else { Err(Error::WrongMasterSecret) }
}

/// A fresh salt, the KEK for it, and what is stored of both.
fn protect(
    secret: &[u8],
    costs: Option<Costs>,
    entropy: &mut impl Entropy,
) -> Result<(Protection, Key), Error> {
    let secret = MasterSecret::parse(secret)?;
    let kdf = secret.kdf(costs)?;
    let salt = random(entropy)?;
    let kek = secret.kek(kdf, &salt)?;
    let kek_commitment = *derive(&kek, &[label::KEK_COMMITMENT])?;
    Ok((Protection { kdf, salt, kek_commitment }, kek))
}

impl<S: Suite> Clone for Keyring<S> {
    fn clone(&self) -> Self {
        let (protection, wrap) = (self.protection.clone(), self.wrap.clone());
        let last_scope = self.last_scope.clone();
        Self { protection, wrap, current: self.current, keys: self.keys.clone(), last_scope }
    }
}

/// A data key, unwrapped, and the slot that stores it.
struct DataKey<S: Suite> {
    slot: Slot,
    secret: Key,
    /// Derived once: opening a value is the hot path.
    value: Cipher<S>,
}

impl<S: Suite> Clone for DataKey<S> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), secret: self.secret.clone(), value: self.value.clone() }
    }
}

impl<S: Suite> DataKey<S> {
    fn new(slot: Slot, secret: Key) -> Result<Self, Error> {
        let value = Cipher::new(&*derive(&secret, &[label::VALUE, &[S::ID], &slot.id])?);
        Ok(Self { slot, secret, value })
    }
}

/// What the KEK is expanded to.
struct Wrap<S: Suite> {
    slot: Cipher<S>,
    /// Keyed once, here: what comes later cannot fail, and no keyring is written with a MAC of zeros.
    mac: Hmac<Sha256>,
}

impl<S: Suite> Clone for Wrap<S> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), mac: self.mac.clone() }
    }
}

impl<S: Suite> Wrap<S> {
    fn new(kek: &[u8; KEY]) -> Result<Self, Error> {
        let slot = Cipher::new(&*derive(kek, &[label::SLOT, &[S::ID]])?);
        let mac = Hmac::new_from_slice(&*derive(kek, &[label::KEYRING_MAC])?).map_err(|_| Error::Other)?;
        Ok(Self { slot, mac })
    }

    /// HMAC over the keyring's body.
    fn mac(&self, body: &[u8]) -> [u8; 32] {
        self.mac.clone().chain_update(body).finalize().into_bytes().into()
    }

    /// A fresh data key under an id that is not among `taken`.
    fn fresh_key(&self, taken: &[DataKey<S>], entropy: &mut impl Entropy) -> Result<DataKey<S>, Error> {
        let secret = Zeroizing::new(random::<KEY>(entropy)?);
        let id = random(entropy)?;
        if taken.iter().any(|key| key.slot.id == id) {
            // Once in 2^56 draws, or a broken source.
            return Err(Error::Other);
        }
        let highest = taken.iter().map(|key| key.slot.number).max().unwrap_or(0);
        // Once in four thousand million rotations.
        let number = highest.checked_add(1).ok_or(Error::TooManyKeys)?;
        self.wrap(number, id, &secret, entropy)
    }

    fn wrap(
        &self,
        number: u32,
        id: KeyId,
        secret: &[u8; KEY],
        entropy: &mut impl Entropy,
    ) -> Result<DataKey<S>, Error> {
        let commitment = *derive(secret, &[label::KEY_COMMITMENT, &id])?;
        let mut nonce = vec![0; Cipher::<S>::NONCE];
        entropy.fill(&mut nonce)?;
        let mut wrapped = [0; WRAPPED];
        let (key, tag) = wrapped.split_at_mut(KEY);
        key.copy_from_slice(secret);
        tag.copy_from_slice(&self.slot.seal(&nonce, &slot_aad::<S>(number, &id, &commitment), key)?);
        DataKey::new(Slot { number, id, commitment, nonce, wrapped }, Zeroizing::new(*secret))
    }

    fn unwrap(&self, slot: Slot) -> Result<DataKey<S>, Error> {
        let (ciphertext, tag) = slot.wrapped.split_last_chunk::<TAG>().ok_or(Error::Malformed)?;
        let mut secret: Key = Zeroizing::new(ciphertext.try_into().map_err(|_| Error::Malformed)?);
        let aad = slot_aad::<S>(slot.number, &slot.id, &slot.commitment);
        self.slot.open(&slot.nonce, &aad, &mut *secret, tag).map_err(|_| Error::KeyringTampered)?;
        let commitment = derive(&secret, &[label::KEY_COMMITMENT, &slot.id])?;
        if !bool::from(commitment.ct_eq(&slot.commitment)) {
            return Err(Error::KeyringTampered);
        }
        DataKey::new(slot, secret)
    }
}

fn slot_aad<S: Suite>(number: u32, id: &KeyId, commitment: &[u8; 32]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(84);
    push_lp(&mut aad, &[label::SLOT]);
    push_lp(&mut aad, &[&[S::ID], &number.to_be_bytes(), id, commitment]);
    aad
}
