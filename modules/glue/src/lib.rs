//! The contract in `wit/` over `omni-credentials-core`, for any suite.
//!
//! A module is one line: [`export_module!`] with its suite. The glue converts types and errors and
//! holds the resources; what a call means is decided in the core.

mod allocator;
mod convert;
mod derivation;
mod encryption;
mod entropy;
mod error_table;
mod file_store;
mod info;
mod primitives;

use std::marker::PhantomData;

pub use allocator::Wiping;
pub use omni_credentials_core as core;

/// The contract as Rust, generated.
#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "crypto-module",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "::omni_credentials_module_glue::bindings",
    });
}

/// The world's exports with suite `S`.
#[derive(Debug)]
pub struct Module<S>(PhantomData<S>);

/// Makes the crate a crypto module of this suite: the exports, and an allocator that wipes what is freed.
/// Built for anything but WebAssembly, the crate is empty.
#[macro_export]
macro_rules! export_module {
    ($suite:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[global_allocator]
        static ALLOCATOR: $crate::Wiping = $crate::Wiping::new();

        #[cfg(target_arch = "wasm32")]
        type Exports = $crate::Module<$crate::core::$suite>;
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::export!(Exports with_types_in $crate::bindings);
    };
}
