"""What a credentials file holds: read, unlocked, and its seal checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from .errors import (
    CredentialsError,
    MasterSecretConflict,
    Refusal,
    UnreadableValue,
    merge_conflict,
    of_argument,
    of_file,
)
from .identity import Identity
from .module import Entry, Kek, Keyring, Module, ProtectedKeyring, Side


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """What a file held when it was read. Its keyring is unlocked, and its seal was right."""

    file: bytes
    generation: int
    entries: dict[Identity, Entry]
    # That of the file, or the one that the next writing puts into its header.
    keyring_bytes: bytes
    kek: Kek
    keyring: Keyring
    # The KEK of the keyring in the file.
    file_kek: Kek
    # Whether `keyring_bytes` is another keyring than that of the file.
    rekeyed: bool = False


def read(
    module: Module,
    path: str,
    file: bytes,
    kek: Kek | None,
    find_secret: Callable[[], bytes] | None,
    before: Contents | None = None,
) -> Contents:
    """Parses and unlocks a file, with a KEK if there is one and it is right, otherwise with the master secret. The
    keyring of `before` is used again if it is the same."""
    with module.files() as files, refusals_of_file(path):
        document = files.parse(file)
        keyring_bytes = files.keyring_bytes(document)
        if before is not None and before.keyring_bytes == keyring_bytes:
            kek, keyring = before.kek, before.keyring
        else:
            kek, keyring = _unlock(module, keyring_bytes, kek, find_secret)
        try:
            files.verify(document, files.unlock(keyring_bytes, kek))
            entries = {Identity.from_raw(entry.identity): entry for entry in files.entries(document)}
            generation = files.generation(document)
        except BaseException:
            if before is None or keyring is not before.keyring:
                keyring.close()
            raise
    return Contents(file, generation, entries, keyring_bytes, kek, keyring, kek)


def reseal_value(keyring: Keyring, identity: Identity, entry: Entry) -> Entry:
    """Seals a value again under the current key. Raises `UnreadableValue` for one that does not open."""
    try:
        return entry._replace(sealed=keyring.reseal(entry.identity, entry.expires, entry.sealed))
    except Refusal as refusal:
        raise UnreadableValue(f"{identity}: {refusal}", identity, refusal) from None


def reconcile(
    module: Module,
    path: str,
    ours: Contents,
    changes: Mapping[Identity, Entry],
    theirs: Contents,
    prefer: Literal["ours", "theirs"] | None,
) -> tuple[Contents, dict[Identity, Entry]]:
    """Makes the changes to `ours` changes to `theirs`, which is what the file has become. Returns theirs, with the
    keyring of both, and the changes that it lacks.

    Raises `MergeConflict` and `MasterSecretConflict`, unless one side is preferred.
    """
    with module.files() as files, refusals_of_file(path):
        document = files.parse(ours.file)
        ancestor = files.manifest(document)
        files.put(document, list(changes.values()))
        files.set_keyring(document, ours.keyring_bytes)
        found = files.reconcile(
            ancestor,
            Side(document, files.unlock(ours.keyring_bytes, ours.kek)),
            Side(files.parse(theirs.file), files.unlock(theirs.keyring_bytes, theirs.kek)),
            prefer=prefer or "neither",
        )
        keyring_bytes = files.to_bytes(found.keyring)
    if prefer is None and found.wrapping == "conflict":
        raise MasterSecretConflict(path)
    if prefer is None and found.conflicts:
        raise merge_conflict({Identity.from_raw(it.identity): it.reason for it in found.conflicts})
    ours_leads = found.wrapping == "ours" or (found.wrapping == "conflict" and prefer == "ours")
    kek = ours.kek if ours_leads else theirs.kek
    contents = _with_keyring(module, theirs, keyring_bytes, kek)
    return contents, {
        Identity.from_raw(entry.identity): _under_current_key(contents.keyring, entry) for entry in found.to_theirs
    }


def rekeyed(module: Module, contents: Contents, made: ProtectedKeyring) -> Contents:
    """The same contents, with the keyring that the next writing puts into the header."""
    return _with_keyring(module, contents, made.keyring, made.kek)


def close_replaced(contents: Contents, by: Contents) -> None:
    """Returns the memory of a keyring, unless it is used on."""
    if contents.keyring is not by.keyring:
        contents.keyring.close()


def open_value(keyring: Keyring, identity: Identity, entry: Entry) -> bytes:
    """Raises `UnreadableValue` for a value that does not open."""
    try:
        return keyring.open(entry.identity, entry.expires, entry.sealed)
    except Refusal as refusal:
        raise UnreadableValue(f"{identity}: {refusal}", identity, refusal) from None


def refusals_of_file(path: str) -> _Meaning:
    """In such a block, a refusal is about the file."""
    return _Meaning(of_file, path)


def refusals_of_argument(subject: str) -> _Meaning:
    """In such a block, a refusal is about an argument; `subject` says which."""
    return _Meaning(of_argument, subject)


def _with_keyring(module: Module, contents: Contents, keyring: bytes, kek: Kek) -> Contents:
    if keyring == contents.keyring_bytes:
        return contents
    return replace(contents, keyring_bytes=keyring, kek=kek, keyring=module.unlock(keyring, kek), rekeyed=True)


def _under_current_key(keyring: Keyring, entry: Entry) -> Entry:
    """What was sealed before a rotation is sealed again after it. A value that does not open stays as it is."""
    if entry.deleted:
        return entry
    try:
        return entry._replace(sealed=keyring.reseal(entry.identity, entry.expires, entry.sealed))
    except Refusal:
        return entry


def _unlock(
    module: Module, keyring: bytes, kek: Kek | None, find_secret: Callable[[], bytes] | None
) -> tuple[Kek, Keyring]:
    if kek is not None:
        try:
            return kek, module.unlock(keyring, kek)
        except Refusal as refusal:
            # The master secret was changed.
            if refusal.code != "wrong-master-secret" or find_secret is None:
                raise
    assert find_secret is not None, "without a KEK there is a way to a secret"
    kek = module.derive_kek(find_secret(), keyring)
    return kek, module.unlock(keyring, kek)


class _Meaning:
    """Gives a refusal in a block its meaning."""

    def __init__(self, meaning: Callable[[str, Refusal], CredentialsError], subject: str) -> None:
        self._meaning = meaning
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Refusal):
            raise self._meaning(self._subject, error) from None
