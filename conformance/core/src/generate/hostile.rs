use omni_credentials_core::kdf::{self, Costs};
use omni_credentials_core::{Document, Entry, Failure, Keyring, Suite};

use super::{Fixed, VectorFile, json};
use crate::Native;
use crate::native::borrowed;
use omni_credentials_conformance::Identity;
use omni_credentials_conformance::golden::suite_name;
use omni_credentials_conformance::hostile::{Case, Manifest, attempt};

/// A name, the bytes, and the failure they must be.
type Made = (&'static str, Vec<u8>, &'static str);

/// The master secret of the sound keyring.
const SECRET: &[u8] = b"correct horse";
/// Where the fields of an Argon2id keyring start.
const COSTS: usize = 7;
const SALT: usize = 19;
const COMMITMENT: usize = 35;
const COUNT: usize = 67;
const SLOTS: usize = 69;
/// Where the id of a slot starts, after its number.
const ID: usize = 4;

pub(super) fn files<S: Suite>() -> Result<Vec<VectorFile>, Failure> {
    let mut entropy = Fixed::new(&format!("hostile {}", S::NAME));
    let cheap = Costs { memory_kib: 8, passes: 1, lanes: 1 };
    let (mut keyring, kek) = Keyring::<S>::create(SECRET, Some(cheap), &mut entropy)?;
    keyring.add_key(&mut entropy)?;
    let (foreign, _) = Keyring::<S>::create(b"another", Some(cheap), &mut entropy)?;
    let identity = Identity {
        name: "stripe".into(),
        kind: "api_key".into(),
        principal: "app".into(),
        scope: r#"{"all": true}"#.into(),
        expires: None,
    };
    let stored = keyring.to_bytes();

    let mut made = keyrings::<S>(&stored, &foreign.to_bytes());
    made.extend(values(&keyring, &foreign, &identity, &mut entropy)?);
    made.extend(secrets(&mut entropy)?);
    made.extend(scopes());
    made.extend(documents(&keyring, &foreign, &mut entropy)?);

    let folder = format!("hostile/{}", suite_name(S::ID));
    let (mut files, mut cases) = (Vec::new(), Vec::new());
    for (name, bytes, class) in made {
        let mut case = Case { name: name.into(), class: class.into(), line: 0, found: 0 };
        // The class is stated here by hand; line and number are what the core says today, and frozen.
        let area = case.area().to_owned();
        if let Err(refusal) = attempt(&mut Native::<S>::default(), &area, &bytes, &stored, &kek, &identity) {
            (case.line, case.found) = (refusal.line, refusal.found);
        }
        files.push((format!("{folder}/{}", case.file()), bytes));
        cases.push(case);
    }
    let manifest = Manifest {
        keyring: hex::encode(&stored),
        kek: hex::encode(*kek),
        secret: hex::encode(SECRET),
        identity,
        cases,
    };
    files.push((format!("{folder}/manifest.json"), json(&manifest)));
    Ok(files)
}

/// The bytes with those at `at` replaced.
fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().skip(at).zip(with).for_each(|(to, from)| *to = *from);
    bytes
}

/// The bytes with one bit of that at `at` changed.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
    bytes
}

fn part(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.get(from..to.min(bytes.len())).unwrap_or_default()
}

