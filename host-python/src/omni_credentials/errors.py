"""What can go wrong: one class for each kind of failure, all of them `CredentialsError`.

The classes are those of the command's exit statuses (docs/cli.md). No message holds a secret or a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .identity import Identity

# The contract's `types.error` and what each case means, as the rest of a message; then, where `found` means something,
# what stands before it.
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
    "not-canonical": ("this is not the one way to write it", None),
    "unsorted": ("the records are out of order", None),
    "duplicate-record": ("two records are of one credential", None),
    "count-mismatch": ("the trailer's count is not the number of records", "records: "),
    "seal-mismatch": ("the file was altered: its seal does not match", None),
    "invalid-argument": ("the arguments do not belong together", None),
    "other": ("the crypto module refused without a known reason", None),
}


class CredentialsError(Exception):
    """What every error of this package is.

    `code` is the contract's name for it, such as `seal-mismatch`, where the crypto module refused; `line` the line of
    the file, counted from 1, and `found` what was found, where the contract has them, and otherwise 0. `hint` says what
    to do about it: where possible, the exact command.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, line: int = 0, found: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.line = line
        self.found = found
        if hint is not None:
            self.add_note(f"hint: {hint}")

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # To be raised again in another process.
        return _copy, (type(self), self.args, self.__dict__)


class Refusal(CredentialsError):
    """The crypto module refused a call. Only the low-level layer raises it; `Store` says what it means."""

    def __init__(self, code: str, line: int, found: int) -> None:
        explanation, unit = EXPLANATIONS.get(code, EXPLANATIONS["other"])
        place = f"line {line}: " if line else ""
        detail = f" ({unit}{found})" if unit else ""
        super().__init__(f"{place}{explanation}{detail}", code=code, line=line, found=found)


class CredentialNotFound(CredentialsError, KeyError):
    """There is no such credential."""


