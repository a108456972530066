//! The paths of the core that are worth watching, for `bench/instructions.py` to count their instructions.
//!
//! `instructions NAME COUNT` takes the path COUNT times; with no arguments it lists the names.

use std::env;
use std::error::Error;
use std::hint::black_box;

use omni_credentials_core::{
    Document, Entropy, Entry, Error as CoreError, Failure, Identity, Keyring, Preference, Side,
    XChaCha20Poly1305, kdf, reconcile,
};

type Keys = Keyring<XChaCha20Poly1305>;
type Doc = Document<XChaCha20Poly1305>;
type Path = Box<dyn Fn() -> Result<(), Failure>>;
type Maker = fn() -> Result<Path, Failure>;

const SMALL: usize = 40;
const LARGE: usize = 16 << 10;
const RECORDS: usize = 1_000;
const WHO: Identity<'_> =
    Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true}"# };

const PATHS: [(&str, Maker); 9] = [
    ("open 40 B", || open(SMALL)),
    ("open 16 KiB", || open(LARGE)),
    ("seal 40 B", || seal(SMALL)),
    ("seal 16 KiB", || seal(LARGE)),
    ("unlock a keyring", unlock),
    ("parse 1,000 records", parse),
    ("write 1,000 records", write),
    ("reconcile 1,000 records, all the same", || both(RECORDS)),
    ("reconcile 1,000 records, a tenth changed", || both(RECORDS / 10 * 9)),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let Some(name) = arguments.next() else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let count: u32 = arguments.next().ok_or("how often is missing")?.parse()?;
    let (_, maker) = PATHS.iter().find(|(path, _)| *path == name).ok_or("there is no such path")?;
    let path = maker()?;
    for _ in 0..count {
        path()?;
    }
    Ok(())
}

fn open(size: usize) -> Result<Path, Failure> {
    let keys = keys()?;
    let sealed = keys.seal(&WHO, None, &vec![b'x'; size], &mut Counter(2))?;
    Ok(Box::new(move || keys.open(&WHO, None, &sealed).map(|value| drop(black_box(value)))))
}

fn seal(size: usize) -> Result<Path, Failure> {
    let keys = keys()?;
    let value = vec![b'x'; size];
    Ok(Box::new(move || keys.seal(&WHO, None, &value, &mut Counter(2)).map(|sealed| drop(black_box(sealed)))))
}

/// Without the derivation of the KEK, which takes what its costs say.
fn unlock() -> Result<Path, Failure> {
    let secret = kdf::generate_master_key(&mut Counter(0))?;
    let (keys, kek) = Keys::create(&secret, None, &mut Counter(1))?;
    let stored = keys.to_bytes();
    Ok(Box::new(move || Keys::unlock(&stored, &*kek).map(|keys| drop(black_box(keys)))))
}

fn parse() -> Result<Path, Failure> {
    let keys = keys()?;
    let file = document(&keys, RECORDS)?.write(&keys, 0)?;
    Ok(Box::new(move || Doc::parse(&file).map(|document| drop(black_box(document)))))
}

fn write() -> Result<Path, Failure> {
    let keys = keys()?;
    let document = document(&keys, RECORDS)?;
    Ok(Box::new(move || document.write(&keys, 0).map(|file| drop(black_box(file)))))
}

/// Two files of which so many records are the same.
fn both(same: usize) -> Result<Path, Failure> {
    let keys = keys()?;
    let parsed = |document: Doc| Doc::parse(&document.write(&keys, 0)?);
    let theirs = parsed(document(&keys, RECORDS)?)?;
    let ours = parsed(document(&keys, same)?)?;
    let ancestor = ours.manifest();
    Ok(Box::new(move || {
        let ours = Side { document: &ours, keyring: &keys };
        let theirs = Side { document: &theirs, keyring: &keys };
        let found = reconcile(&ancestor, &ours, &theirs, false, Preference::Neither, &mut Counter(3))?;
        drop(black_box(found));
        Ok(())
    }))
}

fn keys() -> Result<Keys, Failure> {
    let secret = kdf::generate_master_key(&mut Counter(0))?;
    Ok(Keys::create(&secret, None, &mut Counter(1))?.0)
}

/// 1,000 records, of which the first so many are the same each time.
fn document(keys: &Keys, same: usize) -> Result<Doc, Failure> {
    let names: Vec<String> = (0..RECORDS).map(|number| format!("credential-{number:06}")).collect();
    let mut records = Vec::with_capacity(RECORDS);
    for (number, name) in names.iter().enumerate() {
        let identity = Identity { name: name.as_bytes(), ..WHO };
        let seed = number as u64 + if number < same { 1_000 } else { 1_000_000 };
        records.push((identity, keys.seal(&identity, None, &[b'x'; SMALL], &mut Counter(seed))?));
    }
    let mut document = Doc::create(&keys.to_bytes())?;
    document.put(records.iter().map(|(identity, sealed)| Entry {
        identity: *identity,
        expires: None,
        sealed: Some(sealed),
    }))?;
    Ok(document)
}

/// The same numbers each time: what is counted must not depend on chance.
struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), CoreError> {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = self.0.to_be_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        }
        Ok(())
    }
}
