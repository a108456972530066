"""The command and git: differences, merges with and without the key, and repairs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import VARIABLE, master_key


@pytest.fixture
def repository(tmp_path: Path) -> Folder:
    """A repository with the credentials a, b and c, and a branch `other` at the same commit."""
    (path := tmp_path / "work").mkdir()
    folder = Folder(path)
    folder.git("init")
    folder.run("init")
    for name in "abc":
        folder.set(name, f"{name}1")
    commit(folder, "first")
    folder.git("branch", "other")
    return folder


def commit(folder: Folder, message: str) -> None:
    folder.git("add", "-A")
    folder.git("commit", "-m", message)


def diverge(folder: Folder, ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Commits changes on both branches; ends on ours. An empty value deletes."""
    for branch, changes in [("other", theirs), ("main", ours)]:
        folder.git("checkout", "-q", branch)
        for name, value in changes.items():
            folder.set(name, value) if value else folder.run("rm", name)
        commit(folder, branch)


def values(folder: Folder) -> dict[str, str]:
    folder.run("verify")
    shown = folder.run("show", "--values", "--json").json["credentials"]
    return {it["name"]: it["value"] for it in shown if not it["deleted"]}


def test_what_init_sets_up(repository: Folder) -> None:
    assert set(repository.git("ls-files").split()) == {".gitattributes", ".gitignore", "credentials.omni"}
    (repository.path / "sub").mkdir()
    other = Folder(repository.path / "sub", {"HOME": repository.environment["HOME"]})
    told = other.run("init", "--generate", "--json", "--file", "x y.omni", **{VARIABLE: "unused"}).json
    assert told == {"file": "x y.omni", "git": True, "key_file": "credentials.key"}
    (other.path / "x y.omni.lock").touch()
    assert repository.git("status", "--short", "-uall").split("\n")[:3] == [
        "?? sub/.gitattributes", "?? sub/.gitignore", '?? "sub/x y.omni"'
    ], "the key or a lock would be committed"
    assert "merge: omni-credentials" in repository.git("check-attr", "merge", "sub/x y.omni")
    before = (repository.path / ".gitattributes").read_text()
    repository.run("init", "--git")
    assert (repository.path / ".gitattributes").read_text() == before


@pytest.mark.parametrize("setup", [(), ("--git",)])
def test_a_key_from_before_the_repository_is_not_committed(tmp_path: Path, setup: tuple[str, ...]) -> None:
    folder = Folder(tmp_path / "work", {VARIABLE: ""})
    folder.path.mkdir()
    folder.run("init", "--generate")
    if setup:
        # As by an earlier version, which wrote no such file outside a repository.
        (folder.path / ".gitignore").unlink()
    folder.git("init")
    if setup:
        folder.run("init", *setup)
    commit(folder, "all")
    assert "credentials.omni" in folder.git("ls-files") and "credentials.key" not in folder.git("ls-files")


def test_a_new_key_is_not_committed(repository: Folder) -> None:
    (sub := repository.path / "sub").mkdir()
    repository.run("rotate-master-secret", "--generate", "--key-file", "sub/new key[1] ")
    assert (sub / "new key[1] ").exists()
    repository.environment[VARIABLE] = (sub / "new key[1] ").read_text().strip()
    repository.run("rotate-master-secret", "--generate")
    commit(repository, "all")
    assert "key" not in repository.git("ls-files")


def test_ignoring_works_in_any_encoding(repository: Folder) -> None:
    ignored = repository.path / ".gitignore"
    ignored.write_bytes(b"\xe9t\xe9\n!*.key")
    repository.run("rotate-master-secret", "--generate")
    assert ignored.read_bytes() == b"\xe9t\xe9\n!*.key\n/credentials.new.key\n"
    commit(repository, "all")
    assert "key" not in repository.git("ls-files")


