"""What a credentials file holds: read, unlocked, and its seal checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from .errors import CredentialsError, Refusal, UnreadableValue, of_argument, of_file
from .identity import Identity
from .module import Entry, Kek, Keyring, Module


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """What a file held when it was read. Its keyring is unlocked, and its seal was right."""

    file: bytes
    generation: int
    entries: dict[Identity, Entry]
    keyring_bytes: bytes
    kek: Kek
    keyring: Keyring


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
    return Contents(file, generation, entries, keyring_bytes, kek, keyring)


def close_replaced(contents: Contents, by: Contents) -> None:
    """Returns the memory of a keyring, unless it is used on."""
    if contents.keyring is not by.keyring:
        contents.keyring.close()


def open_value(keyring: Keyring, identity: Identity, sealed: bytes) -> bytes:
    """Raises `UnreadableValue` for a value that does not open."""
    try:
        return keyring.open(identity.raw(), sealed)
    except Refusal as refusal:
        raise UnreadableValue(f"{identity}: {refusal}", identity, refusal) from None


def refusals_of_file(path: str) -> _Meaning:
    """In such a block, a refusal is about the file."""
    return _Meaning(of_file, path)


def refusals_of_argument(subject: str) -> _Meaning:
    """In such a block, a refusal is about an argument; `subject` says which."""
    return _Meaning(of_argument, subject)


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
