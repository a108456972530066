//! Canonical scopes: a form of its own form, that says what the input said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use omni_credentials_core::{limits, scope};

fuzz_target!(|data: &[u8]| {
    let Ok(canonical) = scope::canonical(data) else { return };
    assert!(canonical.len() <= limits::SCOPE_BYTES);
    let again = scope::canonical(canonical.as_bytes()).expect("canonical form is a scope");
    assert_eq!(canonical, again);
    // White space around it and inside makes no difference.
    let mut spaced = String::from(" \n");
    let mut quoted = false;
    let mut escaped = false;
    for c in canonical.chars() {
        if !quoted && "[]{},:".contains(c) {
            spaced.push('\t');
        }
        spaced.push(c);
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        if !quoted && "[]{},:".contains(c) {
            spaced.push('\r');
        }
    }
    assert_eq!(scope::canonical(spaced.as_bytes()).expect("white space is allowed"), canonical);
    // In an array, and as a member that a later one replaces.
    if canonical.len() < 1_000 && !canonical.starts_with(['[', '{']) {
        let array = format!("[{canonical},{canonical}]");
        assert_eq!(scope::canonical(array.as_bytes()).expect("an array"), array);
        let twice = format!("{{\"a\":{canonical},\"\\u0061\":1.0}}");
        assert_eq!(scope::canonical(twice.as_bytes()).expect("an object"), r#"{"a":1}"#);
    }
});
