//! Credentials as rows: opening and sealing them, and the triggers of view and table.

pub(crate) mod audit;
pub(crate) mod columns;
pub(crate) mod every;
pub(crate) mod history;
pub(crate) mod identity;
pub(crate) mod last_right;
pub(crate) mod open;
pub(crate) mod scan;
pub(crate) mod statement;
pub(crate) mod table_triggers;
pub(crate) mod text;
pub(crate) mod view_triggers;
