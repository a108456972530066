//! The allocator of modules, natively. Its crate is for WebAssembly, and not among the packages that are tested together.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "the tests are in the file itself")]

#[path = "../../../modules/glue/src/allocator.rs"]
mod allocator;
