"""A credentials file as a backend of the package `keyring`. Needs the extra: `pip install omni-credentials[keyring]`.

    export PYTHON_KEYRING_BACKEND=omni_credentials.keyring.CredentialsKeyring
    keyring set https://upload.example.org/ release-bot

The password of a service and a user name is the credential with the service as its name, the kind `password` and the
scope `{"username": "…"}`. `keyring` never chooses this backend by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

from keyring.backend import KeyringBackend
from keyring.compat import properties
from keyring.credentials import SimpleCredential
from keyring.errors import KeyringError, KeyringLocked, PasswordDeleteError, PasswordSetError

from . import secret as _secret
from .errors import (
    AmbiguousCredential,
    CredentialNotFound,
    CredentialsError,
    InvalidInput,
    MissingInput,
    WrongMasterSecret,
)
from .identity import Credential
from .store import Store

_KIND = "password"


class CredentialsKeyring(KeyringBackend):
    """Passwords in a credentials file. Each call opens the file, and keeps neither the secret nor a key afterwards.

    `path` is the file; without it, `$OMNI_CREDENTIALS_FILE` or `credentials.omni`. `principal` is the role that
    passwords belong to; without it, reading takes those of every role, and a new one belongs to `$PGUSER`, `$USER` or
    `$LOGNAME`. `env_var` is the variable of the master secret. `keyring` sets all three from
    `KEYRING_PROPERTY_PATH`, `KEYRING_PROPERTY_PRINCIPAL` and `KEYRING_PROPERTY_ENV_VAR`.

    Raises `KeyringLocked` if the master secret is missing or wrong, `PasswordSetError` and `PasswordDeleteError` where
    a change fails, and `KeyringError` for the rest. The cause of each is the `CredentialsError`.
    """

    path: str | None = None
    principal: str | None = None
    env_var: str = _secret.DEFAULT_VARIABLE

    @properties.classproperty
    def priority(self) -> float:
        """Below that of the backend that always fails: it is used where it is named, and nowhere else."""
        return -1

    def get_password(self, service: str, username: str) -> str | None:
        """The password; none if there is no such credential."""
        found = self._find(service, username)
        return None if found is None else _text(found)

    def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
        """The same with the user name. Without one, the only user name that the service has."""
        found = self._find(service, username)
        if found is None:
            return None
        return SimpleCredential(_username(found.scope) or "", _text(found))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Adds or changes the credential and saves the file."""
        with self._opened(PasswordSetError) as store:
            store.set(service, password, kind=_KIND, scope={"username": username})
            store.save()

    def delete_password(self, service: str, username: str) -> None:
        """Deletes the credential and saves the file."""
        with self._opened(PasswordDeleteError) as store:
            store.delete(service, kind=_KIND, scope={"username": username})
            store.save()

    def _find(self, service: str, username: str | None) -> Credential | None:
        with self._opened(KeyringError) as store:
            found = [
                identity
                for identity in store.list(service, kind=_KIND, principal=self.principal)
                if (known := _username(identity.scope)) is not None and username in (None, known)
            ]
            if not found:
                return None
            if len(found) > 1:
                listed = "; ".join(map(str, found))
                raise AmbiguousCredential(f"there are {len(found)} passwords: {listed}", found)
            [it] = found
            try:
                return store.credential(it.name, kind=it.kind, principal=it.principal, scope=it.scope)
            except CredentialNotFound:
                return None

    @contextlib.contextmanager
    def _opened(self, failure: type[KeyringError]) -> Iterator[Store]:
        path = self.path or os.environ.get("OMNI_CREDENTIALS_FILE") or "credentials.omni"
        try:
            with Store.open(path, env_var=self.env_var, principal=self.principal) as store:
                yield store
        except (MissingInput, WrongMasterSecret) as error:
            raise KeyringLocked(_message(error)) from error
        except CredentialsError as error:
            raise failure(_message(error)) from error


def _username(scope: str) -> str | None:
    """The user name of a scope that has nothing else."""
    match json.loads(scope):
        case {"username": str(username), **rest} if not rest:
            return username
    return None


def _text(credential: Credential) -> str:
    text = credential.value.decode(errors="replace")
    if text.encode() != credential.value:
        error = InvalidInput(f"{credential.identity}: the value is not UTF-8", code="not-text")
        raise KeyringError(error.message) from error
    return text


def _message(error: CredentialsError) -> str:
    return error.message if error.hint is None else f"{error.message} (hint: {error.hint})"
