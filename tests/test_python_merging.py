"""The Python host: two change the same file, the command and a store."""

from __future__ import annotations

from typing import Any

import pytest
from command import Folder
from conftest import VARIABLE, master_key
from omni_credentials import (
    FileError,
    MasterSecretConflict,
    MergeConflict,
    Store,
    WrongMasterSecret,
)
from omni_credentials._lock import Lock
from python_files import folder, store


def test_both_change(folder: Folder, store: Store) -> None:
    for name in ("ours", "theirs", "gone", "same", "both"):
        folder.set(name, "old")
    store.reload()
    store["ours"] = "of python"
    store["same"] = "new"
    store["new"] = "of python"
    folder.set("theirs", "of the command")
    folder.set("same", "new")
    folder.run("rm", "gone")
    assert store.save()
    assert dict(store) == {
        "both": b"old", "new": b"of python", "ours": b"of python", "same": b"new", "theirs": b"of the command"
    }
    assert folder.get("ours") == b"of python" and folder.get("theirs") == b"of the command"
    folder.run("get", "gone", status=3)


@pytest.mark.parametrize("deleted_by", [None, "ours", "theirs"])
def test_a_conflict(folder: Folder, store: Store, deleted_by: str | None) -> None:
    folder.set("both", "old")
    folder.set("other", "old")
    store.reload()
    if deleted_by == "ours":
        del store["both"]
    else:
        store["both"] = "ours"
    store["other"] = "ours"
    if deleted_by == "theirs":
        folder.run("rm", "both")
    else:
        folder.set("both", "theirs")
    before = folder.file.read_bytes()
    reason, words = {
        None: ("both-changed", "changed by both"),
        "ours": ("ours-deleted", "deleted by ours, changed by theirs"),
        "theirs": ("theirs-deleted", "deleted by theirs, changed by ours"),
    }[deleted_by]
    said = f'the two sides do not agree on both (credential of app, {{"all":true}}) ({words})'
    for call in (store.save, store.reload):
        with pytest.raises(MergeConflict) as caught:
            call()
        assert str(caught.value) == said and type(caught.value) is MergeConflict
        assert [it.name for it in caught.value.credentials] == ["both"]
        assert list(caught.value.reasons.values()) == [reason]
        assert folder.file.read_bytes() == before and folder.leftovers() == []
        assert [it.name for it in store.changed] == ["both", "other"], "nothing is lost"
    with Store.open(folder.file) as second:
        second["both"] = "ours too"
    assert store.save(prefer="theirs" if deleted_by == "ours" else "ours")
    assert folder.get("other") == b"ours"
    assert folder.get("both") == (b"theirs" if deleted_by == "ours" else b"ours")


def test_prefer_theirs(folder: Folder, store: Store) -> None:
    store["a"] = "ours"
    folder.set("a", "theirs")
    before = folder.file.read_bytes()
    assert store.save(prefer="theirs") is False and folder.file.read_bytes() == before
    assert store["a"] == b"theirs" and store.changed == []


def test_reload(folder: Folder, store: Store) -> None:
    assert store.reload() is False
    folder.set("a", "1")
    assert "a" not in store
    assert store.reload() is True and store["a"] == b"1"
    store["b"] = "2"
    folder.set("c", "3")
    assert store.reload() and dict(store) == {"a": b"1", "b": b"2", "c": b"3"}
    folder.run("get", "b", status=3)
    folder.file.unlink()
    with pytest.raises(FileError):
        store.reload()
    with pytest.raises(FileError):
        store.save()
    assert [it.name for it in store.changed] == ["b"] and store["a"] == b"1" and folder.leftovers() == []


def test_a_rotation_meanwhile_is_no_conflict(folder: Folder, store: Store) -> None:
    folder.set("a", "1")
    folder.set("b", "1")
    folder.set("c", "1")
    store.reload()
    store["a"] = "2"
    del store["b"]
    folder.run("rotate-key")
    assert store.save()
    assert folder.get("a") == b"2" and folder.get("c") == b"1"
    folder.run("get", "b", status=3)
    verified = folder.run("verify", "--json").json
    assert verified["under_older_keys"] == 0 and verified["unreadable"] == []
    store["d"] = "4"
    folder.run("rotate-key")
    folder.set("a", "3")
    store["a"] = "conflicting"
    with pytest.raises(MergeConflict):
        store.save()


