"""The Python host as a backend of the package `keyring`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import keyring
import keyring.backend
import keyring.core
import pytest
from command import Folder
from conftest import PYTHON_HOST, VARIABLE, master_key
from keyring.errors import KeyringError, KeyringLocked, PasswordDeleteError, PasswordSetError
from omni_credentials import (
    AmbiguousCredential,
    CredentialNotFound,
    FileError,
    InvalidInput,
    MissingInput,
    Store,
    WrongMasterSecret,
)
from omni_credentials.keyring import CredentialsKeyring
from python_files import CACHE, folder, store

NAME = "omni_credentials.keyring.CredentialsKeyring"
README = Path(__file__).parents[1] / "host-python" / "README.md"


@pytest.fixture(autouse=True)
def in_the_folder(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)


@pytest.fixture
def backend() -> CredentialsKeyring:
    return CredentialsKeyring()


def test_a_password_is_a_credential_of_every_host(backend: CredentialsKeyring, folder: Folder) -> None:
    assert backend.get_password("https://a/", "me") is None
    backend.set_password("https://a/", "me", "pä ss\n")
    backend.set_password("https://a/", "you", "")
    assert backend.get_password("https://a/", "me") == "pä ss\n"
    assert backend.get_password("https://a/", "you") == ""
    assert backend.get_password("https://a/", "Me") is None
    listed = folder.run("list", "--json").json["credentials"]
    assert [(it["name"], it["kind"], it["principal"], it["scope"]) for it in listed] == [
        ("https://a/", "password", "app", {"username": "me"}),
        ("https://a/", "password", "app", {"username": "you"}),
    ]
    folder.set("b", "from the command", "--kind", "password", "--scope", '{"username": "x/y"}')
    assert backend.get_password("b", "x/y") == "from the command"
    backend.set_password("b", "x/y", "changed")
    assert folder.get("b") == b"changed"
    backend.delete_password("b", "x/y")
    assert backend.get_password("b", "x/y") is None
    folder.run("get", "b", status=3)
    with pytest.raises(PasswordDeleteError) as caught:
        backend.delete_password("b", "x/y")
    assert isinstance(caught.value.__cause__, CredentialNotFound)


def test_no_two_accounts_are_one(backend: CredentialsKeyring) -> None:
    accounts = [("a", "b/c"), ("a/b", "c"), ("a", ""), ("a", '"}'), ("a", "\\"), ("a", "é"), ("a", "e\u0301")]
    for number, (service, username) in enumerate(accounts):
        if username:
            backend.set_password(service, username, str(number))
        else:
            with pytest.warns(DeprecationWarning):
                backend.set_password(service, username, str(number))
    assert [backend.get_password(*it) for it in accounts] == [str(number) for number in range(len(accounts))]


def test_a_service_without_a_user_name(backend: CredentialsKeyring, store: Store) -> None:
    assert backend.get_credential("a", None) is None
    backend.set_password("a", "me", "1")
    found = backend.get_credential("a", None)
    assert found is not None and (found.username, found.password) == ("me", "1")
    backend.set_password("a", "you", "2")
    found = backend.get_credential("a", "you")
    assert found is not None and (found.username, found.password) == ("you", "2")
    with pytest.raises(KeyringError, match="there are 2 passwords") as caught:
        backend.get_credential("a", None)
    assert isinstance(caught.value.__cause__, AmbiguousCredential)


def test_other_credentials_are_no_passwords(backend: CredentialsKeyring, store: Store) -> None:
    for kind, scope in (("password", {"all": True}), ("token", {"username": "me"}), ("password", {"username": 1}),
                        ("password", {"username": "me", "db": "x"}), ("password", ["username"])):
        store.set("a", "v", kind=kind, scope=scope)  # type: ignore[arg-type]
    store.save()
    assert backend.get_password("a", "me") is None and backend.get_credential("a", None) is None
    with pytest.raises(PasswordDeleteError):
        backend.delete_password("a", "me")
    backend.set_password("a", "me", "1")
    assert len(Store.open(store.path).list("a")) == 6 and backend.get_password("a", "me") == "1"


def test_whose_password(store: Store) -> None:
    mine, theirs = CredentialsKeyring(), CredentialsKeyring().with_properties(principal="other")
    mine.set_password("a", "me", "1")
    assert theirs.get_password("a", "me") is None
    theirs.set_password("a", "me", "2")
    assert theirs.get_password("a", "me") == "2"
    with pytest.raises(KeyringError, match="there are 2 passwords"):
        mine.get_password("a", "me")
    with pytest.raises(PasswordSetError):
        mine.set_password("a", "me", "3")
    theirs.delete_password("a", "me")
    assert mine.get_password("a", "me") == "1"


def test_failures_are_those_of_keyring(
    backend: CredentialsKeyring, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.set_password("a", "me", "hunter2")
    before = folder.file.read_bytes()
    with monkeypatch.context() as without:
        without.delenv(VARIABLE)
        with pytest.raises(KeyringLocked, match=f"{VARIABLE} is not set") as caught:
            backend.get_password("a", "me")
        assert isinstance(caught.value.__cause__, MissingInput)
        without.setenv(VARIABLE, master_key(b"another"))
        for call in (lambda: backend.set_password("a", "me", "hunter3"), lambda: backend.delete_password("a", "me")):
            with pytest.raises(KeyringLocked) as caught:
                call()
            assert isinstance(caught.value.__cause__, WrongMasterSecret) and "hunter" not in str(caught.value)
    with pytest.raises(PasswordSetError) as failed:
        backend.set_password("", "me", "hunter3")
    assert isinstance(failed.value.__cause__, InvalidInput)
    with pytest.raises(PasswordSetError) as failed:
        backend.set_password("a", "me", "hunter\ud800")
    assert isinstance(failed.value.__cause__, InvalidInput) and "hunter" not in str(failed.value)
    assert folder.file.read_bytes() == before
    folder.set("b", b"\xff", "--kind", "password", "--scope", '{"username": "me"}')
    with pytest.raises(KeyringError, match="not UTF-8"):
        backend.get_password("b", "me")
    missing = backend.with_properties(path=str(folder.path / "none"))
    with pytest.raises(KeyringError) as lost:
        missing.get_password("a", "me")
    assert isinstance(lost.value.__cause__, FileError)
    with pytest.raises(PasswordSetError):
        missing.set_password("a", "me", "hunter3")
    assert not (folder.path / "none").exists()


def test_it_is_never_chosen_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known to keyring by its entry point, but neither the best choice nor a part of the chain."""
    known = {type(it).__name__: it for it in keyring.backend.get_all_keyring()}
    assert isinstance(known["CredentialsKeyring"], CredentialsKeyring)
    assert CredentialsKeyring.priority < known["Keyring"].priority or CredentialsKeyring.priority < 0
    chosen = keyring.core._detect_backend()
    assert not isinstance(chosen, CredentialsKeyring)
    assert not any(isinstance(it, CredentialsKeyring) for it in getattr(chosen, "backends", []))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", NAME)
    monkeypatch.setenv("KEYRING_PROPERTY_PRINCIPAL", "other")
    named = keyring.core._detect_backend()
    assert isinstance(named, CredentialsKeyring) and named.principal == "other"


