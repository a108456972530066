//! Where random bytes come from.

use crate::Error;

/// A cryptographically secure source of random bytes.
pub trait Entropy {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`Error::Other`] where the source did not deliver; nothing was sealed or made then.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error>;
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>(entropy: &mut impl Entropy) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}
