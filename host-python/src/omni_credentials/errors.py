"""What can go wrong: one class for each kind of failure, all of them `CredentialsError`.

The classes are those of the command's exit statuses (docs/cli.md). No message holds a secret or a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath

from ._error_table import CONFLICTS, EXPLANATIONS, FILE_HINTS, HINTS
from .identity import Identity


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
    """The file does not exist, already exists, or is not accessible. `path` is the file, `fault` a word for what is
    wrong with it: one of those of `FAULTS`."""

    def __init__(
        self, path: str | PathLike[str], fault: str, detail: str | None = None, *, hint: str | None = None
    ) -> None:
        super().__init__(f"{fspath(path)}: {detail or FAULTS[fault]}", hint=hint or _file_hint(fspath(path), fault))
        self.path = fspath(path)
        self.fault = fault


class DamagedFile(CredentialsError):
    """The file is damaged, was altered, holds conflict markers, or is not a credentials file."""


class NeedsNewer(CredentialsError):
    """The file needs a newer version or another crypto module."""


class MissingInput(CredentialsError):
    """Neither the call nor the environment gives the master secret, or the principal."""


class SecretCommandError(CredentialsError):
    """The program that prints the master secret gave none. `variable` is what names it, `program` the program, `printed`
    the end of what it wrote to standard error."""

    def __init__(self, variable: str, reason: str, program: str, printed: str) -> None:
        message = f"{variable}: {reason}" + (f": {program}" if program else "")
        if printed:
            message += f", which said: {printed}"
        super().__init__(message, hint=f"run the program of {variable} at the shell; it gets no input and no terminal")
        self.variable = variable
        self.program = program
        self.printed = printed


class WrongMasterSecret(CredentialsError):
    """The master secret is wrong or not valid."""


class FileLocked(CredentialsError):
    """Another process held the lock until the wait ended. `holder` names the process, `lock` the lock file."""

    def __init__(self, path: str, holder: str, lock: str) -> None:
        message = f"{path}: is locked by {holder}; if no such process is running, remove {lock}"
        super().__init__(message, hint=HINTS["locked"].replace("{lock}", lock))
        self.path = path
        self.holder = holder
        self.lock = lock


class MergeConflict(CredentialsError):
    """This store and the file changed the same credentials, in different ways; `credentials` holds them. `reasons` has
    the reason for each: `both-changed`, `ours-deleted`, `theirs-deleted`, `ancestor-unknown`, `deletion-forgotten` or
    `unreadable`. Ours is this store, theirs the file."""

    def __init__(self, message: str, reasons: Mapping[Identity, str]) -> None:
        super().__init__(message, hint=HINTS["conflict"])
        self.reasons = dict(reasons)
        self.credentials = tuple(self.reasons)


class MasterSecretConflict(CredentialsError):
    """Both sides changed the master secret: choose the one to keep. `path` is the file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"both sides changed the master secret of {path}", hint=HINTS["wrapping"])
        self.path = path


class InvalidInput(CredentialsError, ValueError):
    """A name, kind, principal, scope, value or another argument is not valid."""


class ModuleError(CredentialsError):
    """The crypto module was refused or failed. After a failure the next call gets a fresh instance."""


class UnreadableValue(CredentialsError):
    """The value of a credential does not open: it was altered, or its key is missing. `credential` says which."""

    def __init__(self, message: str, credential: Identity, refusal: Refusal) -> None:
        super().__init__(message, hint=HINTS["value"], code=refusal.code, line=refusal.line, found=refusal.found)
        self.credential = credential


class OlderFile(UserWarning):
    """A warning: a file went back to an earlier generation, so that an older version of it was put in place. What this
    version lacks stays in the store only as far as it is an unsaved change."""


# What can be wrong with a file.
FAULTS: dict[str, str] = {
    "not-found": "no such file",
    "exists": "already exists",
    "no-folder": "the folder does not exist",
    "is-directory": "is a directory",
    "not-regular": "is not a regular file",
    "no-permission": "permission denied",
    "read-only": "the file system is read-only",
    "no-space": "no space left",
    "too-long": "is longer than a credentials file can be",
    "link-loop": "too many symbolic links",
    "mount-point": "is a mount point, which cannot be replaced: mount its folder instead",
    "foreign-link": "goes through a symbolic link of another account",
    "other": "the system refused",
}


def _copy(kind: type[CredentialsError], arguments: tuple[object, ...], state: dict[str, object]) -> CredentialsError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


def merge_conflict(reasons: Mapping[Identity, str]) -> MergeConflict:
    """The error that names each credential in conflict, and says why it is."""
    listed = "; ".join(f"{identity} ({CONFLICTS[reason]})" for identity, reason in reasons.items())
    return MergeConflict(f"the two sides do not agree on {listed}", reasons)


def of_file(path: str, refusal: Refusal) -> CredentialsError:
    """What a refusal of a file's bytes, or of its keyring, means."""
    match refusal.code:
        case "wrong-master-secret":
            return _meaning(WrongMasterSecret, refusal, f"{path}: {refusal}", _damage_hint(path, refusal.code))
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
    hint = HINTS["scope"] if refusal.code == "invalid-scope" else None
    return _meaning(InvalidInput, refusal, f"{subject}: {refusal}", hint)


def invalid_secret(refusal: Refusal) -> CredentialsError:
    """The secret cannot be one."""
    return _meaning(WrongMasterSecret, refusal, str(refusal), HINTS["secret"])


def _meaning(
    kind: type[DamagedFile | NeedsNewer | WrongMasterSecret | InvalidInput],
    refusal: Refusal,
    message: str,
    hint: str | None,
) -> CredentialsError:
    return kind(message, hint=hint, code=refusal.code, line=refusal.line, found=refusal.found)


def _damage_hint(path: str, code: str | None) -> str:
    return FILE_HINTS.get(code or "other", HINTS["file"]).replace("{file}", path)


def _file_hint(path: str, fault: str) -> str | None:
    match fault:
        case "not-found":
            return f"create it: Store.create({path!r}, SECRET), or omni-credentials init --file {path}"
        case "exists":
            return f"open it: Store.open({path!r})"
        case "no-permission":
            return f"check its permissions: ls -l {path}"
        case _:
            return None
