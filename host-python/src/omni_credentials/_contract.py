"""The contract `omni:credentials@1.0.0`, as wit/ has it: what is called, with what, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ._error_table import CONFLICTS, EXPLANATIONS
from ._values import Bool, Borrow, Bytes, Enum, Integer, ListOf, Nothing, Option, Own, Record, Result, String, Type
from .errors import Refusal
from .identity import RawIdentity

CONTRACT = "omni:credentials@1.0.0"


class Entry(NamedTuple):
    """`file-store.entry`: a record of a document. `sealed` is empty for a tombstone."""

    identity: RawIdentity
    # Seconds since 1970, as it was sealed; none for a tombstone.
    expires: int | None
    sealed: bytes
    deleted: bool


class Conflict(NamedTuple):
    """`file-store.conflict`: a credential that both sides changed in different ways, and why that is a conflict."""

    identity: RawIdentity
    reason: str


class Costs(NamedTuple):
    """`key-derivation.costs`: Argon2id (RFC 9106). Memory is 8 × lanes to 262,144 KiB, passes 1 to 16, lanes 1 to 4."""

    memory_kib: int
    passes: int
    lanes: int


class Suite(NamedTuple):
    """`module-info.suite`: its number in sealed values, and its name in FORMAT.md."""

    id: int
    name: str


class Limits(NamedTuple):
    """`module-info.limits`, in bytes or in pieces; FORMAT.md §9 lists them."""

    name_bytes: int
    scope_bytes: int
    value_bytes: int
    file_bytes: int
    file_records: int
    keyring_keys: int
    kdf_memory_kib: int


class Description(NamedTuple):
    """`module-info.description`: what a module says of itself. Its word only: what it is, is its digest."""

    name: str
    version: str
    contract: str
    suite: Suite
    limits: Limits


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """An export: its interface and name, its parameters, and its result."""

    interface: str
    name: str
    parameters: Sequence[tuple[str, Type]]
    result: Type
    # Whether whole files pass through it.
    bulk: bool = False

    @property
    def results(self) -> int:
        """How many results it has: one, or none."""
        return 0 if isinstance(self.result, Nothing) else 1

    def __str__(self) -> str:
        interface = self.interface.removeprefix("omni:credentials/").partition("@")[0]
        return f"{interface}.{self.name.rpartition(']')[2]}"


def _fields(make: type[tuple[Any, ...]], *types: Type) -> Record:
    """A record whose fields are called as those of `make`."""
    names = [name.replace("_", "-") for name in make._fields]  # type: ignore[attr-defined] # a NamedTuple's
    return Record(make, list(zip(names, types, strict=True)))


_U8, _U32, _U64, _BOOL, _BYTES, _STRING = Integer(8), Integer(32), Integer(64), Bool(), Bytes(), String()
_ERROR, _REASON = Enum(list(EXPLANATIONS)), Enum(list(CONFLICTS))
_FAILURE = Record(Refusal, [("error", _ERROR), ("line", _U32), ("found", _U64)])
_IDENTITY = _fields(RawIdentity, _BYTES, _BYTES, _BYTES, _BYTES)
_EXPIRES = Option(_U64)
_ENTRY = _fields(Entry, _IDENTITY, _EXPIRES, _BYTES, _BOOL)
_COSTS = _fields(Costs, _U32, _U32, _U32)
_KEY = Enum(["current", "known", "unknown"])
_PREFERENCE = Enum(["neither", "ours", "theirs"])


class RawProtectedKeyring(NamedTuple):
    """`key-derivation.protected-keyring`."""

    keyring: bytes
    kek: bytes


class RawReconciled(NamedTuple):
    """`file-store.reconciled`."""

    document: Any
    keyring: Any
    wrapping: str
    to_ours: list[Entry]
    to_theirs: list[Entry]
    conflicts: list[Conflict]


_PROTECTED = _fields(RawProtectedKeyring, _BYTES, _BYTES)
_WRAPPING = Enum(["same", "ours", "theirs", "conflict"])
_CONFLICT = _fields(Conflict, _IDENTITY, _REASON)
_RECONCILED = _fields(
    RawReconciled, Own("document"), Own("keyring"), _WRAPPING, ListOf(_ENTRY), ListOf(_ENTRY), ListOf(_CONFLICT)
)


def _fallible(ok: Type | None) -> Result:
    return Result(ok, _FAILURE, lambda refusal: refusal)


def _interface(name: str) -> str:
    return f"omni:credentials/{name}@1.0.0"


class _Interface:
    """Makes the functions of an interface, and of a resource in it."""

    def __init__(self, name: str, resource: str = "") -> None:
        self._name = name
        self._resource = resource

    def function(self, name: str, result: Type, /, *, bulk: bool = False, **parameters: Type) -> Function:
        return self._make(name, result, bulk, parameters)

    def static(self, name: str, result: Type, /, *, bulk: bool = False, **parameters: Type) -> Function:
        return self._make(f"[static]{self._resource}.{name}", result, bulk, parameters)

    def method(self, name: str, result: Type, /, *, bulk: bool = False, **parameters: Type) -> Function:
        own = {"self": Borrow(self._resource)}
        return self._make(f"[method]{self._resource}.{name}", result, bulk, own | parameters)

    def _make(self, name: str, result: Type, bulk: bool, parameters: dict[str, Type]) -> Function:
        named = [(parameter.replace("_", "-"), type_) for parameter, type_ in parameters.items()]
        function = Function(_interface(self._name), name, named, result, bulk)
        FUNCTIONS.append(function)
        return function


# Every function that this package calls.
FUNCTIONS: list[Function] = []

_info = _Interface("module-info")
DESCRIBE = _info.function(
    "describe",
    _fields(
        Description,
        _STRING,
        _STRING,
        _STRING,
        _fields(Suite, _U8, _STRING),
        _fields(Limits, _U32, _U32, _U32, _U32, _U32, _U32, _U32),
    ),
)

_derivation = _Interface("key-derivation")
CREATE_KEYRING = _derivation.function("create-keyring", _fallible(_PROTECTED), secret=_BYTES, costs=Option(_COSTS))
DERIVE_KEK = _derivation.function("derive-kek", _fallible(_BYTES), secret=_BYTES, keyring=_BYTES)
REWRAP = _derivation.function(
    "rewrap", _fallible(_PROTECTED), keyring=_BYTES, kek=_BYTES, new_secret=_BYTES, costs=Option(_COSTS)
)
GENERATE_MASTER_KEY = _derivation.function("generate-master-key", _fallible(_BYTES))

_keyring = _Interface("encryption", "keyring")
UNLOCK = _keyring.static("unlock", _fallible(Own("keyring")), keyring=_BYTES, kek=_BYTES)
SEAL = _keyring.method("seal", _fallible(_BYTES), identity=_BYTES, expires=_EXPIRES, value=_BYTES)
OPEN = _keyring.method("open", _fallible(_BYTES), identity=_BYTES, expires=_EXPIRES, sealed=_BYTES)
RESEAL = _keyring.method("reseal", _fallible(_BYTES), identity=_BYTES, expires=_EXPIRES, sealed=_BYTES)
KEY_OF = _keyring.method("key-of", _fallible(_KEY), sealed=_BYTES)
TO_BYTES = _keyring.method("to-bytes", _BYTES)
ADD_KEY = _keyring.method("add-key", _fallible(None))
UNITE = _keyring.method("unite", _fallible(_U32), other=Borrow("keyring"))
CANONICAL = _keyring.function("canonical", _fallible(_IDENTITY), identity=_IDENTITY)

_document = _Interface("file-store", "document")
CREATE = _document.static("create", _fallible(Own("document")), keyring=_BYTES)
PARSE = _document.static("parse", _fallible(Own("document")), file=_BYTES, bulk=True)
PARSE_UNSEALED = _document.static("parse-unsealed", _fallible(Own("document")), file=_BYTES, bulk=True)
KEYRING_BYTES = _document.method("keyring-bytes", _BYTES)
SET_KEYRING = _document.method("set-keyring", _fallible(None), keyring=_BYTES)
VERIFY = _document.method("verify", _fallible(None), keyring=Borrow("keyring"))
GENERATION = _document.method("generation", _U64)
ENTRIES = _document.method("entries", ListOf(_ENTRY), bulk=True)
PUT = _document.method("put", _fallible(None), entries=ListOf(_ENTRY), bulk=True)
TABLE = _document.method("table", _fallible(Own("document")), rows=_BYTES, bulk=True)
TABLE_CHANGES = _document.method("table-changes", _fallible(Own("document")), gone=_BYTES, rows=_BYTES, bulk=True)
FORGET_DELETIONS = _document.method("forget-deletions", Nothing())
RETIRE_KEYS = _document.method("retire-keys", _fallible(_U32), keyring=Borrow("keyring"))
MANIFEST = _document.method("manifest", _BYTES, bulk=True)
MATCHES = _document.method("matches", _fallible(_BOOL), manifest=_BYTES, bulk=True)
WRITE = _document.method("write", _fallible(_BYTES), keyring=Borrow("keyring"), at_least=_U64, bulk=True)
REWRITE = _document.method("rewrite", _fallible(_BYTES), keyring=Borrow("keyring"), at_least=_U64, bulk=True)
RECONCILE = _document.function(
    "reconcile",
    _fallible(_RECONCILED),
    ancestor=_BYTES,
    ours=Borrow("document"),
    our_keyring=Borrow("keyring"),
    theirs=Borrow("document"),
    their_keyring=Borrow("keyring"),
    ours_complete=_BOOL,
    prefer=_PREFERENCE,
    bulk=True,
)
AGREED = _document.function(
    "agreed", _fallible(_BYTES), ancestor=_BYTES, ours=Borrow("document"), theirs=Borrow("document"), generation=_U64, bulk=True
)
SETTLED = _document.function(
    "settled", _fallible(_BYTES), confirmed=_BYTES, pending=_BYTES, file=Borrow("document"), bulk=True
)
AGREED_CHANGES = _document.function(
    "agreed-changes",
    _fallible(_BYTES),
    ancestor=_BYTES,
    ours=Borrow("document"),
    theirs=Borrow("document"),
    generation=_U64,
    bulk=True,
)
FOLD = _document.function("fold", _fallible(_BYTES), manifest=_BYTES, bulk=True)

_primitives = _Interface("primitives")
AEAD_OPEN = _primitives.function("aead-open", _fallible(_BYTES), key=_BYTES, nonce=_BYTES, aad=_BYTES, sealed=_BYTES)
HKDF_SHA256 = _primitives.function(
    "hkdf-sha256", _fallible(_BYTES), ikm=_BYTES, salt=_BYTES, info=_BYTES, length=_U32
)
ARGON2ID = _primitives.function(
    "argon2id",
    _fallible(_BYTES),
    password=_BYTES,
    salt=_BYTES,
    memory_kib=_U32,
    passes=_U32,
    lanes=_U32,
    length=_U32,
)

# The types that the functions with `bulk` use, by the interface that has them; a resource is none.
TYPES: dict[str, dict[str, Type | None]] = {
    _interface("types"): {"error": _ERROR, "failure": _FAILURE, "identity": _IDENTITY},
    _interface("encryption"): {"keyring": None},
    _interface("file-store"): {
        "document": None,
        "entry": _ENTRY,
        "preference": _PREFERENCE,
        "wrapping": _WRAPPING,
        "reason": _REASON,
        "conflict": _CONFLICT,
        "reconciled": _RECONCILED,
    },
}