fn keyrings<S: Suite>(good: &[u8], foreign: &[u8]) -> Vec<Made> {
    let slot = 44 + 48 + if S::ID == 1 { 24 } else { 12 };
    let (second, mac) = (SLOTS + slot, SLOTS + 2 * slot);
    let costs = |memory: u32, passes: u32, lanes: u32| {
        patched(good, COSTS, &[memory, passes, lanes].map(u32::to_be_bytes).concat())
    };
    let join = |parts: &[&[u8]]| parts.concat();
    let one_slot = |count: u16, slots: &[&[u8]]| {
        join(&[part(good, 0, COUNT), &count.to_be_bytes(), &slots.concat(), part(good, mac, good.len())])
    };
    let (slot_a, slot_b) = (part(good, SLOTS, second), part(good, second, mac));
    let foreign_slot = part(foreign, SLOTS, second);
    let mut with_foreign = [slot_a, slot_b, foreign_slot];
    with_foreign.sort_unstable_by_key(|slot| part(slot, ID, ID + 8));
    let other = 3 - S::ID;
    vec![
        ("keyring_empty", vec![], "malformed"),
        ("keyring_wrong_magic", patched(good, 0, b"OCKS"), "malformed"),
        ("keyring_magic_only", part(good, 0, 4).to_vec(), "malformed"),
        ("keyring_version_zero", patched(good, 4, &[0]), "unknown-version"),
        ("keyring_version_next", patched(good, 4, &[2]), "unknown-version"),
        ("keyring_suite_zero", patched(good, 5, &[0]), "unknown-suite"),
        ("keyring_suite_other", patched(good, 5, &[other]), "unknown-suite"),
        ("keyring_suite_unassigned", patched(good, 5, &[0x7f]), "unknown-suite"),
        ("keyring_kdf_zero", patched(good, 6, &[0]), "malformed"),
        ("keyring_kdf_unassigned", patched(good, 6, &[3]), "malformed"),
        ("keyring_memory_over_limit", costs(262_145, 1, 1), "kdf-out-of-bounds"),
        ("keyring_memory_huge", costs(u32::MAX, 1, 1), "kdf-out-of-bounds"),
        ("keyring_memory_below_lanes", costs(31, 1, 4), "kdf-out-of-bounds"),
        ("keyring_memory_zero", costs(0, 1, 1), "kdf-out-of-bounds"),
        ("keyring_passes_zero", costs(8, 0, 1), "kdf-out-of-bounds"),
        ("keyring_passes_over_limit", costs(8, 17, 1), "kdf-out-of-bounds"),
        ("keyring_lanes_zero", costs(8, 1, 0), "kdf-out-of-bounds"),
        ("keyring_lanes_over_limit", costs(64, 1, 5), "kdf-out-of-bounds"),
        ("keyring_lanes_wrap_around", costs(8, 1, 0x2000_0001), "kdf-out-of-bounds"),
        ("keyring_costs_changed", costs(16, 1, 1), "keyring-tampered"),
        ("keyring_salt_changed", flipped(good, SALT), "keyring-tampered"),
        ("keyring_commitment_changed", flipped(good, COMMITMENT), "wrong-master-secret"),
        ("keyring_number_zero", patched(good, SLOTS, &[0; 4]), "malformed"),
        ("keyring_number_changed", patched(good, second, &[0, 0, 0, 9]), "keyring-tampered"),
        ("keyring_number_highest", patched(good, SLOTS, &[0xff; 4]), "keyring-tampered"),
        ("keyring_no_slots", one_slot(0, &[]), "malformed"),
        ("keyring_too_many_slots", patched(good, COUNT, &[1, 1]), "malformed"),
        ("keyring_slot_missing", one_slot(2, &[slot_a]), "malformed"),
        ("keyring_slot_surplus", one_slot(1, &[slot_a, slot_b]), "malformed"),
        ("keyring_slots_unsorted", one_slot(2, &[slot_b, slot_a]), "malformed"),
        ("keyring_slots_duplicate", one_slot(3, &[slot_a, slot_a, slot_b]), "malformed"),
        ("keyring_slot_foreign", one_slot(3, &with_foreign), "keyring-tampered"),
        ("keyring_slot_commitment_changed", flipped(good, SLOTS + ID + 8), "keyring-tampered"),
        ("keyring_slot_nonce_changed", flipped(good, SLOTS + ID + 40), "keyring-tampered"),
        ("keyring_slot_key_changed", flipped(good, second - 48), "keyring-tampered"),
        ("keyring_slot_tag_changed", flipped(good, second - 1), "keyring-tampered"),
        ("keyring_mac_changed", flipped(good, good.len() - 1), "keyring-tampered"),
        ("keyring_mac_zero", patched(good, mac, &[0; 32]), "keyring-tampered"),
        ("keyring_cut_by_one", part(good, 0, good.len() - 1).to_vec(), "malformed"),
        ("keyring_trailing_byte", join(&[good, &[0]]), "malformed"),
        ("keyring_of_another", foreign.to_vec(), "wrong-master-secret"),
    ]
}