def test_a_rotation_and_an_edit_or_a_deletion_do_not_conflict(folder: Folder, store: Store) -> None:
    for name in ("edited", "deleted", "kept"):
        folder.set(name, "old")
    store.reload()
    with Store.open(folder.file) as other:
        # First the rotation is in the file, then the changes are.
        store["edited"] = "new"
        del store["deleted"]
        assert other.rotate_key() == 3
        assert store.save()
        assert dict(store) == {"edited": b"new", "kept": b"old"}
        # And the other way round: what is rotated is what others changed.
        other.reload()
        store["edited"] = "newer"
        del store["kept"]
        store.save()
        other["more"] = "x"
        assert other.rotate_key() == 2
        assert dict(other) == {"edited": b"newer", "more": b"x"}
    assert store.reload() and dict(store) == {"edited": b"newer", "more": b"x"}
    verified = folder.run("verify", "--json").json
    assert verified["under_older_keys"] == 0 and verified["values"] == 2 and verified["unreadable"] == []


def test_two_rotations_lose_nothing(folder: Folder, store: Store) -> None:
    store.update({"a": "1", "b": "2"})
    store.save()
    with Store.open(folder.file) as other:
        for number in range(3):
            store[f"ours{number}"] = "o"
            other[f"theirs{number}"] = "t"
            assert store.rotate_key() == 3 + 2 * number
            assert other.rotate_key() == 4 + 2 * number
        expected = dict(other)
        assert len(expected) == 8 and store.reload() and dict(store) == expected
    verified = folder.run("verify", "--json").json
    assert verified["under_older_keys"] == 0 and verified["values"] == 8 and verified["unreadable"] == []


def test_rotations_do_not_fill_the_keyring(folder: Folder, store: Store) -> None:
    store["a"] = "1"
    store.rotate_key()
    size = len(folder.file.read_text().split("\ncredential ")[0])
    for _ in range(4):
        store.rotate_key()
        now = len(folder.file.read_text().split("\ncredential ")[0])
        assert now == size, "keys that no value uses stay in the keyring"


def test_a_deletion_is_not_resurrected(folder: Folder, store: Store) -> None:
    store.update({"gone": "1", "kept": "1"})
    store.save()
    with Store.open(folder.file) as editing, Store.open(folder.file) as rotating:
        del store["gone"]
        store.save()
        editing["kept"] = "2"
        editing.save()
        assert "gone" not in editing
        rotating.rotate_key()
        assert dict(rotating) == {"kept": b"2"}
    assert store.reload() and dict(store) == {"kept": b"2"}
    folder.run("get", "gone", status=3)


def test_both_change_the_master_secret(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store["a"] = "1"
    store.save()
    theirs, ours = master_key(b"theirs"), master_key(b"ours")
    folder.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=theirs)
    monkeypatch.setenv(VARIABLE, theirs)
    folder.environment[VARIABLE] = theirs
    folder.set("b", "2")
    store["c"] = "3"
    before = folder.file.read_bytes()
    with pytest.raises(MasterSecretConflict, match=r"^both sides changed the master secret of /") as caught:
        store.rotate_master_secret(ours)
    assert caught.value.hint == (
        'with the secret to keep, choose its side: store.save(prefer="ours"), or '
        'store.save(prefer="theirs")'
    )
    assert folder.file.read_bytes() == before and [it.name for it in store.changed] == ["c"]
    with Store.open(folder.file) as other:
        store.rotate_master_secret(ours, prefer="theirs")
        assert folder.get("c") == b"3", "the master secret of the file stays"
        # What was read last has their secret now: to replace that is no conflict.
        store.rotate_master_secret(ours)
        folder.environment[VARIABLE] = ours
        assert folder.get("b") == b"2"
        monkeypatch.setenv(VARIABLE, ours)
        other.rotate_master_secret(theirs, prefer="ours")
    folder.environment[VARIABLE] = theirs
    assert folder.get("a") == b"1" and folder.get("c") == b"3"


def test_what_fails_after_the_master_secret_was_replaced(
    folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = master_key(b"new")
    leave = Lock.__exit__

    def interrupted(lock: Lock, *error: Any) -> None:
        leave(lock, *error)
        raise KeyboardInterrupt

    store["a"] = "1"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lock, "__exit__", interrupted)
        store.rotate_master_secret(new)
    folder.environment[VARIABLE] = new
    assert folder.get("a") == b"1" and store.changed == []
    store["b"] = "2"
    assert store.save() and folder.get("b") == b"2"


def test_another_master_secret_meanwhile(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.set("a", "1")
    store.reload()
    store["b"] = "2"
    new = master_key(b"new")
    folder.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    before = folder.file.read_bytes()
    with pytest.raises(WrongMasterSecret):
        store.save()
    assert folder.file.read_bytes() == before and [it.name for it in store.changed] == ["b"]
    monkeypatch.setenv(VARIABLE, new)
    assert store.save(), "the environment has the new secret"
    folder.environment[VARIABLE] = new
    assert folder.get("a") == b"1" and folder.get("b") == b"2"
