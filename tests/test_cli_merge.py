"""Conflicts that are decided credential by credential: on the command line, and by a person at a terminal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command import Folder, Terminal
from conftest import master_key
from test_cli_git import commit, diverge, repository, values  # noqa: F401 # the fixture

QUESTION = "or [q]uit? "


@pytest.fixture
def unmerged(repository: Folder) -> Folder:
    """Both sides changed a, b and d; ours deleted c, which theirs changed; e and f are no conflicts."""
    repository.set("d", "d1")
    commit(repository, "d")
    repository.git("branch", "-f", "other")
    ours = {"a": "our a", "b": "our b", "c": "", "d": "our d", "e": "our e"}
    diverge(repository, ours, {"a": "their a", "b": "their b", "c": "their c", "d": "", "f": "their f"})
    assert "CONFLICT" in repository.git("merge", "other", check=False)
    return repository


def at_terminal(folder: Folder, *arguments: str, **environment: str) -> Terminal:
    return folder.at_terminal("merge", *arguments, NO_COLOR="1", **environment)


def answer(terminal: Terminal, *answers: str) -> None:
    for text in answers:
        terminal.expect(QUESTION)
        terminal.send(f"{text}\n")


def test_sides_are_chosen_by_name(unmerged: Folder) -> None:
    before = unmerged.file.read_bytes()
    refused = unmerged.run("merge", "--ours", "a", "--theirs", "c", status=10).err
    assert " b (credential" in refused and " d (credential" in refused and " a (credential" not in refused
    assert "--ours NAME" in refused and unmerged.file.read_bytes() == before
    done = unmerged.run("merge", "--ours", "a", "--theirs", "b", "--theirs", "c", "--ours", "d")
    assert values(unmerged) == {
        "a": "our a", "b": "their b", "c": "their c", "d": "our d", "e": "our e", "f": "their f"
    }
    assert "from theirs: set b " in done.err and "from ours: set a " in done.err and "from ours: set d " in done.err
    assert "decided as you said: c (credential of app" in done.err and "git add credentials.omni" in done.err
    commit(unmerged, "merged")
    # What one side deleted is deleted, and stays so.
    deleted = {it["name"] for it in unmerged.run("list", "--deleted", "--json").json["credentials"] if it["deleted"]}
    assert deleted == set()


def test_names_go_before_a_preference(unmerged: Folder) -> None:
    done = unmerged.run("merge", "--prefer", "ours", "--theirs", "a", "--theirs", "d", "--json").json
    assert values(unmerged) == {"a": "their a", "b": "our b", "e": "our e", "f": "their f"}
    assert sorted(it["name"] for it in done["to_ours"]) == ["a", "d", "f"]
    assert sorted(it["name"] for it in done["to_theirs"]) == ["b", "c", "e"]
    assert len(done["decided"]) == 4
    deleted = {it["name"] for it in unmerged.run("list", "--deleted", "--json").json["credentials"] if it["deleted"]}
    assert deleted == {"c", "d"}


def test_a_name_has_to_mean_one_conflict(repository: Folder) -> None:
    for kind in ["token[jwt]", "ssh"]:
        repository.set("a", "1", "--kind", kind, "--scope", '{"x": 1}', "--principal", "it's")
    commit(repository, "namesakes")
    repository.git("branch", "-f", "other")
    for branch in ["other", "main"]:
        repository.git("checkout", "-q", branch)
        for kind in ["token[jwt]", "ssh"]:
            repository.set("a", branch, "--kind", kind, "--scope", '{"x": 1}', "--principal", "it's")
        commit(repository, branch)
    repository.git("merge", "other", check=False)
    before = repository.file.read_bytes()
    said = repository.run("merge", "--ours", "a", status=3).err
    jwt = "a?kind=token%5bjwt%5d&principal=it%27s&scope=%7b%22x%22:1%7d"
    assert "2 credentials a are in conflict" in said and f"'{jwt}'" in said
    for reference in ["a?kind=credential", "b", "missing"]:
        said = repository.run("merge", "--theirs", reference, "--ours", jwt, status=3).err
        assert f"no credential {reference} is in conflict; these are: a (" in said
    assert "by --ours and by --theirs" in repository.run("merge", "--theirs", jwt, "--ours", jwt, status=2).err
    assert "%" in repository.run("merge", "--ours", "a%2", status=12).err
    assert repository.file.read_bytes() == before
    repository.run("merge", "--theirs", jwt, "--ours", 'a?kind=ssh&scope={"x": 1.0}')
    assert repository.get("a", "--kind", "ssh") == b"main" and repository.get("a", "--kind", "token[jwt]") == b"other"
    # Without a conflict there is nothing to decide.
    assert "nothing to merge" in repository.run("merge", "--ours", "a").err


def test_three_files_take_choices(unmerged: Folder) -> None:
    for number, name in enumerate(["base", "ours", "theirs"], 1):
        version = unmerged.git("show", f":{number}:credentials.omni")
        (unmerged.path / name).write_text(version)
    names = ["base", "ours", "theirs"]
    unmerged.run("merge", *names, "--theirs", "a", "--ours", "b", "--ours", "c", "--theirs", "d")
    merged = unmerged.run("show", "--values", "--json", "ours").json["credentials"]
    live = {it["name"]: it["value"] for it in merged if not it["deleted"]}
    assert live == {"a": "their a", "b": "our b", "e": "our e", "f": "their f"}


def test_choices_with_two_master_secrets(repository: Folder) -> None:
    """Whose secret the file has is not said by a choice for a credential."""
    new = master_key(b"new")
    repository.git("checkout", "-q", "other")
    repository.set("a", "theirs")
    repository.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    commit(repository, "other")
    repository.git("checkout", "-q", "main")
    repository.set("a", "ours")
    commit(repository, "main")
    variable = next(iter(set(repository.environment) - set(repository.without_secret().environment)))
    repository.environment[variable] = new
    repository.git("merge", "other", check=False)
    repository.run("merge", "--ours", "a")
    assert repository.get("a") == b"ours"


def test_a_person_decides_each(unmerged: Folder) -> None:
    terminal = at_terminal(unmerged)
    terminal.expect("1 of 4: a (credential of app, {\"all\":true}) (changed by both)")
    terminal.expect("ours: a value of 5 bytes, never expires")
    terminal.expect("theirs: a value of 7 bytes, never expires")
    terminal.expect(QUESTION)
    assert b"our a" not in terminal.seen, "a value is shown although no one asked"
    terminal.send("v\n")
    terminal.expect('ours: "our a", never expires')
    terminal.expect('theirs: "their a", never expires')
    answer(terminal, "x")
    terminal.expect("Answer with one of the letters")
    answer(terminal, "t", "ours")
    terminal.expect("3 of 4: c (credential of app, {\"all\":true}) (deleted by ours, changed by theirs)")
    terminal.expect("ours: deleted, or not there")
    answer(terminal, "o", "theirs")
    shown = terminal.finish()
    assert "git add credentials.omni" in shown
    assert values(unmerged) == {"a": "their a", "b": "our b", "e": "our e", "f": "their f"}
    assert unmerged.leftovers() == []


def test_a_person_edits(unmerged: Folder, tmp_path: Path) -> None:
    script = tmp_path / "editor"
    script.write_text("""#!/bin/sh
        grep -q '^# value = "their a"' "$1" || exit 1
        case $(cat ../step) in
            1) ;;
            2) echo 3 > ../step; sed -i 's/^value = "our a"/value = "both"/; s/^name = "a"/name = "z"/' "$1";;
            3) grep -q '^#! the credential has to stay a (credential of app' "$1" || exit 1
               sed -i 's/^name = "z"/name = "a"\\nexpires = "2040-01-01"/' "$1";;
        esac
    """)
    script.chmod(0o755)
    (tmp_path / "step").write_text("1")
    terminal = at_terminal(unmerged, "--ours", "b", "--ours", "c", "--theirs", "d", EDITOR=str(script))
    # An unchanged text goes back to the question.
    answer(terminal, "e")
    terminal.expect(QUESTION)
    (tmp_path / "step").write_text("2")
    terminal.send("e\n")
    shown = terminal.finish()
    assert "edited: a (credential of app" in shown and "set a " not in shown
    assert values(unmerged) == {"a": "both", "b": "our b", "e": "our e", "f": "their f"}
    listed = unmerged.run("list", "--json").json["credentials"]
    assert [it["expires"] for it in listed if it["name"] == "a"] == ["2040-01-01T00:00:00Z"]


def test_without_an_editor_the_question_comes_again(unmerged: Folder) -> None:
    terminal = at_terminal(unmerged, "--ours", "b", "--ours", "c", "--theirs", "d")
    answer(terminal, "e")
    terminal.expect("no editor")
    answer(terminal, "o")
    terminal.finish()
    assert values(unmerged)["a"] == "our a"


@pytest.mark.parametrize("way", ["quit", "interrupt", "end", "skip"])
def test_giving_up_changes_nothing(unmerged: Folder, way: str) -> None:
    before = unmerged.file.read_bytes()
    terminal = at_terminal(unmerged)
    answer(terminal, "o", "t")
    if way == "skip":
        answer(terminal, "s", "t")
        shown = terminal.finish(10)
        assert "omni-credentials merge --ours 'a' --theirs 'b' --theirs 'd'" in shown
        assert "the two sides do not agree on c (credential" in shown
    else:
        terminal.expect(QUESTION)
        terminal.send({"quit": "q\n", "interrupt": "\x03", "end": "\x04"}[way])
        shown = terminal.finish(128 + signal.SIGINT if way == "interrupt" else 10)
        assert ("interrupted; nothing was changed" if way == "interrupt" else "do not agree on a (") in shown
    assert unmerged.file.read_bytes() == before and unmerged.leftovers() == []
    unmerged.run("merge", "--ours", "a", "--theirs", "b", "--theirs", "d", "--ours", "c")


def test_no_one_waits_for_a_person(unmerged: Folder) -> None:
    """The lock is free while a person is asked, and what others did in the meantime is not lost."""
    terminal = at_terminal(unmerged)
    answer(terminal, "o", "o", "o")
    terminal.expect(QUESTION)
    unmerged.run("merge", "--prefer", "theirs", "--wait", "0")
    before = unmerged.file.read_bytes()
    terminal.send("o\n")
    assert "another process changed the file in the meantime" in terminal.finish(10)
    assert unmerged.file.read_bytes() == before and values(unmerged)["a"] == "their a"