fn values<S: Suite>(
    keys: &Keyring<S>,
    foreign: &Keyring<S>,
    identity: &Identity,
    entropy: &mut Fixed,
) -> Result<Vec<Made>, Failure> {
    let good = keys.seal(&borrowed(identity), None, &[b's'; 40], entropy)?;
    let nonce = if S::ID == 1 { 24 } else { 12 };
    let (body, tag) = (10 + nonce, good.len() - 16);
    let seal = |change: &dyn Fn(&mut Identity), entropy: &mut Fixed| {
        let mut moved = identity.clone();
        change(&mut moved);
        keys.seal(&borrowed(&moved), moved.expires, b"moved", entropy)
    };
    let swapped = [
        part(&good, 0, body),
        part(&good, body + 32, tag),
        part(&good, body, body + 32),
        part(&good, tag, good.len()),
    ]
    .concat();
    Ok(vec![
        ("value_empty", vec![], "malformed"),
        ("value_version_only", vec![1], "malformed"),
        ("value_version_zero", patched(&good, 0, &[0]), "unknown-version"),
        ("value_version_next", patched(&good, 0, &[2]), "unknown-version"),
        ("value_suite_other", patched(&good, 1, &[3 - S::ID]), "unknown-suite"),
        ("value_suite_unassigned", patched(&good, 1, &[0xff]), "unknown-suite"),
        ("value_key_unknown", flipped(&good, 2), "unknown-key"),
        ("value_key_foreign", foreign.seal(&borrowed(identity), None, b"x", entropy)?, "unknown-key"),
        ("value_cut_in_nonce", part(&good, 0, 15).to_vec(), "malformed"),
        (
            "value_without_ciphertext",
            [part(&good, 0, body), part(&good, tag, good.len())].concat(),
            "malformed",
        ),
        ("value_cut_by_one", part(&good, 0, good.len() - 1).to_vec(), "malformed"),
        ("value_cut_by_bucket", part(&good, 0, good.len() - 32).to_vec(), "not-authentic"),
        ("value_trailing_byte", [&*good, &[0]].concat(), "malformed"),
        ("value_trailing_bucket", [&*good, &[0; 32]].concat(), "not-authentic"),
        ("value_nonce_changed", flipped(&good, 10), "not-authentic"),
        ("value_ciphertext_changed", flipped(&good, body), "not-authentic"),
        ("value_buckets_swapped", swapped, "not-authentic"),
        ("value_tag_changed", flipped(&good, tag), "not-authentic"),
        ("value_tag_zero", patched(&good, tag, &[0; 16]), "not-authentic"),
        ("value_of_other_name", seal(&|moved| moved.name.push('x'), entropy)?, "not-authentic"),
        ("value_of_other_kind", seal(&|moved| moved.kind.push('x'), entropy)?, "not-authentic"),
        ("value_of_other_principal", seal(&|moved| moved.principal.push('x'), entropy)?, "not-authentic"),
        ("value_of_other_scope", seal(&|moved| moved.scope = "{}".into(), entropy)?, "not-authentic"),
        ("value_of_other_expiry", seal(&|moved| moved.expires = Some(1), entropy)?, "not-authentic"),
        (
            "value_of_shifted_fields",
            seal(&|moved| (moved.name, moved.kind) = ("stripea".into(), "pi_key".into()), entropy)?,
            "not-authentic",
        ),
    ])
}

