"""The credentials of a file as a mapping, with the changes that are not saved yet."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import time
from collections.abc import Iterator, MutableMapping
from datetime import datetime, timedelta
from typing import TypeVar, overload

from ._contents import Contents, open_value, refusals_of_argument
from ._error_table import HINTS
from ._expiry import Expires, to_datetime, to_seconds
from ._fork import Guarded, Level
from .errors import AmbiguousCredential, CredentialNotFound, InvalidInput, MissingInput, UnreadableValue
from .identity import DEFAULT_KIND, DEFAULT_SCOPE, Credential, Identity, Scope, printable
from .module import Entry, Module, RawIdentity
from .secret import encoded_or_none

T = TypeVar("T")

# How many scopes are remembered in their canonical form.
_MAX_SCOPES = 256


class Credentials(MutableMapping[str, bytes], Guarded):
    """What a `Store` is in memory: names and values, and what is to be changed in the file."""

    def __init__(self, module: Module, contents: Contents, principal: str | None) -> None:
        Guarded.__init__(self, Level.STORE)
        self._module = module
        self._principal = principal
        self._closed = False
        self._scopes: dict[str, str] = {}
        self._adopt(contents, {})

    @property
    def changed(self) -> builtins.list[Identity]:
        """The credentials that were set or deleted and not saved yet."""
        with self._in_use():
            return sorted(self._pending)

    def list(
        self,
        name: str | None = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> builtins.list[Identity]:
        """All credentials, or those that match, sorted. No value is opened, and the store's own `principal` does not
        count here."""
        with self._in_use():
            return self._matching(name, kind, principal, scope)

    def expiring(self, within: timedelta) -> builtins.list[tuple[datetime, Identity]]:
        """The credentials that have expired or will expire within this time from now, with when, the first one first.
        No value is opened."""
        until = time.time() + within.total_seconds()
        with self._in_use():
            due = [
                (entry.expires, identity)
                for identity, entry in self._live.items()
                if entry.expires is not None and entry.expires <= until
            ]
        return [(at, identity) for expires, identity in sorted(due) if (at := to_datetime(expires)) is not None]

    def verify(self) -> builtins.list[UnreadableValue]:
        """Opens every value. Returns the errors of those that do not open; each names its credential. The seal was
        checked when the file was read."""
        unreadable = []
        with self._in_use():
            for identity in sorted(self._live):
                try:
                    open_value(self._contents.keyring, identity, self._live[identity])
                except UnreadableValue as error:
                    unreadable.append(error)
        return unreadable

    def __getitem__(self, name: str) -> bytes:
        """The value of the credential of this name."""
        return self.credential(name).value

    @overload
    def get(
        self,
        name: str,
        /,
        default: None = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> bytes | None: ...

    @overload
    def get(
        self,
        name: str,
        /,
        default: bytes | T,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> bytes | T: ...

    def get(
        self,
        name: str,
        /,
        default: object = None,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> object:
        """The value of the one credential that matches, or `default` if there is none."""
        try:
            return self.credential(name, kind=kind, principal=principal, scope=scope).value
        except CredentialNotFound:
            return default

    def credential(
        self,
        name: str,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> Credential:
        """The one credential that matches, with its value.

        Raises `CredentialNotFound`, `AmbiguousCredential`, and `UnreadableValue` for a value that does not open.
        """
        with self._in_use():
            identity = self._single(name, kind, self._whose(principal), scope)
            entry = self._live[identity]
            return Credential(identity, open_value(self._contents.keyring, identity, entry), to_datetime(entry.expires))

    def __setitem__(self, name: str, value: str | bytes) -> None:
        """As `set`."""
        self.set(name, value)

    def set(
        self,
        name: str,
        value: str | bytes,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
        expires: Expires = None,
    ) -> Identity:
        """Adds a credential or changes it; `save` writes it. Text is kept as UTF-8.

        `expires` is a `datetime` with a time zone, or a `timedelta` from now; without it the credential does not expire,
        not even if it did before. Fractions of a second are dropped.

        What is not given is that of the one credential that matches; for a new one the kind is `credential`, the scope
        `{"all":true}`, and the principal that of the store or else `$PGUSER`, `$USER` or `$LOGNAME`. Setting the
        value and expiry that it already has is no change. Returns the identity.

        Raises `AmbiguousCredential` if several match, `InvalidInput`, and `MissingInput` without a principal.
        """
        value = _bytes(value)
        second = to_seconds(expires)
        with self._in_use():
            found = self._matching(name, kind, self._whose(principal), scope)
            if len(found) > 1:
                raise _ambiguous(name, found)
            identity = found[0] if found else self._new_identity(name, kind, principal, scope)
            before = self._live.get(identity)
            if before is None or before.expires != second or self._differs(identity, before, value):
                with refusals_of_argument(str(identity)):
                    sealed = self._contents.keyring.seal(identity.raw(), second, value)
                self._change(Entry(identity.raw(), second, sealed, False), identity)
            return identity

    def __delitem__(self, name: str) -> None:
        """As `delete`."""
        self.delete(name)

    def delete(
        self,
        name: str,
        *,
        kind: str | None = None,
        principal: str | None = None,
        scope: Scope | None = None,
    ) -> Identity:
        """Deletes the one credential that matches; `save` writes it. The file remembers the deletion, so that it
        reaches databases and branches. Returns the identity.

        Raises `CredentialNotFound` and `AmbiguousCredential`.
        """
        with self._in_use():
            identity = self._single(name, kind, self._whose(principal), scope)
            known = self._contents.entries.get(identity)
            self._change(Entry(identity.raw(), None, b"", True), identity)
            if known is None or known.deleted:
                # It was never saved.
                del self._pending[identity]
            return identity

    def __contains__(self, name: object) -> bool:
        """Whether there is a credential of this name."""
        with self._in_use():
            return isinstance(name, str) and bool(self._matching(name, None, self._principal, None))

    def __iter__(self) -> Iterator[str]:
        """The names, each once, sorted."""
        with self._in_use():
            return iter(dict.fromkeys(it.name for it in self._matching(None, None, self._principal, None)))

    def __len__(self) -> int:
        """The number of names."""
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        """A store is equal to itself only: to compare two would be to open all values."""
        return self is other

    __hash__ = object.__hash__

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """One thread at a time, and none once it is closed."""
        with self._lock:
            if self._closed:
                raise InvalidInput("the store is closed", hint="open it again: Store.open(PATH)", code="closed")
            yield

    def _adopt(self, contents: Contents, pending: dict[Identity, Entry]) -> None:
        """Takes over what a file holds, and what is to be changed in it. An exception of a signal handler leaves all as
        it was: no call is made while it changes."""
        live = {identity: entry for identity, entry in contents.entries.items() if not entry.deleted}
        for identity, entry in pending.items():
            if entry.deleted:
                live.pop(identity, None)
            else:
                live[identity] = entry
        names: dict[str, set[Identity]] = {}
        for identity in live:
            names.setdefault(identity.name, set()).add(identity)
        changes = dict(pending)
        self._contents, self._pending, self._live, self._names = contents, changes, live, names

    def _change(self, entry: Entry, identity: Identity) -> None:
        self._pending[identity] = entry
        if entry.deleted:
            self._live.pop(identity, None)
            self._names.get(identity.name, set()).discard(identity)
        else:
            self._live[identity] = entry
            self._names.setdefault(identity.name, set()).add(identity)

    def _matching(
        self, name: str | None, kind: str | None, principal: str | None, scope: Scope | None
    ) -> builtins.list[Identity]:
        canonical = None if scope is None else self._canonical(scope)
        candidates = self._live if name is None else self._names.get(name, set())
        return sorted(
            identity
            for identity in candidates
            if kind in (None, identity.kind)
            and principal in (None, identity.principal)
            and canonical in (None, identity.scope)
        )

    def _single(self, name: str, kind: str | None, principal: str | None, scope: Scope | None) -> Identity:
        found = self._matching(name, kind, principal, scope)
        if not found:
            message = f"there is no credential {printable(name)}"
            raise CredentialNotFound(message, hint="list the credentials: store.list()")
        if len(found) > 1:
            raise _ambiguous(name, found)
        return found[0]

    def _new_identity(
        self, name: str, kind: str | None, principal: str | None, scope: Scope | None
    ) -> Identity:
        whose = self._whose(principal)
        return Identity(
            name,
            DEFAULT_KIND if kind is None else kind,
            _default_principal() if whose is None else whose,
            DEFAULT_SCOPE if scope is None else self._canonical(scope),
        )

    def _whose(self, principal: str | None) -> str | None:
        return self._principal if principal is None else principal

    def _canonical(self, scope: Scope) -> str:
        """The canonical form of a scope; the module knows it."""
        text = _scope_text(scope)
        canonical = self._scopes.get(text)
        if canonical is None:
            raw = RawIdentity(b"n", b"k", b"p", text.encode("utf-8", "surrogatepass"))
            with refusals_of_argument("the scope"):
                canonical = self._module.canonical(raw).scope.decode()
            if len(self._scopes) >= _MAX_SCOPES:
                self._scopes.clear()
            self._scopes[text] = canonical
        return canonical

    def _differs(self, identity: Identity, before: Entry, value: bytes) -> bool:
        try:
            return open_value(self._contents.keyring, identity, before) != value
        except UnreadableValue:
            return True


def _default_principal() -> str:
    """The principal of a new credential by default: as in libpq, the role of the session."""
    for variable in ("PGUSER", "USER", "LOGNAME"):
        if principal := os.environ.get(variable):
            return principal
    raise MissingInput(
        "no principal is given, and neither PGUSER nor USER is set", hint=HINTS["principal"]
    )


def _scope_text(scope: Scope) -> str:
    """A scope as JSON text, not yet canonical."""
    if isinstance(scope, str):
        return scope
    try:
        return json.dumps(scope, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the scope is not JSON: {error}", hint=HINTS["scope"]) from None


def _ambiguous(name: str, found: list[Identity]) -> AmbiguousCredential:
    listed = "; ".join(str(identity) for identity in found)
    return AmbiguousCredential(
        f"there are {len(found)} credentials {printable(name)}: {listed}",
        found,
        hint=HINTS["ambiguous"],
    )


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, str):
        encoded = encoded_or_none(value)
        if encoded is None:
            raise InvalidInput("the value has half a surrogate pair, which has no UTF-8", code="not-text")
        return encoded
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InvalidInput(f"a value is bytes or text, not {type(value).__name__}")