class AmbiguousCredential(CredentialsError, LookupError):
    """Several credentials share the name; `credentials` holds them."""

    def __init__(self, message: str, credentials: Sequence[Identity], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.credentials = tuple(credentials)


class FileError(CredentialsError):
    """The file does not exist, exists already, or cannot be reached. `path` is the file, `fault` a word for what is
    wrong with it: one of those of `FAULTS`."""

    def __init__(
        self, path: str | PathLike[str], fault: str, detail: str | None = None, *, hint: str | None = None
    ) -> None:
        super().__init__(f"{fspath(path)}: {detail or FAULTS[fault]}", hint=hint or _file_hint(fspath(path), fault))
        self.path = fspath(path)
        self.fault = fault


class DamagedFile(CredentialsError):
    """The file is damaged, was altered, holds conflict markers, or is no credentials file."""


class NeedsNewer(CredentialsError):
    """The file needs a newer version or another crypto module."""


class MissingInput(CredentialsError):
    """The master secret, or whose credential it is, is neither given nor in the environment."""


class WrongMasterSecret(CredentialsError):
    """The master secret is not this file's, or cannot be one."""


class FileLocked(CredentialsError):
    """Another process holds the lock and did so until the time was up. `holder` says who, `lock` is the lock file."""

    def __init__(self, path: str, holder: str, lock: str) -> None:
        message = f"{path}: is locked by {holder}; if no such process is at work on it, remove {lock}"
        super().__init__(message, hint=f"if nobody is at work on it: rm {lock}")
        self.path = path
        self.holder = holder
        self.lock = lock


class MergeConflict(CredentialsError):
    """This store and the file changed the same credentials, in different ways; `credentials` holds them."""

    def __init__(self, message: str, credentials: Sequence[Identity]) -> None:
        hint = 'keep one side: store.save(prefer="ours"), or store.save(prefer="theirs")'
        super().__init__(message, hint=hint)
        self.credentials = tuple(credentials)


class InvalidInput(CredentialsError, ValueError):
    """A name, a kind, a principal, a scope, a value or another argument is not valid."""


class ModuleError(CredentialsError):
    """The crypto module was refused or failed. After a failure the next call gets a fresh instance."""


class UnreadableValue(CredentialsError):
    """The value of a credential does not open: it was altered, or its key is missing. `credential` says which."""

    def __init__(self, message: str, credential: Identity, refusal: Refusal) -> None:
        hint = "set it anew, or go back to a sound version of the file"
        super().__init__(message, hint=hint, code=refusal.code, line=refusal.line, found=refusal.found)
        self.credential = credential


# What can be wrong with a file.
FAULTS: dict[str, str] = {
    "not-found": "no such file",
    "exists": "exists already",
    "no-folder": "the folder does not exist",
    "is-directory": "is a directory",
    "not-regular": "is not a regular file",
    "no-permission": "permission denied",
    "read-only": "the file system is read-only",
    "no-space": "no space left",
    "too-long": "is longer than a credentials file can be",
    "link-loop": "too many symbolic links",
    "other": "the system refused",
}


def _copy(kind: type[CredentialsError], arguments: tuple[object, ...], state: dict[str, object]) -> CredentialsError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


def of_file(path: str, refusal: Refusal) -> CredentialsError:
    """What a refusal of a file's bytes, or of its keyring, means."""
    match refusal.code:
        case "wrong-master-secret":
            return _meaning(WrongMasterSecret, refusal, f"{path}: {refusal}", _SECRET_HINT)
        case "invalid-master-secret":
            return invalid_secret(refusal)
        case "unknown-version" | "unknown-suite":
            return _meaning(NeedsNewer, refusal, f"{path}: {refusal}", _damage_hint(path, refusal.code))
        case code:
            return _meaning(DamagedFile, refusal, f"{path}: {refusal}", _damage_hint(path, code))


def of_argument(subject: str, refusal: Refusal) -> CredentialsError:
    """What a refusal of an argument means; `subject` says which."""
    if refusal.code == "invalid-master-secret":
        return invalid_secret(refusal)
    hint = 'a scope is JSON: {"all": true}' if refusal.code == "invalid-scope" else None
    return _meaning(InvalidInput, refusal, f"{subject}: {refusal}", hint)


def invalid_secret(refusal: Refusal) -> CredentialsError:
    """The secret cannot be one."""
    return _meaning(WrongMasterSecret, refusal, str(refusal), "a new generated key: omni-credentials keygen")


_SECRET_HINT = "see which secret is used: secret= goes before env_var=, and env_var= before its _FILE companion"


def _meaning(
    kind: type[DamagedFile | NeedsNewer | WrongMasterSecret | InvalidInput],
    refusal: Refusal,
    message: str,
    hint: str | None,
) -> CredentialsError:
    return kind(message, hint=hint, code=refusal.code, line=refusal.line, found=refusal.found)


def _damage_hint(path: str, code: str | None) -> str:
    match code:
        case "unknown-version":
            return "install a newer omni-credentials, or name a newer module: module=FILE"
        case "unknown-suite":
            return "name a module of that suite: module=FILE"
        case "conflict-markers":
            return f"finish the merge: omni-credentials merge --file {path}"
        case "not-a-credentials-file":
            return f"to make one elsewhere: Store.create(PATH, SECRET); {path} is left as it is"
        case "carriage-return":
            return (
                f"let git keep its lines as they are: omni-credentials init --git --file {path}, "
                f"then git checkout {path}"
            )
        case _:
            return f"go back to a sound version: git checkout HEAD -- {path}"


def _file_hint(path: str, fault: str) -> str | None:
    match fault:
        case "not-found":
            return f"a new one: Store.create({path!r}, SECRET), or omni-credentials init --file {path}"
        case "exists":
            return f"open it: Store.open({path!r})"
        case "no-permission":
            return f"ls -l {path}"
        case _:
            return None
