//! Operations on a whole instance, on modules and on the extension itself.

mod allowed_variables;
mod crypto_modules;
mod crypto_modules_guard;
mod drop_guard;
mod grants;
mod history;
mod instantiate;
mod keyring_needs;
mod old_value;
mod owner;
mod prune_keyrings;
mod rename_principal;
mod repair_principals;
mod rotate;
mod status;
mod store_changed;
mod verify;

/// Called once, when the library is loaded.
pub(crate) fn register() {
    store_changed::register();
}