fn secrets(entropy: &mut Fixed) -> Result<Vec<Made>, Failure> {
    let good = kdf::generate_master_key(entropy)?.to_vec();
    Ok(vec![
        ("secret_empty", vec![], "invalid-master-secret"),
        ("secret_too_long", vec![b'x'; 4_097], "invalid-master-secret"),
        ("secret_wrong_password", b"correct horse ".to_vec(), "wrong-master-secret"),
        ("secret_generated_for_a_password", good.clone(), "wrong-master-secret"),
        (
            "secret_generated_changed",
            patched(&good, 20, if part(&good, 20, 21) == b"A" { b"B" } else { b"A" }),
            "invalid-master-secret",
        ),
        ("secret_generated_cut", part(&good, 0, 53).to_vec(), "invalid-master-secret"),
        ("secret_generated_with_newline", [&*good, b"\n"].concat(), "invalid-master-secret"),
        ("secret_generated_padded", patched(&good, 53, b"="), "invalid-master-secret"),
        ("secret_generated_prefix_only", b"omck1_".to_vec(), "invalid-master-secret"),
        ("secret_generated_not_ascii", patched(&good, 30, &[0xff]), "invalid-master-secret"),
    ])
}

fn scopes() -> Vec<Made> {
    let long = format!("\"{}\"", "x".repeat(2_047));
    let cases: [(&str, &[u8], &str); 30] = [
        ("scope_empty", b"", "invalid-scope"),
        ("scope_white_space", b" \n", "invalid-scope"),
        ("scope_not_utf8", b"\"\xff\"", "invalid-scope"),
        ("scope_utf8_overlong", b"\"\xc0\xaf\"", "invalid-scope"),
        ("scope_utf8_surrogate", b"\"\xed\xa0\x80\"", "invalid-scope"),
        ("scope_byte_order_mark", b"\xef\xbb\xbf{}", "invalid-scope"),
        ("scope_utf16", b"{\0}\0", "invalid-scope"),
        ("scope_bare_word", b"all", "invalid-scope"),
        ("scope_word_cut", b"tru", "invalid-scope"),
        ("scope_object_open", b"{\"a\":1", "invalid-scope"),
        ("scope_object_comma", b"{\"a\":1,}", "invalid-scope"),
        ("scope_object_key_bare", b"{a:1}", "invalid-scope"),
        ("scope_object_key_number", b"{1:1}", "invalid-scope"),
        ("scope_array_comma", b"[1,]", "invalid-scope"),
        ("scope_two_values", b"{}{}", "invalid-scope"),
        ("scope_comment", b"{} // all", "invalid-scope"),
        ("scope_single_quotes", b"'a'", "invalid-scope"),
        ("scope_string_control", b"\"\t\"", "invalid-scope"),
        ("scope_string_escape", b"\"\\x41\"", "invalid-scope"),
        ("scope_string_surrogate", b"\"\\ud800\"", "invalid-scope"),
        ("scope_string_nul", b"\"\\u0000\"", "invalid-scope"),
        ("scope_key_nul", b"{\"\\u0000\":1}", "invalid-scope"),
        ("scope_duplicate_hides_nul", b"{\"a\":\"\\u0000\",\"a\":1}", "invalid-scope"),
        ("scope_number_leading_zero", b"01", "invalid-scope"),
        ("scope_number_plus", b"+1", "invalid-scope"),
        ("scope_number_nan", b"NaN", "invalid-scope"),
        ("scope_number_too_high", b"1e131072", "invalid-scope"),
        ("scope_number_too_fine", b"1e-16384", "invalid-scope"),
        ("scope_too_deep", &[[b'['; 33], [b']'; 33]].concat(), "invalid-scope"),
        ("scope_too_long", long.as_bytes(), "scope-too-large"),
    ];
    let mut made: Vec<Made> = cases.map(|(name, bytes, class)| (name, bytes.to_vec(), class)).into();
    let padded = [&[b' '; 16_384][..], b"1"].concat();
    made.push(("scope_too_long_as_given", padded, "scope-too-large"));
    made.push(("scope_number_grows", [b"1e20".as_slice(), &b",1e20".repeat(100)].concat(), "invalid-scope"));
    made.push((
        "scope_numbers_grow",
        [b"[1e20".as_slice(), &b",1e20".repeat(100), b"]"].concat(),
        "scope-too-large",
    ));
    made
}

