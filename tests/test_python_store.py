"""The Python host: what a store does, with the command on the same file."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import VARIABLE, master_key
from omni_credentials import (
    AmbiguousCredential,
    CredentialNotFound,
    CredentialsError,
    FileError,
    InvalidInput,
    MissingInput,
    OlderFile,
    Store,
    UnreadableValue,
    WrongMasterSecret,
    generate_master_key,
)
from python_files import CHEAP, folder, store


def blocks(folder: Folder) -> dict[str, str]:
    """The records of the file as they stand in it, by name."""
    found = re.findall(r'^(?:credential|deleted) "(.*?)"\n(?:  .*\n)+', folder.file.read_text(), re.M)
    texts = folder.file.read_text().split("\n\n")
    return dict(zip(found, [text for text in texts if text.startswith(("credential", "deleted"))], strict=True))


def test_first_steps(folder: Folder, store: Store) -> None:
    before = folder.file.read_bytes()
    store["stripe"] = b"sk_live"
    assert store["stripe"] == b"sk_live"
    assert folder.file.read_bytes() == before, "it was written before it was saved"
    assert store.save() is True
    assert folder.get("stripe") == b"sk_live"
    assert folder.run("list", "--json").json["credentials"] == [
        {"name": "stripe", "kind": "credential", "principal": "app", "scope": {"all": True}, "deleted": False}
    ]
    assert b"sk_live" not in folder.file.read_bytes()
    assert stat.S_IMODE(folder.file.stat().st_mode) == 0o600
    after = folder.file.read_bytes()
    assert store.save() is False and folder.file.read_bytes() == after, "nothing to save, and it was written"
    del store["stripe"]
    assert "stripe" not in store and store.save()
    assert "stripe (deleted)" in folder.run("list", "--deleted").text
    assert folder.leftovers() == []
    folder.run("verify")


def test_reads_what_the_command_wrote(folder: Folder) -> None:
    folder.set("a\"\n", b"\x00\xff", "--kind", "api_key", "--scope", '{"x": 1.0, "b": 2}')
    folder.set("a\"\n", "2", "--kind", "password", "--principal", "other")
    folder.set("z", "z" * 100_000)
    folder.set("gone", "x")
    folder.run("rm", "gone")
    with Store.open(folder.file) as store:
        listed = folder.run("list", "--json").json["credentials"]
        assert [(it.name, it.kind, it.principal) for it in store.list()] == [
            (it["name"], it["kind"], it["principal"]) for it in listed
        ]
        assert store.credential("a\"\n", kind="api_key").scope == '{"b":2,"x":1}'
        assert store.get("a\"\n", kind="api_key") == b"\x00\xff"
        assert store["z"] == b"z" * 100_000
        assert "gone" not in store
        assert store.generation == folder.run("list", "--json").json["generation"]


def test_is_a_mapping(store: Store) -> None:
    assert not store and list(store) == [] and dict(store) == {}
    store.update({"b": "two", "a": b"one"})
    assert len(store) == 2 and list(store) == ["a", "b"] and "a" in store and "c" not in store and 7 not in store
    assert dict(store) == {"a": b"one", "b": b"two"} and list(store.values()) == [b"one", b"two"]
    assert store.get("c") is None and store.get("c", b"x") == b"x" and store.get("a", b"x") == b"one"
    assert store.pop("b") == b"two" and store.setdefault("a", b"other") == b"one"
    assert store == store and store != {"a": b"one"} and hash(store) == hash(store)
    for missing in (lambda: store["c"], lambda: store.delete("c"), lambda: store.credential("c")):
        with pytest.raises(CredentialNotFound) as caught:
            missing()
        assert isinstance(caught.value, KeyError) and str(caught.value) == "there is no credential c"


def test_names_that_several_share(folder: Folder, store: Store) -> None:
    store.set("a", "1", kind="api_key", scope={"b": 2, "x": 1})
    store.set("a", "2", kind="password", principal="other")
    assert len(store) == 1 and len(store.list()) == 2
    for call in (lambda: store["a"], lambda: store.get("a", b"default"), lambda: store.set("a", "x"),
                 lambda: store.delete("a")):
        with pytest.raises(AmbiguousCredential, match=r"^there are 2 credentials a: a \(api_key of app, ") as caught:
            call()
        assert [it.kind for it in caught.value.credentials] == ["api_key", "password"]
        assert "kind=" in caught.value.hint
    assert store.get("a", kind="password") == b"2" and store.get("a", principal="app") == b"1"
    assert store.get("a", scope='{"x": 1.00, "b": 2.0}') == b"1", "scopes are compared as values"
    assert store.get("a", kind="token") is None
    assert store.set("a", "3", principal="other").kind == "password", "the kind of the one that is there"
    store.save()
    assert folder.get("a", "--kind", "password") == b"3"
    assert [it.principal for it in store.list("a", kind="password")] == ["other"]
    with Store.open(folder.file, principal="other") as others:
        assert others["a"] == b"3" and len(others.list()) == 2
        assert others.set("b", "x").principal == "other"
    with Store.open(folder.file, principal="nobody") as nobodys:
        assert "a" not in nobodys and list(nobodys) == []


def test_whose_a_new_credential_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGUSER", "session")
    assert store.set("a", "1").principal == "session"
    assert store.set("b", "1", principal="given").principal == "given"
    monkeypatch.setenv("PGUSER", "")
    monkeypatch.setenv("USER", "")
    with pytest.raises(MissingInput, match="neither PGUSER nor USER"):
        store.set("c", "1")
    assert store.set("a", "2").principal == "session", "of what is there it is known"


@pytest.mark.parametrize("value", [b"", b"x", b"a\nb\n", b"\x00\xff\xfe", "é\U0001f511".encode(), b"x" * (1 << 20)])
def test_values_are_kept_as_they_are(folder: Folder, store: Store, value: bytes) -> None:
    store["v"] = value
    store.save()
    assert folder.get("v") == value
    with Store.open(folder.file) as again:
        assert again["v"] == value


def test_values_may_be_text_or_buffers(store: Store) -> None:
    store["text"] = "é"
    store.set("buffer", bytearray(b"ab"))  # type: ignore[arg-type]
    assert store["text"] == "é".encode() and store["buffer"] == b"ab"
    with pytest.raises(InvalidInput, match="bytes or text, not int"):
        store["number"] = 7  # type: ignore[assignment]
    assert "number" not in store


def test_what_is_not_valid(folder: Folder, store: Store) -> None:
    before = folder.file.read_bytes()
    for code, arguments in {
        "invalid-name": {"name": ""},
        "invalid-kind": {"kind": "k" * 64},
        "invalid-principal": {"principal": ""},
        "invalid-scope": {"scope": "{"},
        "scope-too-large": {"scope": '"' + "x" * 3000 + '"'},
        "value-too-large": {"value": b"x" * ((1 << 20) + 1)},
    }.items():
        with pytest.raises(InvalidInput) as caught:
            store.set(**({"name": "n", "value": b"v"} | arguments))
        assert caught.value.code == code and isinstance(caught.value, ValueError)
    with pytest.raises(InvalidInput, match="the scope is not JSON"):
        store.set("n", "v", scope={"x": float("nan")})
    with pytest.raises(InvalidInput):
        store.set("lone \ud800 surrogate", "v")
    assert store.changed == [] and store.save() is False and folder.file.read_bytes() == before


def test_only_what_changed_changes(folder: Folder, store: Store) -> None:
    for number in range(5):
        folder.set(f"c{number}", f"v{number}")
    store.reload()
    before = blocks(folder)
    store["c2"] = b"v2"
    assert store.changed == [], "the same value is no change"
    store["c2"] = b"other"
    del store["c4"]
    store["new"] = b"n"
    del store["new"]
    assert [it.name for it in store.changed] == ["c2", "c4"]
    store.save()
    after = blocks(folder)
    assert {name for name in before if before[name] != after[name]} == {"c2", "c4"} and before.keys() == after.keys()
    assert store.changed == [] and folder.run("get", "c4", status=3)


def test_nothing_secret_is_shown(store: Store) -> None:
    store["stripe"] = "sk_live_secret"
    credential = store.credential("stripe")
    assert credential.value == b"sk_live_secret" and credential.name == "stripe" and credential.principal == "app"
    for shown in (repr(credential), str(credential), f"{credential}", repr(store), repr([credential])):
        assert "sk_live" not in shown
    assert KEY not in repr(vars(store)) and "sk_live" not in repr(vars(store))
    with pytest.raises(AttributeError):
        credential.value = b"x"  # type: ignore[misc]


def test_a_value_that_does_not_open_stops_no_other(folder: Folder, store: Store) -> None:
    """A faulty writer put the value of one under the name of another."""
    store.update({"good": "1", "bad": "2"})
    store.save()
    module = store.module
    with module.files() as files:
        document = files.parse(folder.file.read_bytes())
        entries = files.entries(document)
        keyring = files.keyring_bytes(document)
        kek = module.derive_kek(KEY.encode(), keyring)
        files.put(document, [entries[0]._replace(sealed=entries[1].sealed)])
        folder.file.write_bytes(files.write(document, files.unlock(keyring, kek), 0))
    with Store.open(folder.file) as store:
        assert store["good"] == b"1" and sorted(store) == ["bad", "good"]
        with pytest.raises(UnreadableValue, match=r"^bad \(credential of app") as caught:
            store["bad"]
        assert caught.value.code == "not-authentic" and caught.value.credential.name == "bad"
        with pytest.raises(UnreadableValue):
            store.rotate_key()
        assert [(error.credential.name, error.code) for error in store.verify()] == [("bad", "not-authentic")]
        store["bad"] = b"anew"
        assert store.verify() == []
        store.save()
    assert folder.get("bad") == b"anew"


def test_rotations(folder: Folder, store: Store) -> None:
    for number in range(5):
        store[f"c{number}"] = f"v{number}"
    store.save()
    before = blocks(folder)
    store["new"] = "n"
    del store["c0"]
    assert store.rotate_key() == 5
    after = blocks(folder)
    assert all(before[name] != after[name] for name in before)
    assert folder.run("verify", "--json").json == {
        "generation": store.generation, "values": 5, "under_older_keys": 0, "unreadable": []
    }
    new = generate_master_key()
    store.rotate_master_secret(new)
    assert folder.run("get", "c1", status=8)
    assert folder.run("get", "c1", **{VARIABLE: new}).out == b"v1"
    assert blocks(folder) == after, "no value is encrypted anew"
    store["later"] = "x"
    store.save()
    assert folder.run("get", "later", **{VARIABLE: new}).out == b"x"
    with pytest.raises(WrongMasterSecret):
        store.rotate_master_secret("")
    store.rotate_master_secret("a password", costs=CHEAP)
    assert folder.run("get", "later", **{VARIABLE: "a password"}).out == b"x"


def test_create(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "own.omni"
    with Store.create(path, "a password", costs=CHEAP) as store:
        assert store.generation == 1 and dict(store) == {}
        store["a"] = "1"
        store.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert folder.run("get", "a", "--file", str(path), **{VARIABLE: "a password"}).out == b"1"
    before = path.read_bytes()
    with pytest.raises(FileError, match="already exists") as caught:
        Store.create(path, "a password")
    assert caught.value.fault == "exists" and path.read_bytes() == before
    with pytest.raises(WrongMasterSecret) as refused:
        Store.create(tmp_path / "none.omni", "")
    assert refused.value.code == "invalid-master-secret" and not (tmp_path / "none.omni").exists()
    with Store.create(tmp_path / "env.omni") as store:
        store["a"] = "1"
        store.save()
    assert folder.run("get", "a", "--file", str(tmp_path / "env.omni")).out == b"1"


def test_where_the_secret_comes_from(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.set("a", "1")
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(MissingInput, match=f"{VARIABLE} is not set") as caught:
        Store.open(folder.file)
    assert f"export {VARIABLE}=" in caught.value.hint and f"{VARIABLE}_FILE" in caught.value.hint
    for secret in (KEY, KEY.encode()):
        Store.open(folder.file, secret).close()
    for end in ("", "\n", "\r\n"):
        (tmp_path / "key").write_text(KEY + end, newline="")
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path / "key"))
        Store.open(folder.file).close()
    (tmp_path / "key").write_text(KEY + "\n\n")
    with pytest.raises(WrongMasterSecret):
        Store.open(folder.file)
    (tmp_path / "key").write_text("x" * 5000)
    with pytest.raises(FileError, match="is longer than 4098 bytes"):
        Store.open(folder.file)
    monkeypatch.setenv(VARIABLE, "another one")
    with pytest.raises(WrongMasterSecret):
        Store.open(folder.file)
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setenv(VARIABLE, "")
    Store.open(folder.file).close()
    for name in ("", None):
        monkeypatch.setenv(f"{VARIABLE}_FILE", "") if name == "" else monkeypatch.delenv(f"{VARIABLE}_FILE")
        with pytest.raises(WrongMasterSecret) as empty:
            Store.open(folder.file)
        assert empty.value.code == "invalid-master-secret"
    monkeypatch.setenv("OTHER", KEY)
    Store.open(folder.file, env_var="OTHER").close()
    for name in ("", "A=B", "A\0"):
        with pytest.raises(InvalidInput, match="not the name of an environment variable"):
            Store.open(folder.file, env_var=name)


def test_threads_share_a_store(folder: Folder, store: Store) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(20):
                store.set(f"t{thread}-{number}", f"{thread} {number}" * 10)
                assert store[f"t{thread}-{number}"] == f"{thread} {number}".encode() * 10
                if number % 10 == 0:
                    store.save()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store.save()
    assert len(folder.run("list", "--json").json["credentials"]) == 80 == len(store)
    folder.run("verify")


def test_a_forked_child(store: Store) -> None:
    store["a"] = "1"
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, store["a"] + generate_master_key(store.module).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read().startswith(b"1omck1_")
    assert os.waitpid(child, 0)[1] == 0
    assert store["a"] == b"1"


def test_after_close(folder: Folder) -> None:
    store = Store.open(folder.file)
    store["a"] = "1"
    keyring = store._contents.keyring
    store.close()
    store.close()
    calls = (lambda: store["a"], lambda: "a" in store, lambda: list(store), store.list, store.save, store.reload,
             store.verify, store.rotate_key, lambda: store.rotate_master_secret(KEY), lambda: store.set("b", "2"),
             lambda: store.delete("a"), lambda: store.changed)
    for call in calls:
        with pytest.raises(InvalidInput, match=r"^the store is closed") as caught:
            call()
        assert caught.value.code == "closed"
    with pytest.raises(InvalidInput, match=r"^the keyring is closed"):
        keyring.to_bytes()
    assert repr(store) == f"<Store {str(folder.file)!r}: closed>" and folder.leftovers() == []


def test_a_relative_path_is_resolved_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    other = folder.path / "other"
    other.mkdir()
    (other / "credentials.omni").write_bytes(folder.file.read_bytes())
    for at in (folder.path, other):
        (at / "key").write_text(KEY if at == folder.path else "another one")
    monkeypatch.chdir(folder.path)
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(f"{VARIABLE}_FILE", "key")
    with Store.open("credentials.omni") as store, Store.create("new.omni") as new:
        monkeypatch.chdir(other)
        store["a"] = new["a"] = "1"
        # Another keyring, so that the secret is looked for again.
        folder.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=(key := master_key(b"new")))
        (folder.path / "key").write_text(key)
        assert store.save() and new.save() and store.path == str(folder.file)
    assert sorted(os.listdir(other)) == ["credentials.omni", "key"]
    assert folder.run("get", "a", **{VARIABLE: key}).out == b"1"
    folder.run("get", "a", "--file", str(other / "credentials.omni"), status=3)


def test_half_a_surrogate_pair(store: Store) -> None:
    """What has no UTF-8 is refused, and no error holds the value or the secret, however it is looked at."""
    def shown(error: BaseException | None) -> str:
        return "" if error is None else repr(error) + str(vars(error)) + shown(error.__context__)

    half = "hunter2\ud800"
    calls = (lambda: store.set("a", half), lambda: Store.open(store.path, half),
             lambda: store.rotate_master_secret(half), lambda: Store.create(f"{store.path}.new", half))
    for call in calls:
        with pytest.raises(InvalidInput, match="has no UTF-8") as caught:
            call()
        assert caught.value.code == "not-text" and "hunter2" not in shown(caught.value)
    for field in ("kind", "principal", "scope"):
        with pytest.raises(InvalidInput) as caught:
            store.set("a", "hunter2", **{field: "\ud800"})
        assert caught.value.code == f"invalid-{field}" and "hunter2" not in shown(caught.value)
        str(caught.value).encode()
    for call in (lambda: store.set("\ud800", "x"), lambda: store["\ud800"]):
        with pytest.raises(CredentialsError) as caught:
            call()
        str(caught.value).encode()
    assert store.changed == []


def test_an_older_file_is_reported(folder: Folder, store: Store) -> None:
    older = folder.file.read_bytes()
    for number in range(3):
        store["a"] = str(number)
        store.save()
    folder.file.write_bytes(older)
    with pytest.warns(OlderFile, match="went back from generation 4 to 1: an older version") as warned:
        assert store.reload()
    assert warned[0].filename == __file__
    assert store.generation == 1
    store["b"] = "1"
    assert store.save() and store.generation == 5, "the generation goes on from the highest that was seen"
    folder.file.write_bytes(older)
    store["b"] = "2"
    with pytest.warns(OlderFile, match="from generation 5 to 1"):
        store.save()
