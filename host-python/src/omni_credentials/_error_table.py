"""Refusals and hints. Generated from conformance/errors.toml by tools/generate-errors.py. Do not edit."""

from __future__ import annotations

# Each case of the contract's `types.error`: its meaning, and what stands before `found` where that has one.
EXPLANATIONS: dict[str, tuple[str, str | None]] = {
    "wrong-master-secret": ("the master secret is not the one this keyring was made with", None),
    "invalid-master-secret": ("the master secret is empty, longer than 4 KiB, or a damaged generated key", None),
    "not-authentic": ("the value was altered, or was sealed for another credential", None),
    "malformed": ("the bytes are not of the expected shape", None),
    "unknown-version": ("the data needs a newer version of the crypto module", "version "),
    "unknown-suite": ("the data was made with another cipher suite", "suite "),
    "unknown-key": ("the keyring does not hold the key this was sealed with", None),
    "keyring-tampered": ("the master secret is right, but the keyring was altered", None),
    "kdf-out-of-bounds": ("the key derivation parameters are beyond the limits", None),
    "too-many-keys": ("the keyring holds as many keys as it can", None),
    "invalid-name": ("the name is empty, too long, not UTF-8, or contains U+0000", None),
    "invalid-kind": ("the kind is empty, too long, not UTF-8, or contains U+0000", None),
    "invalid-principal": ("the principal is empty, too long, not UTF-8, or contains U+0000", None),
    "invalid-scope": ("the scope is not JSON, nests too deep, or has a number out of range", None),
    "scope-too-large": ("the scope is too long", "bytes: "),
    "invalid-expiry": ("the expiry is after the year 9999, or of a deleted credential", "seconds since 1970: "),
    "value-too-large": ("the value is longer than 1 MiB", "bytes: "),
    "file-too-large": ("the file is longer than 64 MiB", "bytes: "),
    "line-too-long": ("the line is longer than any the format has", None),
    "too-many-records": ("the file has more than 100,000 records", None),
    "not-text": ("the file is not UTF-8 text, or has a control character", None),
    "carriage-return": ("the line ends in CR LF; the format has LF", None),
    "conflict-markers": ("the file holds the markers of an unfinished merge", None),
    "not-a-credentials-file": ("this is not an encrypted credentials file", None),
    "truncated": ("the file ends before its trailer", None),
    "bad-syntax": ("the line is not one that the format has at this place", None),
    "not-canonical": ("the line is not in canonical form", None),
    "unsorted": ("the records are out of order", None),
    "duplicate-record": ("two records are of one credential", None),
    "count-mismatch": ("the trailer's count is not the number of records", "records: "),
    "seal-mismatch": ("the file was altered: its seal does not match", None),
    "invalid-argument": ("the arguments do not belong together", None),
    "other": ("the crypto module refused without a known reason", None),
}

# What to do, by occasion.
HINTS: dict[str, str] = {
    "file": "restore a good version: git checkout HEAD -- {file}",
    "secret": "create a new key: omni-credentials keygen",
    "scope": "pass the scope as JSON: {\"all\": true}",
    "value": "set the value again, or restore a good version of the file",
    "locked": "if no process is using the file: rm {lock}",
    "principal": "set principal=, PGUSER or USER",
    "ambiguous": "choose one with kind=, principal= or scope=",
    "conflict": "keep one side: store.save(prefer=\"ours\"), or store.save(prefer=\"theirs\")",
    "wrapping": "with the secret to keep, choose its side: store.save(prefer=\"ours\"), or store.save(prefer=\"theirs\")",
}

# What to do about a refused file; for the other cases, HINTS["file"].
FILE_HINTS: dict[str, str] = {
    "wrong-master-secret": "check secret=, which has precedence over env_var=, which has precedence over its _FILE companion",
    "unknown-version": "install a newer omni-credentials, or name a newer module: module=FILE",
    "unknown-suite": "name a module of that suite: module=FILE",
    "carriage-return": "let git keep its lines as they are: omni-credentials init --git --file {file}, then git checkout {file}",
    "conflict-markers": "finish the merge: omni-credentials merge --file {file}",
    "not-a-credentials-file": "create one elsewhere: Store.create(PATH, SECRET); {file} is left as it is",
}

# Why a credential is in conflict, by the contract's `file-store.reason`.
CONFLICTS: dict[str, str] = {
    "both-changed": "changed by both",
    "ours-deleted": "deleted by ours, changed by theirs",
    "theirs-deleted": "deleted by theirs, changed by ours",
    "ancestor-unknown": "deleted by one side, and the common ancestor is not known",
    "deletion-forgotten": "missing on one side, which no longer knows what was deleted",
    "unreadable": "does not open on either side",
}
