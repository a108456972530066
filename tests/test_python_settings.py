"""The Python host as a source of pydantic's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import KEY, Folder
from omni_credentials import AmbiguousCredential, CredentialsError, FileError, InvalidInput, Store
from omni_credentials.settings import CredentialsSettingsSource
from pydantic import AliasChoices, BaseModel, Field, SecretBytes, SecretStr, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from python_files import folder, store


class Source(BaseSettings):
    """Settings from a file, and before it from the environment."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(cls, settings_cls: type[BaseSettings], **sources: Any) -> tuple[Any, ...]:
        return *sources.values(), CredentialsSettingsSource(settings_cls)


@pytest.fixture(autouse=True)
def in_the_folder(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)


def test_settings_by_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Smtp(BaseModel):
        host: str
        port: int = 25

    class Settings(Source):
        stripe_key: SecretStr
        cert: SecretBytes = SecretBytes(b"")
        smtp: Smtp
        other: str = Field(validation_alias=AliasChoices("none", "other.name"))
        missing: str = "default"

    store["stripe-key"] = "sk_live"
    store["CERT"] = "é"
    store["smtp"] = '{"host": "mail"}'
    store["Other Name"] = "o"
    # Not a setting, and so not decrypted.
    store["unread"] = b"\xff"
    store.save()
    settings = Settings()
    assert settings.stripe_key.get_secret_value() == "sk_live" and "sk_live" not in repr(settings)
    assert settings.cert.get_secret_value() == "é".encode()
    assert (settings.smtp.host, settings.smtp.port, settings.other, settings.missing) == ("mail", 25, "o", "default")
    monkeypatch.setenv("STRIPE_KEY", "from the environment")
    assert Settings().stripe_key.get_secret_value() == "from the environment"
    assert Settings(stripe_key="given").stripe_key.get_secret_value() == "given"  # type: ignore[arg-type]


def test_prefix_nesting_and_case(store: Store) -> None:
    class Smtp(BaseModel):
        host: str
        port: int

    class Settings(Source):
        model_config = SettingsConfigDict(env_prefix="app_", env_nested_delimiter="__", env_ignore_empty=True)
        token: str
        empty: str = "default"
        smtp: Smtp

    class Exact(Source):
        model_config = SettingsConfigDict(case_sensitive=True)
        Token: str
        other: str = "default"

    for name, value in {"app-token": "t", "app.empty": "", "app_smtp__host": "mail", "APP_SMTP__PORT": "25",
                        "Token": "T", "token": "t", "OTHER": "o"}.items():
        store[name] = value
    # Not settings, and so not decrypted.
    store["app_unread"] = b"\xff"
    store["app_smtp__unknown"] = ""
    store.save()
    settings = Settings()
    assert (settings.token, settings.empty, settings.smtp.host, settings.smtp.port) == ("t", "default", "mail", 25)
    exact = Exact()
    assert (exact.Token, exact.other) == ("T", "default")


def test_the_rule_of_names_is_that_of_all_hosts(store: Store) -> None:
    rule = json.loads((Path(__file__).parents[1] / "conformance" / "variables.json").read_text())
    fields: dict[str, Any] = {}
    for number, (name, variable) in enumerate(rule["variables"].items()):
        store.set(name, str(number), principal=f"p{number}")
        fields[f"f{number}"] = (str, Field(validation_alias=variable))
    store.save()
    for number, field in enumerate(fields):
        settings = create_model("Settings", __base__=BaseSettings, **{field: fields[field]})
        assert CredentialsSettingsSource(settings, principal=f"p{number}")() == {fields[field][1].validation_alias: str(number)}
    assert len(fields) > 10


def test_which_credential(folder: Folder, store: Store) -> None:
    class Settings(BaseSettings):
        key: str

    store.set("key", "1", kind="api_key")
    store.set("key", "2", kind="password")
    store.set("KEY", "3", kind="token", principal="other")
    store.save()
    with pytest.raises(SettingsError) as caught:
        CredentialsSettingsSource(Settings)()
    assert isinstance(caught.value.__cause__, AmbiguousCredential)
    assert "there are 2 credentials for the setting key: key (api_key of app," in str(caught.value.__cause__)
    for which, value in (({"kind": "password"}, "2"), ({"principal": "other"}, "3"),
                         ({"scope": {"all": True}, "kind": "api_key"}, "1")):
        assert CredentialsSettingsSource(Settings, folder.file, **which)() == {"key": value}
    assert CredentialsSettingsSource(Settings, principal="none")() == {}


def test_where_the_file_and_the_secret_come_from(
    folder: Folder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(BaseSettings):
        key: str

    store["key"] = "1"
    store.save()
    other = tmp_path / "other.omni"
    other.write_bytes(folder.file.read_bytes())
    folder.file.unlink()
    with pytest.raises(FileError) as caught:
        CredentialsSettingsSource(Settings)()
    assert caught.value.fault == "not-found"
    monkeypatch.setenv("OMNI_CREDENTIALS_FILE", str(other))
    source = CredentialsSettingsSource(Settings, secret=KEY)
    assert source() == {"key": "1"} and KEY not in repr(source)
    monkeypatch.setenv("SETTINGS_SECRET", KEY)
    assert CredentialsSettingsSource(Settings, env_var="SETTINGS_SECRET")() == {"key": "1"}
    with pytest.raises(CredentialsError):
        CredentialsSettingsSource(Settings, secret="a wrong one")()


def test_no_error_shows_a_value(store: Store) -> None:
    class Settings(Source):
        key: int

    class Complex(Source):
        key: dict[str, int]

    store["key"] = "hunter2"
    store.save()
    failures: list[BaseException] = []
    for settings in (Settings, Complex):
        with pytest.raises((ValidationError, SettingsError)) as caught:
            settings()
        failures.append(caught.value)
    store["key"] = b"hunter2\xff"
    store.save()
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert isinstance(caught.value.__cause__, InvalidInput) and caught.value.__cause__.code == "not-text"
    failures.append(caught.value)
    for failure in failures:
        error: BaseException | None = failure
        while error is not None:
            assert "hunter2" not in repr(error) + str(error) + str(vars(error))
            error = error.__cause__ or error.__context__
