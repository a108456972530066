//! The contract in `wit/`, as Rust. Generated, and private to this crate: hosts see the types of
//! the other modules, so that a change of generator stays here.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "crypto-module",
    imports: { default: trappable },
    // Arguments are lowered from the caller's slices, without a copy in between.
    ownership: Borrowing { duplicate_if_necessary: true },
});
