"""What a credential is called and whom it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

# What a credential is when nothing else is said; as in the database.
DEFAULT_KIND = "credential"
DEFAULT_SCOPE = '{"all":true}'

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
# Where a credential is valid: JSON as text, or the mapping that it is.
Scope: TypeAlias = str | Mapping[str, Json]


class RawIdentity(NamedTuple):
    """`types.identity`: the four fields as the contract has them, UTF-8."""

    name: bytes
    kind: bytes
    principal: bytes
    scope: bytes

    def packed(self) -> bytes:
        """`types.packed-identity`: the fields in one list, each with its length in four bytes before it."""
        return b"".join(len(field).to_bytes(4, "big") + field for field in self)


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """The four fields that a value is bound to. `scope` is JSON in canonical form, as text."""

    name: str
    kind: str
    principal: str
    scope: str

    def __str__(self) -> str:
        text = [printable(field) for field in (self.name, self.kind, self.principal, self.scope)]
        return f"{text[0]} ({text[1]} of {text[2]}, {text[3]})"

    def raw(self) -> RawIdentity:
        """As the contract has it."""
        return RawIdentity(*(_encode(field) for field in (self.name, self.kind, self.principal, self.scope)))

    @classmethod
    def from_raw(cls, raw: RawIdentity) -> Identity:
        """From what a module returned, which is UTF-8."""
        return cls(*(field.decode(errors="replace") for field in raw))


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A credential with its value, which neither `repr` nor `str` shows."""

    identity: Identity
    value: bytes
    # When it expires, in UTC; none if it does not.
    expires: datetime | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.identity.name

    @property
    def kind(self) -> str:
        """What sort of credential it is: `api_key`, `password` and so on."""
        return self.identity.kind

    @property
    def principal(self) -> str:
        """The role that it is for."""
        return self.identity.principal

    @property
    def scope(self) -> str:
        """Where it is valid: JSON in canonical form."""
        return self.identity.scope

    def __repr__(self) -> str:
        return f"Credential({self.identity!r}, value=<{len(self.value)} bytes>)"

    __str__ = __repr__


def _encode(text: str) -> bytes:
    # A lone surrogate becomes what is not UTF-8, and so the module's to refuse.
    return text.encode("utf-8", "surrogatepass")


def printable(text: str) -> str:
    """Text for a message: what is not printable is written as an escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