@pytest.mark.parametrize("obstacle", ["directory", "link", "repository of another user"])
def test_no_key_is_written_where_git_would_commit_it(tmp_path: Path, obstacle: str) -> None:
    folder = Folder(tmp_path / "work", {VARIABLE: ""})
    folder.path.mkdir()
    folder.git("init")
    ignored = folder.path / ".gitignore"
    if obstacle == "directory":
        ignored.mkdir()
    elif obstacle == "link":
        (tmp_path / "precious").touch()
        ignored.symlink_to(tmp_path / "precious")
    elif os.geteuid() == 0:
        os.chown(folder.path, 65534, -1)
        os.chown(folder.path / ".git", 65534, -1)
    else:
        pytest.skip("only root can give a repository away")
    refused = folder.run("init", "--generate", status=4).err
    assert "no master key is written where git could commit it" in refused and "--key-file FILE" in refused
    assert not (folder.path / "credentials.key").exists() and not folder.file.exists()
    # Outside the repository a key is safe. What is left to do for git is said.
    others = obstacle != "repository of another user"
    said = folder.run("init", "--generate", "--key-file", str(tmp_path / "key"), status=1 if others else 0).err
    assert (tmp_path / "key").exists()
    if not others:
        assert "to see why: git status" in folder.run("init", "--git", status=1).err
    assert ("then: omni-credentials init --git" in said) == others


def test_a_key_in_the_index_is_named(repository: Folder) -> None:
    (repository.path / "credentials.key").write_text(KEY)
    (repository.path / ".gitignore").write_text("")
    commit(repository, "with the key")
    refused = repository.run("init", "--git", status=4).err
    assert "git rm --cached ./credentials.key" in refused and "rotate-master-secret" in refused
    repository.git("rm", "-q", "--cached", "credentials.key")
    repository.run("init", "--git")
    repository.git("add", "-A")
    assert "key" not in repository.git("ls-files")


def test_diff_after_a_new_master_secret(repository: Folder) -> None:
    new = master_key(b"new")
    repository.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    changed = Folder(repository.path, repository.environment | {VARIABLE: new})
    changed.set("b", "b2")
    for rotated in (False, True):
        for secret in (new, KEY):
            told = changed.run("diff", "--values", "--json", **{VARIABLE: secret})
            assert "another master secret: its seal was not checked" in told.err
            by_name = {it["name"]: it for it in told.json["changes"]}
            # After a rotation, the keyring of one version does not have the key of the other one's values.
            values = ("b1", "b2") if not rotated else (None, "b2") if secret == new else ("b1", None)
            assert (by_name["b"].get("old_value"), by_name["b"].get("new_value")) == values
            assert ("a" in by_name) == rotated
        changed.run("rotate-key")
    other = changed.run("diff", **{VARIABLE: master_key(b"neither")})
    assert other.text.startswith("~ a ") and "no values are compared" in other.err
    changed.run("diff", "--values", status=8, **{VARIABLE: master_key(b"neither")})
    missing = changed.without_secret().run("diff", **{f"{VARIABLE}_FILE": "missing"})
    assert missing.text.startswith("~ a ") and "missing: no such file" in missing.err


def test_diff_shows_no_values_unless_asked(repository: Folder) -> None:
    repository.set("b", "new-b")
    repository.run("rm", "c")
    repository.set("d", "d1")
    shown = repository.git("diff")
    assert "-b (credential of app" in shown and "+b (credential of app" in shown
    assert "+c (credential of app, {\"all\":true}): deleted" in shown and "new-b" not in shown
    asked = Folder(repository.path, {"OMNI_CREDENTIALS_SHOW_VALUES": "1"}).git("diff")
    assert '+b (credential of app, {"all":true}): "new-b"' in asked
    nobody = repository.without_secret()
    assert nobody.git("diff") == shown

    lines = [line.split(" (")[0] for line in nobody.run("diff").text.splitlines()]
    assert lines == ["~ b", "- c", "+ d"]
    assert "new-b" in repository.run("diff", "--values").text
    repository.run("diff", "--exit-code", status=15)
    nobody.run("diff", "--values", status=7)
    commit(repository, "second")
    repository.run("diff", "--exit-code")
    assert len(repository.run("diff", "HEAD~1", "HEAD", "--json").json["changes"]) == 3
    repository.run("diff", "no-such-commit", status=1)
    repository.run("diff", "--", "--output=x", status=1)


