"""Credentials as a source of pydantic's settings. Needs the extra `settings`: `pip install omni-credentials[settings]`.

    class Settings(BaseSettings):
        model_config = SettingsConfigDict(hide_input_in_errors=True)
        stripe: SecretStr

        @classmethod
        def settings_customise_sources(cls, settings_cls, **sources):
            return *sources.values(), CredentialsSettingsSource(settings_cls)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from . import secret as _secret
from .errors import AmbiguousCredential, InvalidInput
from .identity import Identity, Scope
from .module import Module
from .store import Store


class CredentialsSettingsSource(EnvSettingsSource):
    """Takes the values of settings from a credentials file.

    A setting gets the value of the credential that has its name, or that has its variable in `omni-credentials exec`:
    the setting `stripe_key` takes `stripe-key`. Aliases, `env_prefix`, `env_nested_delimiter`,
    `case_sensitive` and JSON for settings of several parts work as with variables of the environment. Only credentials
    that are settings are decrypted. The file is open while the settings are built, and not longer.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        path: str | PathLike[str] | None = None,
        secret: str | bytes | None = None,
        *,
        env_var: str = _secret.DEFAULT_VARIABLE,
        module: Module | str | PathLike[str] | bytes | None = None,
        module_digest: str | None = None,
        principal: str | None = None,
        kind: str | None = None,
        scope: Scope | None = None,
    ) -> None:
        """`path` is the file; without it, `$OMNI_CREDENTIALS_FILE` or `credentials.omni`. `principal`, `kind` and
        `scope` select credentials. The rest is as for `Store.open`."""
        self._path = path or os.environ.get("OMNI_CREDENTIALS_FILE") or "credentials.omni"
        self._secret = secret
        self._open_options: dict[str, Any] = {"env_var": env_var, "module": module, "module_digest": module_digest}
        self._which = {"principal": principal, "kind": kind, "scope": scope}
        super().__init__(settings_cls)

    def __call__(self) -> dict[str, Any]:
        """Raises what `Store.open` raises. Pydantic wraps what goes wrong with one setting into a `SettingsError`."""
        with Store.open(self._path, self._secret, **self._open_options) as store:
            self.env_vars = _Variables(store, self._which, self.case_sensitive, self.env_ignore_empty)
            try:
                return super().__call__()
            finally:
                self.env_vars = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self._path)!r})"

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """As JSON. The error of the JSON module would hold the value."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            pass
        raise ValueError("the value of the credential is not JSON")

    def explode_env_vars(
        self, field_name: str, field: FieldInfo, env_vars: Mapping[str, str | None]
    ) -> dict[str, Any]:
        """The parts of a setting that are credentials of their own. No others are decrypted."""
        if not self.env_nested_delimiter:
            return {}
        names = [name for _, name, _ in self._extract_field_info(field, field_name)]
        parts = tuple(f"{name}{self.env_nested_delimiter}" for name in names)
        chosen = {name: env_vars.get(name) for name in env_vars if name.startswith(parts)}
        return super().explode_env_vars(
            field_name, field, {name: value for name, value in chosen.items() if value is not None}
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {}


class _Variables(Mapping[str, "str | None"]):
    """The credentials of a file by the names of settings; a value is decrypted when it is asked for."""

    def __init__(self, store: Store, which: Mapping[str, Any], case_sensitive: bool, ignore_empty: bool) -> None:
        self._store = store
        self._case_sensitive = case_sensitive
        self._ignore_empty = ignore_empty
        self._found: dict[str, list[Identity]] = {}
        for identity in store.list(**which):
            self._found.setdefault(self._key(identity.name), []).append(identity)

    def __getitem__(self, name: str) -> str | None:
        found = self._found[self._key(name)]
        # One that has the very name comes before one that is only written like it.
        if exact := [identity for identity in found if identity.name == name]:
            found = exact
        if len(found) > 1:
            listed = "; ".join(str(identity) for identity in found)
            raise AmbiguousCredential(
                f"there are {len(found)} credentials for the setting {name}: {listed}",
                found,
                hint="choose one with kind=, principal= or scope=",
            )
        [identity] = found
        value = self._store.get(
            identity.name, kind=identity.kind, principal=identity.principal, scope=identity.scope
        )
        if value is None or (self._ignore_empty and not value):
            raise KeyError(name)
        text = value.decode(errors="replace")
        if text.encode() != value:
            raise InvalidInput(f"{identity}: the value is not UTF-8", code="not-text")
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(self._found if self._case_sensitive else [name.lower() for name in self._found])

    def __len__(self) -> int:
        return len(self._found)

    def _key(self, name: str) -> str:
        """The variable of a name, as `omni-credentials exec` has it."""
        key = re.sub(r"[^A-Za-z0-9]", "_", re.sub(r"^(?=[0-9])", "_", name))
        return key if self._case_sensitive else key.upper()