fn documents<S: Suite>(
    keys: &Keyring<S>,
    foreign: &Keyring<S>,
    entropy: &mut Fixed,
) -> Result<Vec<Made>, Failure> {
    let entry = |name: &'static str| Identity {
        name: name.into(),
        kind: "api_key".into(),
        principal: "app".into(),
        scope: r#"{"all":true}"#.into(),
        expires: None,
    };
    let (a, b, c) = (entry("a"), entry("b"), entry("c"));
    let expires = Some(1_800_000_000);
    let sealed = [
        keys.seal(&borrowed(&a), None, &[b'1'; 70], entropy)?,
        keys.seal(&borrowed(&b), expires, b"2", entropy)?,
    ];
    let [sealed_a, sealed_b] = &sealed;
    let make = |keys: &Keyring<S>| {
        let mut document = Document::<S>::create(&keys.to_bytes())?;
        document.put([
            Entry { identity: borrowed(&a), expires: None, sealed: Some(sealed_a) },
            Entry { identity: borrowed(&b), expires, sealed: Some(sealed_b) },
            Entry { identity: borrowed(&c), expires: None, sealed: None },
        ])?;
        document.write(keys, 0)
    };
    let text = String::from_utf8_lossy(&make(keys)?).into_owned();
    let good = text.as_str();
    let alien = String::from_utf8_lossy(&make(foreign)?).into_owned();
    let swap = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let expiry = "  expires 2027-01-15T08:00:00Z\n";
    let blocks: Vec<&str> = good.split("\n\n").collect();
    let block = |i: usize| blocks.get(i).copied().unwrap_or_default();
    let (head, first, second, third, end) = (block(0), block(1), block(2), block(3), block(4));
    let join = |parts: &[&str]| parts.join("\n\n").into_bytes();
    let value_line = first.lines().nth(5).unwrap_or_default().to_owned();
    let seal_line = good.lines().last().unwrap_or_default().to_owned();
    let (value_head, value_tail) = value_line.split_at_checked(36).unwrap_or_default();
    let at = |offset: usize| part(good.as_bytes(), 0, offset).to_vec();
    let mut made = trailers(good);
    made.extend(vec![
        ("file_empty", vec![], "not-a-credentials-file"),
        ("file_plaintext", b"stripe: sk_live_1\n".to_vec(), "not-a-credentials-file"),
        ("file_binary", vec![0; 100], "not-a-credentials-file"),
        ("file_byte_order_mark", [b"\xef\xbb\xbf", good.as_bytes()].concat(), "not-a-credentials-file"),
        ("file_utf16", good.encode_utf16().flat_map(u16::to_le_bytes).collect(), "not-a-credentials-file"),
        ("file_signature_upper_case", swap("omni", "Omni"), "not-a-credentials-file"),
        ("file_version_next", swap("credentials 1", "credentials 2"), "unknown-version"),
        ("file_version_leading_zero", swap("credentials 1", "credentials 01"), "not-a-credentials-file"),
        ("file_version_trailing_space", swap("credentials 1", "credentials 1 "), "not-a-credentials-file"),
        ("file_crlf", good.replace('\n', "\r\n").into_bytes(), "carriage-return"),
        ("file_crlf_one_line", swap("  kind \"api_key\"\n", "  kind \"api_key\"\r\n"), "carriage-return"),
        ("file_cr_in_line", swap("\"api_key\"", "\"api\rkey\""), "not-text"),
        ("file_tab", swap("\"api_key\"", "\"api\tkey\""), "not-text"),
        ("file_escape_character", swap("\"api_key\"", "\"\x1b[31m\""), "not-text"),
        ("file_nul", swap("\"api_key\"", "\"api\0key\""), "not-text"),
        (
            "file_not_utf8",
            [&at(200), b"\xff".as_slice(), part(good.as_bytes(), 200, good.len())].concat(),
            "not-text",
        ),
        ("file_conflict_at_start", swap("omni", "<<<<<<< HEAD\nomni"), "conflict-markers"),
        ("file_conflict_in_keyring", swap("\n\ncredential", "\n=======\n\ncredential"), "conflict-markers"),
        ("file_conflict_in_record", swap("  principal", "||||||| base\n  principal"), "conflict-markers"),
        (
            "file_conflict_between_records",
            swap("\n\ndeleted", "\n\n>>>>>>> theirs\ndeleted"),
            "conflict-markers",
        ),
        ("file_conflict_in_trailer", swap("  records", "<<<<<<< HEAD\n  records"), "conflict-markers"),
        ("file_line_too_long", swap("\"api_key\"", &format!("\"{}\"", "k".repeat(4_200))), "line-too-long"),
        ("file_keyring_missing", swap("keyring\n", ""), "bad-syntax"),
        ("file_keyring_empty", [b"omni-credentials 1\nkeyring\n\n", end.as_bytes()].concat(), "malformed"),
        ("file_keyring_not_base64", swap("keyring\n  T", "keyring\n  *"), "bad-syntax"),
        ("file_keyring_magic", swap("keyring\n  T", "keyring\n  U"), "malformed"),
        ("file_keyring_changed", swap("keyring\n  T0NLUgE", "keyring\n  T0NLUgI"), "unknown-version"),
        ("file_keyring_of_another", alien.into_bytes(), "wrong-master-secret"),
        ("file_cut_in_signature", at(10), "truncated"),
        ("file_cut_in_keyring", at(100), "truncated"),
        ("file_cut_after_keyring", format!("{head}\n").into_bytes(), "truncated"),
        ("file_cut_between_records", join(&[head, &format!("{first}\n")]), "truncated"),
        ("file_cut_before_seal", good.replace(&format!("{seal_line}\n"), "").into_bytes(), "truncated"),
        ("file_cut_last_newline", good.trim_end().as_bytes().to_vec(), "truncated"),
        ("file_trailing_newline", format!("{good}\n").into_bytes(), "bad-syntax"),
        ("file_trailing_record", format!("{good}\n{first}\n").into_bytes(), "bad-syntax"),
        ("file_comment", swap("keyring", "# ours\nkeyring"), "bad-syntax"),
        ("file_blank_line_missing", swap("\n\ndeleted", "\ndeleted"), "bad-syntax"),
        ("file_blank_line_twice", swap("\n\ndeleted", "\n\n\ndeleted"), "bad-syntax"),
        ("file_indentation", swap("  kind", "   kind"), "bad-syntax"),
        ("file_trailing_space", swap("  value\n", "  value \n"), "bad-syntax"),
        ("file_unknown_field", swap("  kind", "  note \"x\"\n  kind"), "bad-syntax"),
        ("file_field_missing", swap("  principal \"app\"\n", ""), "bad-syntax"),
        (
            "file_fields_swapped",
            swap("  kind \"api_key\"\n  principal \"app\"", "  principal \"app\"\n  kind \"api_key\""),
            "bad-syntax",
        ),
        ("file_name_bare", swap("credential \"a\"", "credential a"), "bad-syntax"),
        ("file_name_empty", swap("credential \"a\"", "credential \"\""), "invalid-name"),
        ("file_name_nul", swap("credential \"a\"", "credential \"\\u0000\""), "invalid-name"),
        (
            "file_name_too_long",
            swap("credential \"a\"", &format!("credential \"{}\"", "a".repeat(513))),
            "invalid-name",
        ),
        ("file_name_escaped", swap("credential \"a\"", "credential \"\\u0061\""), "not-canonical"),
        ("file_name_surrogate", swap("credential \"a\"", "credential \"\\ud800\""), "bad-syntax"),
        ("file_kind_too_long", swap("\"api_key\"", &format!("\"{}\"", "k".repeat(64))), "invalid-kind"),
        (
            "file_principal_too_long",
            swap("\"app\"", &format!("\"{}\"", "p".repeat(256))),
            "invalid-principal",
        ),
        ("file_scope_spaced", swap("{\"all\":true}", "{\"all\": true}"), "not-canonical"),
        ("file_scope_number", swap("{\"all\":true}", "{\"n\":1.0}"), "not-canonical"),
        ("file_scope_unsorted", swap("{\"all\":true}", "{\"b\":1,\"a\":2}"), "not-canonical"),
        ("file_scope_not_json", swap("{\"all\":true}", "all"), "invalid-scope"),
        (
            "file_scope_too_long",
            swap("{\"all\":true}", &format!("\"{}\"", "s".repeat(2_050))),
            "scope-too-large",
        ),
        (
            "file_value_cut",
            join(&[head, cut(first, first.rfind('\n').unwrap_or(0)), second, third, end]),
            "malformed",
        ),
        (
            "file_value_empty",
            join(&[head, &first.lines().take(5).collect::<Vec<_>>().join("\n"), second, third, end]),
            "malformed",
        ),
        ("file_value_not_base64", swap(&value_line, &value_line.replacen("    A", "    ~", 1)), "bad-syntax"),
        (
            "file_value_line_short",
            swap(&value_line, &format!("{value_head}\n    {value_tail}")),
            "not-canonical",
        ),
        (
            "file_value_version",
            swap(&value_line, &value_line.replacen("    AQ", "    Ag", 1)),
            "unknown-version",
        ),
        (
            "file_value_padding_inside",
            swap(&value_line, &format!("{}AA==", cut(&value_line, 64))),
            "not-canonical",
        ),
        ("file_expiry_with_fraction", swap(":00Z", ":00.0Z"), "bad-syntax"),
        ("file_expiry_with_offset", swap(":00Z", ":00+00:00"), "bad-syntax"),
        ("file_expiry_no_date", swap("2027-01-15T", "2027-02-29T"), "bad-syntax"),
        ("file_expiry_leap_second", swap(":00:00Z", ":59:60Z"), "bad-syntax"),
        ("file_expiry_before_1970", swap("2027-01", "1969-01"), "bad-syntax"),
        ("file_expiry_number", swap("2027-01-15T08:00:00Z", "1800000000"), "bad-syntax"),
        ("file_expiry_twice", swap(expiry, &format!("{expiry}{expiry}")), "bad-syntax"),
        ("file_expiry_dropped", swap(expiry, ""), "seal-mismatch"),
        ("file_expiry_changed", swap("2027-01", "2037-01"), "seal-mismatch"),
        ("file_expiry_given", swap("  value\n", &format!("{expiry}  value\n")), "seal-mismatch"),
        ("file_expiry_of_a_deletion", swap("  generation 1\n\nend", &format!("{expiry}  generation 1\n\nend")), "bad-syntax"),
        ("file_tombstone_with_value", swap("\n\nend", "\n  value\n    AAAA\n\nend"), "bad-syntax"),
        ("file_records_unsorted", join(&[head, second, first, third, end]), "unsorted"),
        ("file_record_duplicate", join(&[head, first, first, second, third, end]), "duplicate-record"),
        ("file_record_dropped", join(&[head, first, third, end]), "count-mismatch"),
        (
            "file_record_dropped_and_counted",
            join(&[head, first, third, &end.replace("records 3", "records 2")]),
            "seal-mismatch",
        ),
        ("file_record_moved", swap("credential \"b\"", "credential \"bb\""), "seal-mismatch"),
        (
            "file_deletion_undone",
            join(&[head, first, second, &end.replace("records 3", "records 2")]),
            "seal-mismatch",
        ),
        (
            "file_deletion_forged",
            swap(
                second,
                "deleted \"b\"\n  kind \"api_key\"\n  principal \"app\"\n  scope {\"all\":true}\n  generation 1",
            ),
            "seal-mismatch",
        ),
        ("file_count_leading_zero", swap("records 3", "records 03"), "bad-syntax"),
        ("file_count_negative", swap("records 3", "records -3"), "bad-syntax"),
        ("file_count_too_high", swap("records 3", "records 4"), "count-mismatch"),
        ("file_generation_changed", swap("generation 1\n  del", "generation 2\n  del"), "seal-mismatch"),
        ("file_generation_overflow", swap("generation 1\n  del", "generation 18446744073709551616\n  del"), "bad-syntax"),
        ("file_seal_changed", swap(&seal_line, &changed(&seal_line, 40)), "seal-mismatch"),
        ("file_seal_cut", swap(&seal_line, cut(&seal_line, seal_line.len() - 4)), "malformed"),
        (
            "file_seal_version",
            swap(&seal_line, &seal_line.replacen("seal AQ", "seal Ag", 1)),
            "unknown-version",
        ),
        ("file_seal_of_another_key", swap(&seal_line, &changed(&seal_line, 12)), "not-canonical"),
    ]);
    Ok(made)
}

