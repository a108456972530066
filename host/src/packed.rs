//! Fields in one list of bytes, as the contract passes them where there are many or where it is to be quick.

use crate::Identity;

impl Identity<'_> {
    /// Appends the four fields.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        pack(out, &[self.name, self.kind, self.principal, self.scope]);
    }
}

/// Appends fields, each as its length in four bytes, big-endian, and its bytes.
pub(crate) fn pack(out: &mut Vec<u8>, fields: &[&[u8]]) {
    for field in fields {
        // No field comes near 4 GiB, and a module's memory has less.
        out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(field);
    }
}
