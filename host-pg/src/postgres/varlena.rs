//! Datums of variable length.

use pgrx::{pg_sys, varlena};

/// A detoasted varlena, possibly with a short header.
pub(crate) struct Detoasted {
    pointer: *mut pg_sys::varlena,
}

impl Detoasted {
    /// # Safety
    /// `datum` is a non-null datum of a varlena type.
    pub(crate) unsafe fn new(datum: pg_sys::Datum) -> Self {
        let pointer: *mut pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: see above. The header tells what pg_detoast_datum_packed would return as it is; otherwise the result is a
        // copy in the current memory context. Most values are short, and a guarded call takes as long as to copy one.
        unsafe {
            let packed = !varlena::varatt_is_4b_c(pointer) && !varlena::varatt_is_1b_e(pointer);
            Self { pointer: if packed { pointer } else { pg_sys::pg_detoast_datum_packed(pointer) } }
        }
    }

    /// The bytes behind the header.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the pointer is a detoasted varlena that lives in the current memory context.
        unsafe { varlena::varlena_to_byte_slice(self.pointer) }
    }
}

/// A detoasted copy in the current memory context.
///
/// # Safety
/// `datum` is a non-null datum of a varlena type.
pub(crate) unsafe fn copied(datum: pg_sys::Datum) -> pg_sys::Datum {
    // SAFETY: see above.
    unsafe { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()) }.into()
}

/// Whether two jsonbs are equal, as an index on them says: 1 and 1.0 are.
///
/// # Safety
/// Both are non-null datums of jsonbs.
pub(crate) unsafe fn jsonb_equal(a: pg_sys::Datum, b: pg_sys::Datum) -> bool {
    // SAFETY: see above; the function looks at both and keeps neither.
    unsafe { pgrx::direct_function_call(pg_sys::jsonb_eq, &[Some(a), Some(b)]) }.unwrap_or(false)
}

/// The text of a jsonb.
pub(crate) fn jsonb_text(scope: &Detoasted) -> Vec<u8> {
    // SAFETY: `scope` is a detoasted jsonb; JsonbToCString allocates its result in the current memory context.
    unsafe {
        let aligned = pg_sys::pg_detoast_datum(scope.pointer);
        let jsonb = aligned.cast::<pg_sys::Jsonb>();
        let length = i32::try_from(varlena::varsize_any(aligned)).unwrap_or(i32::MAX);
        let text = pg_sys::JsonbToCString(core::ptr::null_mut(), &raw mut (*jsonb).root, length);
        let owned = core::ffi::CStr::from_ptr(text).to_bytes().to_vec();
        pg_sys::pfree(text.cast());
        owned
    }
}