/// Generations of deletions, and what the trailer says of those that are forgotten.
fn trailers(good: &str) -> Vec<Made> {
    let swap = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let of_deletion = "  generation 1\n\nend";
    let most = u64::MAX;
    vec![
        ("file_deletion_without_generation", swap(of_deletion, "\nend"), "bad-syntax"),
        ("file_deletion_generation_zero", swap(of_deletion, "  generation 0\n\nend"), "bad-syntax"),
        ("file_deletion_generation_leading_zero", swap(of_deletion, "  generation 01\n\nend"), "bad-syntax"),
        ("file_deletion_generation_ahead", swap(of_deletion, "  generation 2\n\nend"), "not-canonical"),
        (
            "file_deletion_of_another_write",
            swap("generation 1\n  deletions", "generation 2\n  deletions"),
            "seal-mismatch",
        ),
        ("file_live_with_generation", swap("  value\n", "  generation 1\n  value\n"), "bad-syntax"),
        ("file_deletions_since_missing", swap("  deletions-since 0\n", ""), "bad-syntax"),
        ("file_deletions_since_leading_zero", swap("since 0", "since 00"), "bad-syntax"),
        ("file_deletions_since_deletion", swap("since 0", "since 1"), "not-canonical"),
        ("file_deletions_since_ahead", swap("since 0", "since 2"), "not-canonical"),
        ("file_deletions_since_overflow", swap("since 0", "since 18446744073709551616"), "bad-syntax"),
        (
            "file_deletions_since_highest",
            swap(
                "generation 1\n  deletions-since 0",
                &format!("generation {most}\n  deletions-since {most}"),
            ),
            "not-canonical",
        ),
        (
            "file_deletions_since_changed",
            swap(
                "  generation 1\n\nend\n  records 3\n  generation 1\n  deletions-since 0",
                "  generation 3\n\nend\n  records 3\n  generation 3\n  deletions-since 2",
            ),
            "seal-mismatch",
        ),
    ]
}

fn cut(text: &str, len: usize) -> &str {
    text.get(..len).unwrap_or_default()
}

/// A line of base64 with the character at `at` changed.
fn changed(line: &str, at: usize) -> String {
    let change = |(i, c)| {
        if i != at {
            c
        } else if c == 'A' {
            'B'
        } else {
            'A'
        }
    };
    line.chars().enumerate().map(change).collect()
}