def test_the_readme(folder: Folder) -> None:
    """With the command of the package keyring."""
    [block] = [it for it in re.findall(r"```sh\n(.*?)```", README.read_text(), re.S) if "keyring set" in it]
    (bin := folder.path / "bin").mkdir()
    (bin / "keyring").write_text(f'#!/bin/sh\nexec {sys.executable} -m keyring "$@"\n')
    (bin / "keyring").chmod(0o755)
    environment = folder.environment | {
        "PATH": f"{bin}:{folder.environment['PATH']}", "PYTHONPATH": str(PYTHON_HOST), "XDG_CACHE_HOME": str(CACHE),
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", block], cwd=folder.path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    secret, listed = done.stdout.split("\n", 1)
    assert secret == "hunter2" and '{"username":"release-bot"}' in listed


def test_the_package_alone_needs_neither_keyring_nor_pydantic() -> None:
    """Nor is either imported where it is there."""
    script = "import omni_credentials, sys; print({'keyring', 'pydantic', 'pydantic_settings'} & sys.modules.keys())"
    blocked = "import sys\nfor name in ('keyring', 'pydantic', 'pydantic_settings'): sys.modules[name] = None\n"
    environment = {"PYTHONPATH": str(PYTHON_HOST), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    subprocess.run([sys.executable, "-c", f"{blocked}import omni_credentials"], env=environment, check=True)
    failed = subprocess.run(
        [sys.executable, "-c", f"{blocked}import omni_credentials.keyring"], env=environment, capture_output=True,
        text=True, check=False,
    )
    assert failed.returncode == 1 and "ModuleNotFoundError" in failed.stderr