def test_git_looks_at_the_folder_of_the_file(repository: Folder) -> None:
    """A hook, an alias or a merge driver of another repository finds that one in its environment."""
    (other := repository.path.parent / "other").mkdir()
    Folder(other).git("init")
    git = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(other / "index")}
    repository.set("b", "b2")
    assert repository.run("diff", **git).text.startswith("~ b ")
    (repository.path / ".gitattributes").unlink()
    repository.run("init", "--git", **git)
    assert (repository.path / ".gitattributes").exists()
    assert "omni-credentials" not in (other / ".git" / "config").read_text()


def test_git_survives_what_is_no_credentials_file(repository: Folder) -> None:
    for content in [b"<<<<<<< ours\n", b"omni-credentials 9\n", b"\xff\x00\n", b""]:
        repository.file.write_bytes(content)
        repository.git("diff")
        repository.git("log", "-p")


def test_merges_join(repository: Folder) -> None:
    diverge(repository, {"a": "a2", "d": "d1", "c": ""}, {"b": "b2", "e": "e1"})
    repository.git("merge", "other")
    assert values(repository) == {"a": "a2", "b": "b2", "d": "d1", "e": "e1"}
    assert repository.leftovers() == []


def test_a_rotation_is_kept_in_a_merge(repository: Folder) -> None:
    repository.git("checkout", "-q", "other")
    repository.run("rotate-key")
    commit(repository, "rotated")
    repository.git("checkout", "-q", "main")
    repository.run("rotate-key")
    repository.set("a", "a2")
    commit(repository, "rotated, too")
    repository.git("merge", "other")
    assert values(repository) == {"a": "a2", "b": "b1", "c": "c1"}
    # A new master secret on one side, a change on the other.
    repository.git("checkout", "-q", "-b", "third")
    new = master_key(b"new")
    repository.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    commit(repository, "rewrapped")
    repository.git("checkout", "-q", "main")
    repository.set("b", "b2")
    commit(repository, "b2")
    repository.environment[VARIABLE] = new
    repository.git("merge", "third")
    assert values(repository) == {"a": "a2", "b": "b2", "c": "c1"}


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_conflicts(repository: Folder, side: str) -> None:
    diverge(repository, {"a": "ours", "b": "b2"}, {"a": "theirs", "c": "c2"})
    said = repository.git("merge", "other", check=False)
    assert "the two sides do not agree on a (credential of app" in said and "(changed by both)" in said and "CONFLICT" in said
    repository.run("get", "b", status=5)
    repository.run("merge", status=10)
    repository.run("merge", "--prefer", side)
    assert values(repository) == {"a": side, "b": "b2", "c": "c2"}
    commit(repository, "merged")


def test_the_driver_names_the_file_and_finds_the_secret(repository: Folder) -> None:
    (sub := repository.path / "sub").mkdir()
    (sub / "x y.omni").write_bytes(repository.file.read_bytes())
    below = Folder(sub, repository.environment | {"OMNI_CREDENTIALS_FILE": "x y.omni"})
    below.run("init", "--git")
    below.set("a", "0")
    commit(repository, "in a folder")
    repository.git("branch", "-f", "other")
    diverge(below, {"a": "ours"}, {"b": "theirs"})
    # The name in the variable starts in the folder that git is called in, and git runs the driver at the top.
    (sub / "key").write_text(KEY)
    nobody = below.without_secret()
    nobody.environment[f"{VARIABLE}_FILE"] = "missing"
    said = nobody.git("merge", "other", check=False)
    assert f"{VARIABLE}_FILE names the file missing: no such file" in said and "not set" not in said
    assert "export" in said and "$PWD" in said
    repository.git("merge", "--abort")
    nobody.environment[f"{VARIABLE}_FILE"] = "key"
    nobody.git("merge", "other")
    assert values(below) == {"a": "ours", "b": "theirs", "c": "c1"}
    below.environment[VARIABLE] = master_key(b"wrong")
    repository.git("reset", "-q", "--hard", "HEAD~")
    said = below.git("merge", "other", check=False)
    assert "sub/x y.omni: the master secret is not the one" in said and ".merge_file" not in said


def test_equal_values_do_not_conflict(repository: Folder) -> None:
    diverge(repository, {"a": "same"}, {"a": "same"})
    repository.git("merge", "other")
    assert values(repository)["a"] == "same"


