"""The master secret, found the same way by every host."""

from __future__ import annotations

import os

from . import _command, _file
from .errors import InvalidInput, MissingInput

DEFAULT_VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"

# The longest file that is read, in bytes: the longest secret and a line end.
_MAX_FILE = 4096 + 2


def find(secret: str | bytes | None, variable: str, folder: str | None = None) -> bytes:
    """The secret that is given; otherwise that of environment variable `variable`, or of the file that `variable`_FILE
    names, or what the program prints that `variable`_COMMAND names. A relative name of a file starts in `folder`, where
    the program runs as well. An empty variable counts as not set if another one is set. It is not checked here whether a
    module accepts it.

    Raises `MissingInput` if none is set, `InvalidInput` for what cannot be the name of a variable, for text that has no
    UTF-8, and if a file and a program are named, `FileError` for a file that cannot be read or is longer than a secret can
    be, and `SecretCommandError` if the program gives no secret.
    """
    if secret is not None:
        return encode(secret)
    found = _from_environment(variable, folder)
    if found is None:
        raise MissingInput(
            f"the master secret is needed, but {variable} is not set",
            hint=f"export {variable}=..., or {variable}_FILE with the name of a file that holds it, or"
            f" {variable}_COMMAND with a program that prints it",
        )
    return found


def encode(secret: str | bytes) -> bytes:
    """A secret as bytes; text is UTF-8."""
    if not isinstance(secret, str):
        return bytes(secret)
    encoded = encoded_or_none(secret, "surrogateescape")
    if encoded is None:
        raise InvalidInput("the master secret has half a surrogate pair, which has no UTF-8", code="not-text")
    return encoded


def encoded_or_none(text: str, errors: str = "strict") -> bytes | None:
    """UTF-8, or nothing for text that has none. Python's own error would hold the text, and show it."""
    try:
        return text.encode("utf-8", errors)
    except UnicodeEncodeError:
        return None


def from_file(path: str) -> bytes:
    """The secret in a file: all of it but one trailing line end."""
    return _without_line_end(_file.read(path, _MAX_FILE))


def _without_line_end(secret: bytes) -> bytes:
    return secret[:-1].removesuffix(b"\r") if secret.endswith(b"\n") else secret


def _from_environment(variable: str, folder: str | None) -> bytes | None:
    if not variable or "=" in variable or "\0" in variable:
        raise InvalidInput(f"{variable!r} is not the name of an environment variable")
    name = os.fsencode(variable)
    value, path, command = (os.environb.get(name + ending) for ending in (b"", b"_FILE", b"_COMMAND"))
    if value or not (path or command):
        return value
    if path and command:
        raise InvalidInput(
            f"{variable}_FILE and {variable}_COMMAND are both set",
            hint=f"unset {variable}_FILE, or: unset {variable}_COMMAND",
        )
    if path:
        return from_file(os.path.join(folder or "", os.fsdecode(path)))
    return _without_line_end(_command.run(command or b"", variable, folder, _MAX_FILE))
