use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Object};

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let key = context.module()?.generate_master_key()?;
    if context.json {
        Object::default().bytes("key", &key).print()
    } else {
        output::write(&[key.as_slice(), b"\n"].concat())
    }
}
