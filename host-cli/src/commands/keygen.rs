use crate::context::Context;
use crate::error::Error;
use crate::output::{self, Bytes};

pub(crate) fn run(context: &Context) -> Result<(), Error> {
    let key = context.module()?.generate_master_key()?;
    if context.json {
        let Bytes { text: key, base64: key_base64 } = Bytes::new(&key);
        output::json(&Key { key, key_base64 })
    } else {
        output::write(&[key.as_slice(), b"\n"].concat())
    }
}

/// What `keygen` prints with `--json`.
#[derive(serde::Serialize)]
struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}
