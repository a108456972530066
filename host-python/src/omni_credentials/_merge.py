"""Merging unsaved changes with what the file has become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .errors import MergeConflict, Refusal
from .identity import Identity
from .module import Entry, Module, RawIdentity

if TYPE_CHECKING:
    from ._contents import Contents


def rebase(
    module: Module,
    base: Contents,
    theirs: Contents,
    pending: dict[Identity, Entry],
    prefer: Literal["ours", "theirs"] | None,
) -> dict[Identity, Entry]:
    """The changes that `theirs` lacks: those that were made to `base`, and what `base` has and `theirs` knows nothing
    of.

    Raises `MergeConflict` where both changed the same credentials, unless one is preferred.
    """
    with module.files() as files:
        ours_document = files.parse(base.file)
        files.put(ours_document, [_sealed_anew(base, theirs, entry) for entry in pending.values()])
        base_document = files.parse(base.file)
        files.put(base_document, _only_encrypted_anew(base, theirs, pending))
        merged = files.merge(
            files.manifest(base_document),
            ours_document,
            files.parse(theirs.file),
            files.unlock(theirs.keyring_bytes, theirs.kek),
            prefer=prefer or "neither",
        )
    if merged.conflicts and prefer is None:
        conflicts = [Identity.from_raw(raw) for raw in merged.conflicts]
        raise MergeConflict("both sides changed " + "; ".join(str(it) for it in conflicts), conflicts)
    lacking = [_sealed_anew(base, theirs, entry) for entry in merged.to_theirs]
    return {Identity.from_raw(entry.identity): entry for entry in lacking}


def _sealed_anew(base: Contents, theirs: Contents, entry: Entry) -> Entry:
    """A record that was sealed under the keyring of `base`, for that of `theirs`. One that does not open stays as it
    is."""
    if entry.deleted or base.keyring_bytes == theirs.keyring_bytes:
        return entry
    value = _value(base, entry.identity, entry.sealed)
    return entry if value is None else entry._replace(sealed=theirs.keyring.seal(entry.identity, value))


def _only_encrypted_anew(base: Contents, theirs: Contents, pending: dict[Identity, Entry]) -> list[Entry]:
    """A merge compares sealed values, so after a rotation every value looks changed. These records of theirs have the
    value that they had in `base`."""
    found = []
    for identity in pending:
        before, now = base.entries.get(identity), theirs.entries.get(identity)
        if before is None or now is None or before.deleted or now.deleted or before.sealed == now.sealed:
            continue
        value = _value(base, before.identity, before.sealed)
        if value is not None and value == _value(theirs, now.identity, now.sealed):
            found.append(now)
    return found


def _value(contents: Contents, identity: RawIdentity, sealed: bytes) -> bytes | None:
    try:
        return contents.keyring.open(identity, sealed)
    except Refusal:
        return None
