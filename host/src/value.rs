use std::fmt;
use std::mem;
use std::ops::Deref;

use zeroize::{Zeroize, Zeroizing};

/// An opened value of 0 to 1 MiB. It is wiped when it is dropped, all bytes at once: `Zeroizing<Vec<u8>>` wipes them one by
/// one, which takes as long as a tenth of opening a large value.
#[derive(PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Value> for Zeroizing<Vec<u8>> {
    fn from(mut value: Value) -> Self {
        Self::new(mem::take(&mut value.0))
    }
}

impl Deref for Value {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

/// The length only.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Value {
    fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
        // What is beyond its length was never in use, unless someone cut it off.
        self.0.spare_capacity_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_taken_over_and_not_shown() {
        let value = Value::from(b"hunter2".to_vec());
        assert_eq!(format!("{value:?}"), "Value(7 bytes)");
        let start = value.as_ptr();
        let taken = Zeroizing::<Vec<u8>>::from(value);
        assert_eq!((taken.as_ptr(), taken.as_slice()), (start, &b"hunter2"[..]));
    }

    #[test]
    fn is_wiped_to_its_capacity() {
        let mut value = Value::from(b"hunter2, and more".to_vec());
        value.0.truncate(7);
        value.wipe();
        assert_eq!(*value.0, [0; 7]);
        let rest = value.0.spare_capacity_mut();
        assert!(rest.len() >= 10);
        // SAFETY: `wipe` has written all bytes.
        assert!(rest.iter().all(|byte| unsafe { byte.assume_init() } == 0));
    }
}
