//! What a key derivation may cost (§3).

use crate::{Error, limits};

/// Argon2id costs (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Memory in KiB: 8 × lanes to 262,144.
    pub memory_kib: u32,
    /// Passes: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 4.
    pub lanes: u32,
}

impl Costs {
    /// RFC 9106's second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: Self = Self { memory_kib: 65_536, passes: 3, lanes: 4 };

    /// The costs, if they are within the limits.
    ///
    /// # Errors
    /// [`Error::KdfOutOfBounds`].
    pub fn checked(self) -> Result<Self, Error> {
        let within = (1..=limits::KDF_LANES).contains(&self.lanes)
            && (1..=limits::KDF_PASSES).contains(&self.passes)
            && (8 * self.lanes..=limits::KDF_MEMORY_KIB).contains(&self.memory_kib);
        if within { Ok(self) } else { Err(Error::KdfOutOfBounds) }
    }
}