def test_a_merge_without_the_key(repository: Folder) -> None:
    diverge(repository, {"a": "a2"}, {"c": "c2"})
    nobody = repository.without_secret()
    said = nobody.git("merge", "other", check=False)
    assert "CONFLICT" in said and "omni-credentials merge" in said
    assert repository.file.read_text().count("<<<<<<<") == 1, "more than the trailer conflicts"
    nobody.run("merge", status=7)
    repository.run("merge")
    assert values(repository) == {"a": "a2", "b": "b1", "c": "c2"}


def test_a_merge_that_git_forgot(repository: Folder) -> None:
    """As after a merge elsewhere that was committed with its markers."""
    diverge(repository, {"a": "a2"}, {"c": "c2"})
    repository.without_secret().git("merge", "other", check=False)
    commit(repository, "with markers")
    said = repository.run("merge").err
    assert "sealed with 3 credentials" in said and "omni-credentials diff" in said
    assert values(repository) == {"a": "a2", "b": "b1", "c": "c2"}
    # Both changed the same: only the versions could tell.
    repository.git("checkout", "-q", "-B", "other")
    commit(repository, "mended")
    diverge_from_here(repository)
    repository.without_secret().git("merge", "other", check=False)
    commit(repository, "with markers")
    before = repository.file.read_bytes()
    repository.run("merge", status=10)
    assert repository.file.read_bytes() == before


def diverge_from_here(folder: Folder) -> None:
    folder.git("branch", "-f", "main", "other")
    diverge(folder, {"a": "ours"}, {"a": "theirs"})


def test_revert_and_cherry_pick(repository: Folder) -> None:
    """As the table in docs/cli.md says. Each commit is followed by another one, so that git has to merge."""
    def head() -> str:
        return repository.git("rev-parse", "HEAD").strip()

    made = {}
    steps = [("change", ("set", "a"), b"a2"), ("delete", ("rm", "b"), None), ("add", ("set", "n"), b"n1")]
    for name, arguments, value in steps:
        repository.run(*arguments, stdin=value)
        commit(repository, name)
        made[name] = head()
    repository.set("c", "c2")
    repository.run("rotate-key")
    commit(repository, "later")
    for name in ("change", "delete", "add"):
        repository.git("revert", "--no-edit", made[name])
    assert values(repository) == {"a": "a1", "b": "b1", "c": "c2", "n": "n1"}
    repository.git("checkout", "-q", "other")
    repository.set("c", "c3")
    commit(repository, "of this branch")
    for name in ("change", "delete", "add"):
        repository.git("cherry-pick", made[name])
    assert values(repository) == {"a": "a2", "c": "c3", "n": "n1"}

    new = master_key(b"new")
    repository.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    commit(repository, "rotated")
    rotated = head()
    repository.environment[VARIABLE] = new
    repository.set("c", "c4")
    commit(repository, "c4")
    before = repository.file.read_bytes()
    assert "CONFLICT" in repository.git("revert", "--no-edit", rotated, check=False)
    repository.git("revert", "--abort")
    assert repository.file.read_bytes() == before
    repository.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=KEY)
    repository.environment[VARIABLE] = KEY
    assert values(repository) == {"a": "a2", "c": "c4", "n": "n1"}


def test_the_driver_on_its_own(repository: Folder) -> None:
    """Files that are no credentials files, and a missing ancestor."""
    path = repository.path
    (path / "base").write_bytes(b"")
    (path / "ours").write_bytes(repository.file.read_bytes())
    repository.set("d", "d1")
    (path / "theirs").write_bytes(repository.file.read_bytes())
    repository.run("merge", "base", "ours", "theirs")
    repository.run("verify", "--file", "ours")
    assert repository.run("get", "d", "--file", "ours").out == b"d1"
    (path / "theirs").write_text("other\n")
    repository.run("merge", "base", "ours", "theirs", status=5)
    assert "<<<<<<< ours" in (path / "ours").read_text() and "other" in (path / "ours").read_text()
    repository.run("merge", "base", "ours", status=2)
    assert KEY not in (path / "ours").read_text()
