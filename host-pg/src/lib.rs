//! The Postgres extension: thin glue between SQL and a crypto module.
//!
//! Nothing here encrypts, derives a key or knows a format. Rows, roles and transactions become calls of the contract
//! in `wit/`, and its answers become rows, errors and files. `ARCHITECTURE.md` has the map.

#![allow(
    clippy::cast_possible_wrap,
    reason = "the server's headers give small constants as u32, and its functions take them as i32"
)]

mod admin;
mod error;
mod file_store;
mod instance;
mod keys;
mod postgres;
mod rows;
mod settings;

use pgrx::prelude::*;

// Since Postgres 18, pg_get_loaded_modules() says which library a backend runs.
pgrx::pg_module_magic!(name, version);

/// Called when the library is loaded.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
    rows::identity::register();
    rows::last_right::register();
    postgres::invalidation::register();
    postgres::running::register();
    file_store::register();
    keys::kek_cache_shared::register();
    keys::modules::register();
    admin::register();
}
