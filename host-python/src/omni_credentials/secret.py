"""The master secret, found the same way by every host."""

from __future__ import annotations

import os

from . import _file
from .errors import InvalidInput, MissingInput

DEFAULT_VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD"

# The longest file that is read, in bytes: the longest secret and a line end.
_MAX_FILE = 4096 + 2


def find(secret: str | bytes | None, variable: str) -> bytes:
    """The secret that is given; otherwise that of environment variable `variable`, or of the file that
    `variable`_FILE names. Whether it is one that a module takes is not looked at.

    Raises `MissingInput` where there is none, `InvalidInput` for what cannot be the name of a variable, and `FileError`
    for a file that cannot be read or is longer than a secret can be.
    """
    if secret is not None:
        return encode(secret)
    found = _from_environment(variable)
    if found is None:
        raise MissingInput(
            f"the master secret is needed, but {variable} is not set",
            hint=f"export {variable}=..., or {variable}_FILE with the name of a file that holds it",
        )
    return found


def encode(secret: str | bytes) -> bytes:
    """A secret as bytes; text is UTF-8."""
    return secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else bytes(secret)


def from_file(path: str) -> bytes:
    """The secret in a file: all of it but one trailing line end."""
    secret = _file.read(path, _MAX_FILE)
    if secret.endswith(b"\n"):
        secret = secret[:-1].removesuffix(b"\r")
    return secret


def _from_environment(variable: str) -> bytes | None:
    if not variable or "=" in variable or "\0" in variable:
        raise InvalidInput(f"{variable!r} is not the name of an environment variable")
    name = os.fsencode(variable)
    if (value := os.environb.get(name)) is not None:
        return value
    if (path := os.environb.get(name + b"_FILE")) is not None:
        return from_file(os.fsdecode(path))
    return None
