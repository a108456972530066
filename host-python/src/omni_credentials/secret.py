"""The master secret, found the same way by every host."""

from __future__ import annotations

import os

from . import _file
from .errors import InvalidInput, MissingInput

DEFAULT_VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"

# The longest file that is read, in bytes: the longest secret and a line end.
_MAX_FILE = 4096 + 2


def find(secret: str | bytes | None, variable: str, folder: str | None = None) -> bytes:
    """The secret that is given; otherwise that of environment variable `variable`, or of the file that
    `variable`_FILE names. A relative name of a file starts in `folder`. An empty variable counts as not set if there is
    a `variable`_FILE. It is not checked here whether a module accepts it.

    Raises `MissingInput` if neither is set, `InvalidInput` for what cannot be the name of a variable and for text that
    has no UTF-8, and `FileError` for a file that cannot be read or is longer than a secret can be.
    """
    if secret is not None:
        return encode(secret)
    found = _from_environment(variable, folder)
    if found is None:
        raise MissingInput(
            f"the master secret is needed, but {variable} is not set",
            hint=f"export {variable}=..., or {variable}_FILE with the name of a file that holds it",
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
    secret = _file.read(path, _MAX_FILE)
    if secret.endswith(b"\n"):
        secret = secret[:-1].removesuffix(b"\r")
    return secret


def _from_environment(variable: str, folder: str | None) -> bytes | None:
    if not variable or "=" in variable or "\0" in variable:
        raise InvalidInput(f"{variable!r} is not the name of an environment variable")
    name = os.fsencode(variable)
    value, path = os.environb.get(name), os.environb.get(name + b"_FILE")
    if path and not value:
        return from_file(os.path.join(folder or "", os.fsdecode(path)))
    return value
