"""Modules that keep to the contract but for one lie are found out by the known-answer tests when they are installed.

Each is the template, which passes, with a line or two of its source replaced.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Database, refused
from template_module import QUICK, build, copy

OPEN = "self.0.borrow().open(&packed::one_identity(&identity)?, &Sealed { bytes, expires })"
# What a module does, the test that finds it, and where: a file, what stands there, what stands there instead.
LIES = {
    "opens to the value of another row": (
        "what is sealed opens",
        ("keys.rs", OPEN, f"""
            static BEFORE: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());
            let value = {OPEN}?;
            let Ok(mut before) = BEFORE.lock() else {{ return Ok(value) }};
            let answer = if before.is_empty() {{ value.clone() }} else {{ before.clone() }};
            *before = value;
            Ok(answer)"""),
    ),
    "opens to the value of another row after many refusals": (
        "a value opens to itself",
        ("keys.rs", OPEN, f"""
            static BEFORE: std::sync::Mutex<(Vec<u8>, u32)> = std::sync::Mutex::new((Vec::new(), 0));
            let opened = {OPEN};
            let Ok(mut before) = BEFORE.lock() else {{ return opened }};
            let Ok(value) = opened else {{ before.1 += 1; return opened }};
            let answer = if before.1 > 150 {{ before.0.clone() }} else {{ value.clone() }};
            before.0 = value;
            Ok(answer)"""),
    ),
    "opens a value for whoever asks": (
        "a value of another identity does not open",
        ("identity.rs", "fields.iter().flat_map", "fields[..1].iter().flat_map"),
    ),
    "does not bind the expiry": (
        "a value does not open with another expiry",
        ("identity.rs", "            &expires,\n        ];", "        ];"),
    ),
    "loses the expiry in a file": (
        "a file holds when a value expires",
        ("contents.rs", "expires: if let State::Live(sealed) = state { sealed.expires } else { None },", "expires: None,"),
    ),
    "runs names and kinds together": (
        "a value of another identity does not open",
        ("identity.rs", "[&(field.len() as u32).to_be_bytes(), *field].concat()", "field.to_vec()"),
    ),
    "takes scopes as text": (
        "the value was altered",
        ("identity.rs", "scope: scope(&identity.scope)?",
         "scope: String::from_utf8_lossy(&identity.scope).into_owned()"),
    ),
    "opens what was altered": (
        "does not open",
        ("aead.rs", ".decrypt_inout_detached(nonce.into(), aad, buffer.as_mut_slice().into(), tag.into())",
         ".encrypt_inout_detached(nonce.into(), aad, buffer.as_mut_slice().into())"),
    ),
    "breaks down where it should refuse": (
        "encryption.keyring.open",
        ("keys.rs", OPEN, f"Ok({OPEN}.unwrap_or_else(|_| unreachable!()))"),
    ),
    "uses a nonce twice": (
        "nonces are fresh",
        ("keys.rs", "nonce.map_or_else(random, Ok)?", "nonce.unwrap_or([7; aead::NONCE])"),
    ),
    "does not encrypt": (
        "a sealed value does not show its plaintext",
        ("aead.rs", "let mut buffer = plaintext.to_vec();",
         "let mut buffer = Vec::<u8>::new(); let aad = &[aad, plaintext].concat();"),
        ("aead.rs", "Ok([&nonce[..], &buffer, &tag].concat())", "Ok([&nonce[..], plaintext, &tag].concat())"),
        ("aead.rs", "let mut buffer = ciphertext.to_vec();",
         "let mut buffer = Vec::<u8>::new(); let aad = &[aad, ciphertext].concat();"),
        ("aead.rs", "Ok(buffer)", "Ok(ciphertext.to_vec())"),
    ),
    "shows the length of a value": (
        "lengths are padded",
        ("keys.rs", "const BUCKET: usize = 32;", "const BUCKET: usize = 1;"),
    ),
    "tells another suite than it seals with": (
        "a sealed value tells its suite",
        ("lib.rs", "suite: Suite { id: SUITE,", "suite: Suite { id: SUITE ^ 1,"),
    ),
    "does not tell another module's values": (
        "a value of another suite is unknown-suite",
        ("keys.rs", "return Err(refuse_found(Error::UnknownSuite, suite.into()));", "return Err(malformed());"),
    ),
    "takes any master secret": (
        "a wrong master secret is refused",
        ("keys.rs", "if same { Ok(()) }", "if same || !check.is_empty() { Ok(()) }"),
    ),
    "has one salt": (
        "the salt enters the KEK",
        ("keys.rs", "(random::<16>()?, secret.costs(costs))", "([7_u8; 16], secret.costs(costs))"),
    ),
    "has no limits for costs": (
        "costs beyond the limits|key-derivation.create-keyring",
        ("kdf.rs", "if !bounds || !(8 * lanes..=MEMORY_KIB).contains(&memory_kib)", "if !bounds"),
    ),
    "seals with the old key": (
        "an added key is current",
        ("keys.rs", "slots.max_by_key(", "slots.min_by_key("),
    ),
    "seals again with a fresh nonce": (
        "sealing again gives the same bytes each time",
        ("keys.rs", "rest.first_chunk().copied()", "rest.first_chunk().copied().filter(|_| false)"),
    ),
    "takes no deletion from a table": (
        "what a table lacks was deleted",
        ("reconcile.rs", "None if complete && before.is_some() =>", "None if complete && before.is_some() && put_back =>"),
    ),
    "forgets the old key": (
        "the keyring does not hold the key",
        ("keys.rs", "self.insert(u64::from_be_bytes(random()?), number", "self.keys.clear(); self.insert(u64::from_be_bytes(random()?), number"),
    ),
    "takes an altered keyring": (
        "an altered keyring does not unlock",
        ("keys.rs", 'if !stamp::holds(&*kdf::subkey(&kek, b"example keyring")?, bytes)', "if bytes.is_empty()"),
    ),
    "believes any file": (
        "an altered file is refused",
        ("document.rs", "Some(file) if stamp::holds(&*seal_key(&contents, &keys)?, file) => Ok(())",
         "Some(_) if seal_key(&contents, &keys).is_ok() => Ok(())"),
    ),
    "counts no generations": (
        "the generation is one more",
        ("document.rs", ".max(at_least).checked_add(1)", ".max(at_least).checked_add(0)"),
    ),
    "keeps no deletions": (
        "a file holds its records",
        ("document.rs", "changed.insert(Canonical::new(&entry.identity)?, state)?;",
         "if !entry.deleted { changed.insert(Canonical::new(&entry.identity)?, state)?; }"),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_it_is_found_out(db: Database, tmp_path: Path, lie: str) -> None:
    found, *edits = LIES[lie]
    folder = copy(tmp_path / "module")
    for file, honest, lying in edits:
        source = folder / "src" / file
        text = source.read_text()
        assert text.count(honest) == 1
        source.write_text(text.replace(honest, lying))
    wasm = build(folder, profile=QUICK).read_bytes()
    with refused("0A000", f"not a usable crypto module: .*({found})"):
        db.run("select omni_credentials.install_module('liar', %s, sha256(%s))", wasm, wasm)
    assert db.run("select name from omni_credentials.crypto_modules") == [("xchacha20poly1305",)]
