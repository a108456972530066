"""The command `status`: it always tells what it can, and its status says whether something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import VARIABLE
from printing import recorder, runs

FIELDS = ["file", "exists", "bytes", "generation", "credentials", "values", "secret", "module", "locked", "git", "problems"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (path := tmp_path / "work").mkdir()
    folder = Folder(path)
    folder.git("init")
    folder.run("init")
    folder.set("a", "very-secret", "--kind", "api_key")
    folder.set("b", "very-secret", "--kind", "api_key")
    folder.set("c", "very-secret", "--kind", "password", "--expires", "10d")
    folder.set("gone", "very-secret")
    folder.run("rm", "gone")
    return folder


def status(folder: Folder, expected: int = 0, **environment: str) -> dict:
    found = folder.run("status", "--json", status=expected, **environment).json
    assert list(found) == FIELDS
    assert bool(found["problems"]) == (expected == 18)
    told = folder.run("status", status=expected, **environment).text
    for text in (told, json.dumps(found)):
        assert "very-secret" not in text and KEY not in text
    for problem in found["problems"]:
        assert f"problem     {problem}\n" in told
    return found


def test_all_is_well(folder: Folder) -> None:
    found = status(folder)
    assert found["exists"] and found["bytes"] == folder.file.stat().st_size and found["generation"] == 6
    assert found["credentials"] == {
        "total": 3, "by_kind": {"api_key": 2, "password": 1}, "deleted": 1, "expired": 0, "due": 1
    }
    assert found["values"] == {"under_current_key": 3, "under_superseded_keys": 0, "unreadable": 0}
    assert found["secret"] == {"variable": VARIABLE, "source": "variable", "opens": True}
    assert found["module"]["suite"].endswith("(1)") and len(found["module"]["digest"]) == 64
    assert found["locked"] is False
    assert found["git"] == {"work_tree": True, "tracked": False, "merge_driver": True, "unignored_keys": []}
    text = folder.run("status").text
    assert f"from {VARIABLE}, opens the file" in text and "2 api_key" in text
    folder.git("add", ".")
    assert status(folder)["git"]["tracked"] is True


def test_where_the_secret_comes_from(folder: Folder, tmp_path: Path) -> None:
    other = folder.without_secret()
    assert status(other)["secret"] == {"variable": VARIABLE, "source": None, "opens": None}
    assert status(other)["values"] is None
    (tmp_path / "key").write_text(KEY)
    assert status(other, **{f"{VARIABLE}_FILE": str(tmp_path / "key")})["secret"]["source"] == "file"
    program = recorder(tmp_path, KEY)
    found = other.run("status", "--json", **{f"{VARIABLE}_COMMAND": str(program)}).json
    assert found["secret"] == {"variable": VARIABLE, "source": "command", "opens": True}
    assert runs(tmp_path) == 1
    text = other.run("status", **{f"{VARIABLE}_COMMAND": str(program)}).text
    assert f"from the program that {VARIABLE}_COMMAND names, opens the file" in text


@pytest.mark.parametrize(("environment", "problem"), (
    ({VARIABLE: "wrong"}, "not the one"),
    ({VARIABLE: "omck1_damaged"}, "damaged generated key"),
    ({VARIABLE: "", f"{VARIABLE}_FILE": "/nowhere"}, "/nowhere"),
    ({VARIABLE: "", f"{VARIABLE}_COMMAND": "false"}, "status 1"),
    ({VARIABLE: "", f"{VARIABLE}_COMMAND": "it's"}, "single quote"),
    ({VARIABLE: "", f"{VARIABLE}_COMMAND": "true", f"{VARIABLE}_FILE": "/nowhere"}, "both set"),
))
def test_a_secret_that_is_no_good(folder: Folder, environment: dict[str, str], problem: str) -> None:
    found = status(folder, 18, **environment)
    assert any(problem in it for it in found["problems"]), found["problems"]
    assert found["secret"]["opens"] is False and found["credentials"]["total"] == 3 and found["git"]["work_tree"]


def test_superseded_keys(folder: Folder, tmp_path: Path) -> None:
    """After a merge of a branch that is still under the older key."""
    before = folder.file.read_bytes()
    folder.run("rotate-key")
    (tmp_path / "base").write_bytes(before)
    (tmp_path / "theirs").write_bytes(before)
    theirs = Folder(tmp_path, folder.environment)
    theirs.run("set", "d", "--file", "theirs", stdin=b"new")
    folder.run("merge", str(tmp_path / "base"), "credentials.omni", str(tmp_path / "theirs"))
    assert status(folder)["values"] == {"under_current_key": 3, "under_superseded_keys": 1, "unreadable": 0}
    folder.run("rotate-key")
    assert status(folder)["values"]["under_superseded_keys"] == 0


def test_what_is_wrong_with_the_file(folder: Folder, tmp_path: Path) -> None:
    sound = folder.file.read_bytes()
    for content, problem in (
        (b"", "not an encrypted credentials file"), (sound[:-20], ""), (sound.replace(b"api_key", b"api_kez", 1), ""),
        (b"<<<<<<< ours\n" + sound, "unfinished merge"), (sound.replace(b"\n", b"\r\n"), ""),
        (sound.replace(b"omni-credentials 1", b"omni-credentials 9"), "version"),
    ):
        folder.file.write_bytes(content)
        found = status(folder, 18)
        assert found["exists"] and any(problem in it for it in found["problems"]), found["problems"]
        assert found["secret"]["source"] == "variable" and found["git"]["work_tree"]
    folder.file.unlink()
    found = status(folder, 18)
    assert not found["exists"] and "no such file" in found["problems"][0]
    folder.file.mkdir()
    assert "is a directory" in status(folder, 18)["problems"][0]


def test_expired(folder: Folder) -> None:
    folder.set("old", "v", "--expires", "2020-01-01")
    found = status(folder, 18)
    assert found["credentials"]["expired"] == 1 and found["problems"] == ["1 credentials have expired"]


def test_a_module_that_cannot_be_used(folder: Folder) -> None:
    (folder.path / "module.wasm").write_bytes(b"no module")
    found = folder.run("status", "--json", "--module", "module.wasm", status=18).json
    assert found["module"] is None and found["exists"] and found["credentials"] is None


def test_keys_that_git_could_commit(folder: Folder) -> None:
    (folder.path / "my.key").write_text(KEY)
    other = {VARIABLE: "", f"{VARIABLE}_FILE": "my.key"}
    found = status(folder, 18, **other)
    assert found["git"]["unignored_keys"] == ["my.key"] and "git does not ignore my.key" in found["problems"][0]
    folder.run("init", "--git", **other)
    assert status(folder, **other)["git"]["unignored_keys"] == []
    folder.git("add", "--force", "my.key")
    assert status(folder, 18, **other)["git"]["unignored_keys"] == ["my.key"]


def test_without_git(folder: Folder, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    (outside / "credentials.omni").write_bytes(folder.file.read_bytes())
    found = status(Folder(outside, folder.environment))
    assert found["git"] == {"work_tree": False, "tracked": None, "merge_driver": None, "unignored_keys": []}
    # No program git: the rest is told.
    (empty := tmp_path / "empty").mkdir()
    assert status(folder, PATH=str(empty))["git"]["work_tree"] is None
    (clone := tmp_path / "clone").mkdir()
    folder.git("add", ".")
    folder.git("commit", "-m", "m")
    folder.git("clone", str(folder.path), str(clone))
    assert status(Folder(clone, folder.environment))["git"]["merge_driver"] is False


def test_a_lock(folder: Folder) -> None:
    lock = folder.path / "credentials.omni.lock"
    lock.write_text("a lock of something else\n")
    found = status(folder)
    assert found["locked"] is True and "held by a process" in folder.run("status").text
    lock.unlink()
    assert status(folder)["locked"] is False
