//! An unlocked keyring (§4).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bytes::push_lp;
use crate::derive::{Key, derive, label};
use crate::entropy::random;
use crate::kdf::{Costs, MasterSecret};
use crate::slots::{self, KeyId, Protection, Slot, StoredKeyring, WRAPPED};
use crate::suite::{Cipher, KEY, Suite, TAG};
use crate::{Entropy, Error, Failure, limits};

/// An unlocked keyring. Its keys are zeroized on drop.
pub struct Keyring<S: Suite> {
    protection: Protection,
    wrap: Wrap<S>,
    current: KeyId,
    /// Sorted by id, never empty.
    keys: Vec<DataKey<S>>,
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
        Ok((Self { protection, wrap, current: key.slot.id, keys: vec![key] }, kek))
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
        if !bool::from(wrap.mac(stored.body).ct_eq(stored.mac)) {
            return Err(Error::KeyringTampered.into());
        }
        let keys = stored.slots.into_iter().map(|slot| wrap.unwrap(slot)).collect::<Result<_, _>>()?;
        Ok(Self { protection: stored.protection, wrap, current: stored.current, keys })
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
            .map(|key| wrap.wrap(key.slot.id, &key.secret, entropy))
            .collect::<Result<_, _>>()?;
        Ok((Self { protection, wrap, current: self.current, keys }, kek))
    }

    /// The keyring, to be stored. Slots that were there before keep their bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out =
            slots::body::<S>(&self.protection, &self.current, self.keys.iter().map(|key| &key.slot));
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

    /// Takes over the keys of another keyring, for opening; returns how many were new.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`], [`Error::InvalidArgument`] where one id stands for two keys, those of the
    /// entropy source; the keyring is as before then.
    pub fn absorb(&mut self, other: &Self, entropy: &mut impl Entropy) -> Result<u32, Failure> {
        let mut fresh = Vec::new();
        for key in &other.keys {
            match self.key(&key.slot.id) {
                None => fresh.push(self.wrap.wrap(key.slot.id, &key.secret, entropy)?),
                Some(known) if bool::from(known.secret.ct_eq(&*key.secret)) => {}
                Some(_) => return Err(Error::InvalidArgument.into()),
            }
        }
        if self.keys.len() + fresh.len() > limits::KEYRING_KEYS {
            return Err(Error::TooManyKeys.into());
        }
        let added = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        self.keys.append(&mut fresh);
        self.keys.sort_unstable_by_key(|key| key.slot.id);
        Ok(added)
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

/// A data key, unwrapped, and the slot that stores it.
struct DataKey<S: Suite> {
    slot: Slot,
    secret: Key,
    /// Derived once: opening a value is the hot path.
    value: Cipher<S>,
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
        self.wrap(id, &secret, entropy)
    }

    fn wrap(&self, id: KeyId, secret: &[u8; KEY], entropy: &mut impl Entropy) -> Result<DataKey<S>, Error> {
        let commitment = *derive(secret, &[label::KEY_COMMITMENT, &id])?;
        let mut nonce = vec![0; Cipher::<S>::NONCE];
        entropy.fill(&mut nonce)?;
        let mut wrapped = [0; WRAPPED];
        let (key, tag) = wrapped.split_at_mut(KEY);
        key.copy_from_slice(secret);
        tag.copy_from_slice(&self.slot.seal(&nonce, &slot_aad::<S>(&id, &commitment), key)?);
        DataKey::new(Slot { id, commitment, nonce, wrapped }, Zeroizing::new(*secret))
    }

    fn unwrap(&self, slot: Slot) -> Result<DataKey<S>, Error> {
        let (ciphertext, tag) = slot.wrapped.split_last_chunk::<TAG>().ok_or(Error::Malformed)?;
        let mut secret: Key = Zeroizing::new(ciphertext.try_into().map_err(|_| Error::Malformed)?);
        let aad = slot_aad::<S>(&slot.id, &slot.commitment);
        self.slot.open(&slot.nonce, &aad, &mut *secret, tag).map_err(|_| Error::KeyringTampered)?;
        let commitment = derive(&secret, &[label::KEY_COMMITMENT, &slot.id])?;
        if !bool::from(commitment.ct_eq(&slot.commitment)) {
            return Err(Error::KeyringTampered);
        }
        DataKey::new(slot, secret)
    }
}

fn slot_aad<S: Suite>(id: &KeyId, commitment: &[u8; 32]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(80);
    push_lp(&mut aad, &[label::SLOT]);
    push_lp(&mut aad, &[&[S::ID], id, commitment]);
    aad
}
