"""The command with a terminal: prompts, editors, and what happens when a person gives up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from command import KEY, PATIENCE, PROGRAM, Folder, Terminal
from conftest import VARIABLE, master_key


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (path := tmp_path / "work").mkdir()
    folder = Folder(path, {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    (tmp_path / "run").mkdir()
    folder.run("init")
    return folder


def editor(folder: Folder, script: str) -> str:
    """A program that gets the name of the text as $1."""
    path = folder.path.parent / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def scratch(folder: Folder) -> list[Path]:
    return list((folder.path.parent / "run").iterdir())


def test_prompts_are_hidden(folder: Folder) -> None:
    nobody = folder.without_secret()
    terminal = nobody.at_terminal("set", "stripe")
    terminal.expect_hidden("Value of stripe: ")
    terminal.send("sk_typed\n")
    terminal.expect_hidden("Master secret: ")
    terminal.send(KEY + "\n")
    shown = terminal.finish()
    assert "sk_typed" not in shown and KEY not in shown and "added stripe" in shown
    assert folder.get("stripe") == b"sk_typed"

    terminal = nobody.at_terminal("get", "stripe")
    terminal.expect_hidden("Master secret: ")
    terminal.send("wrong\n")
    shown = terminal.finish(8)
    assert "\x1b[1;31merror:\x1b[0m" in shown, "no colour on a terminal"
    terminal = nobody.at_terminal("get", "stripe", NO_COLOR="1")
    terminal.expect_hidden("Master secret: ")
    terminal.send("wrong\n")
    assert "\x1b" not in terminal.finish(8)


def test_a_new_secret_is_typed_twice(folder: Folder) -> None:
    nobody = folder.without_secret()
    for second, status in [("different\n", 8), ("secret\n", 0)]:
        terminal = nobody.at_terminal("init", "--file", "new.omni")
        terminal.expect_hidden("New master secret: ")
        terminal.send("secret\n")
        terminal.expect_hidden("again: ")
        terminal.send(second)
        terminal.finish(status)
        assert (folder.path / "new.omni").exists() == (status == 0)
    nobody.run("set", "x", "--file", "new.omni", stdin=b"1", **{VARIABLE: "secret"})


@pytest.mark.parametrize("prompt", ["Value of x: ", "Master secret: "])
def test_giving_up_at_a_prompt(folder: Folder, prompt: str) -> None:
    folder.set("x", "1")
    before = folder.file.read_bytes()
    terminal = folder.without_secret().at_terminal("set", "x")
    if prompt != "Value of x: ":
        terminal.expect_hidden("Value of x: ")
        terminal.send("2\n")
    terminal.expect_hidden(prompt)
    terminal.send("\x03")
    terminal.finish(130)
    assert folder.file.read_bytes() == before and folder.leftovers() == []
    terminal = folder.at_terminal("set", "x")
    terminal.expect_hidden("Value of x: ")
    terminal.send("\n")
    terminal.finish(7)
    assert folder.file.read_bytes() == before


PEM = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"


def test_a_paste_of_several_lines_is_taken_whole(folder: Folder) -> None:
    terminal = folder.at_terminal("set", "pem", "--exact", TERM="xterm")
    terminal.expect("\x1b[?2004h")
    terminal.expect_hidden("Value of pem: ")
    terminal.send(f"\x1b[200~{PEM}\x1b[201~")
    terminal.send("\n")
    assert "\x1b[?2004l" in terminal.finish()
    assert folder.get("pem").decode() == PEM


def test_a_paste_that_the_terminal_does_not_mark_is_refused(folder: Folder) -> None:
    """Not even a line of it reaches the shell."""
    script = "omni-credentials set pem; echo status=$?; read -r -t 1 rest; echo rest=[$rest]"
    terminal = Terminal(["/bin/bash", "-c", script], folder.path, folder.environment)
    terminal.expect_hidden("Value of pem: ")
    terminal.send(PEM + "touch run-by-the-shell\n")
    shown = terminal.finish(0)
    assert "several lines came at a prompt" in shown and "--from-file FILE" in shown
    assert "status=12" in shown and "rest=[]" in shown
    folder.run("get", "pem", status=3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("prompt", ["Value of x: ", "Master secret: "])
def test_signals_at_a_prompt_restore_the_terminal(folder: Folder, number: signal.Signals, prompt: str) -> None:
    terminal = folder.without_secret().at_terminal("set", "x", TERM="xterm")
    if prompt != "Value of x: ":
        terminal.expect_hidden("Value of x: ")
        terminal.send("2\n")
    terminal.expect_hidden(prompt)
    terminal.signal(number)
    terminal.expect_shown()
    assert "\x1b[?2004l" in terminal.finish(128 + number)


def test_stopping_at_a_prompt_restores_the_terminal(folder: Folder) -> None:
    terminal = folder.at_terminal("set", "x")
    terminal.expect_hidden("Value of x: ")
    terminal.signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(terminal.pid, os.WUNTRACED)[1])
    terminal.expect_shown()
    terminal.signal(signal.SIGCONT)
    terminal.expect_hidden("Value of x: ")
    terminal.send("typed\n")
    terminal.finish()
    assert folder.get("x") == b"typed"


def test_edit(folder: Folder) -> None:
    folder.set("a", "one")
    folder.set("b", "line\nline\n", "--kind", "ssh")
    folder.set("c", b"\xff\x00")
    sealed = folder.run("show", "--json").json["credentials"]
    script = r"""sed -i -e 's/"one"/"two"/' -e 's|^# To change nothing.*|[[credential]]\nname = "d"\nvalue = "new"|' "$1" """
    told = folder.run("edit", "--json", VISUAL=editor(folder, script), EDITOR="false").json
    assert told == {"added": 1, "changed": 1, "deleted": 0}
    assert [folder.get(name) for name in "abcd"] == [b"two", b"line\nline\n", b"\xff\x00", b"new"]
    after = {it["name"]: it["sealed"] for it in folder.run("show", "--json").json["credentials"]}
    assert [after[it["name"]] == it["sealed"] for it in sealed] == [False, True, True], "only what changed is sealed anew"
    script = r"""printf '[[credential]]\nname="a"\nvalue="two"\n' > "$1" """
    assert "0 added, 0 changed, 3 deleted" in folder.run("edit", EDITOR=editor(folder, script)).err
    assert [it["name"] for it in folder.run("list", "--json").json["credentials"]] == ["a"]
    assert scratch(folder) == []


def test_edit_that_changes_nothing(folder: Folder) -> None:
    folder.set("a", "one")
    before = folder.file.stat()
    for script in ["true", 'echo "# a remark" >> "$1"', ': > "$1"', 'touch "$1"']:
        assert "nothing was changed" in folder.run("edit", EDITOR=editor(folder, script)).err
        assert folder.file.stat().st_mtime_ns == before.st_mtime_ns
        assert folder.file.stat().st_ino == before.st_ino


def test_the_text_is_private(folder: Folder) -> None:
    folder.set("a", "one")
    out = folder.path.parent / "out"
    script = f'stat -c %a "$1" "$(dirname "$1")" > {out}; env >> {out}; echo swap > "$1.swp"'
    new = {"OMNI_CREDENTIALS_NEW_MASTER_PASSWORD": "new secret"}
    folder.run("edit", "--secret-env", "MINE", EDITOR=editor(folder, script), MINE=KEY, **new)
    assert out.read_text().startswith("600\n700\n")
    assert KEY not in out.read_text() and "new secret" not in out.read_text(), "the editor got a master secret"
    assert scratch(folder) == [], "what the editor left beside the text stayed"


def test_no_editor(folder: Folder) -> None:
    assert "hint: name an editor: EDITOR=vi" in folder.run("edit", status=11).err
    for command in ["false", "no-such-editor", "kill -9 $$;"]:
        folder.run("edit", EDITOR=command, status=11)
    assert scratch(folder) == []


def test_invalid_text_without_a_terminal(folder: Folder) -> None:
    folder.set("a", "one")
    before = folder.file.read_bytes()
    for text in ["[[credential", 'name="x"', '[[credential]]\nname="a"\nscope="{"\nvalue="b"', "\\377"]:
        script = f"""printf '{text}' > "$1" """
        folder.run("edit", EDITOR=editor(folder, script), status=12)
    assert folder.file.read_bytes() == before and scratch(folder) == []


def test_invalid_text_brings_the_person_back(folder: Folder) -> None:
    folder.set("a", "one")
    # The first time it makes a mistake, the second time it finds its text with the reason, and mends it.
    script = r"""
        if grep -q '^#! ' "$1"; then
            grep -q '^#! line [0-9]*: ' "$1" && grep -q 'mine' "$1" || exit 1
            sed -i 's/value = mine/value = "mine"/' "$1"
        else
            sed -i 's/value = "one"/value = mine/' "$1"
        fi"""
    folder.at_terminal("edit", EDITOR=editor(folder, script)).finish()
    assert folder.get("a") == b"mine"
    # Left as it is, it is given up.
    script = r"""grep -q '^#! ' "$1" || sed -i 's/value = "mine"/value = bad/' "$1" """
    assert "line " in folder.at_terminal("edit", EDITOR=editor(folder, script)).finish(12)
    assert folder.get("a") == b"mine" and scratch(folder) == []


def test_edit_while_others_write(folder: Folder) -> None:
    folder.set("a", "one")
    folder.set("b", "one")
    script = others("b", "theirs") + r"""sed -i '0,/"one"/s//"mine"/' "$1" """
    assert "it has both changes now" in folder.run("edit", EDITOR=editor(folder, script)).err
    assert [folder.get("a"), folder.get("b")] == [b"mine", b"theirs"]

    script = others("a", "theirs") + r"""sed -i 's/"mine"/"conflict"/' "$1" """
    refused = folder.run("edit", EDITOR=editor(folder, script), status=10).err
    assert "the two sides do not agree on a (credential of app" in refused
    assert folder.get("a") == b"theirs"

    # With a person there, the second look decides.
    script = rf"""
        if grep -q '^#! .*a (credential of app' "$1"; then grep -q '"mine again"' "$1" || exit 1
        else {others("a", "theirs2")} sed -i '0,/"theirs"/s//"mine again"/' "$1"; fi"""
    folder.at_terminal("edit", EDITOR=editor(folder, script)).finish()
    assert [folder.get("a"), folder.get("b")] == [b"mine again", b"theirs"]
    assert scratch(folder) == [] and folder.leftovers() == []


def locked(folder: Folder) -> str:
    """A script that locks the file as a process of another machine would."""
    text = f"omni-credentials lock 1\\npid 1\\nstart 1\\nboot b\\nnamespace n\\nmachine m\\nhost {socket.gethostname()}-2\\n"
    return f"printf '{text}' > {folder.file}.lock; "


def test_a_text_that_cannot_be_saved_comes_back(folder: Folder) -> None:
    folder.set("a", "one")
    script = rf"""
        if grep -q '^#! .*is locked by' "$1"; then
            grep -q '^#! hint: .*rm ' "$1" && grep -q '"mine"' "$1" && rm {folder.file}.lock
        else {locked(folder)} sed -i 's/"one"/"mine"/' "$1"; fi"""
    folder.at_terminal("edit", "--wait", "0", EDITOR=editor(folder, script)).finish()
    assert folder.get("a") == b"mine"
    # A person who gives up loses nothing by surprise.
    script = rf"""
        if grep -q '^#! .*is locked by' "$1"; then : > "$1"
        else {locked(folder)} sed -i 's/"mine"/"more"/' "$1"; fi"""
    shown = folder.at_terminal("edit", "--wait", "0", EDITOR=editor(folder, script)).finish(9)
    assert "your version" not in shown and scratch(folder) == []


def test_a_text_that_cannot_be_saved_is_kept_encrypted(folder: Folder) -> None:
    folder.set("a", "one")
    script = locked(folder) + """sed -i 's/"one"/"mine"/' "$1" """
    said = folder.run("edit", "--wait", "0", EDITOR=editor(folder, script), status=9).err
    (kept,) = folder.path.glob("credentials.omni.unsaved-*")
    assert f"your version is in {kept.name}, encrypted" in said
    assert b"mine" not in kept.read_bytes() and kept.stat().st_mode & 0o777 == 0o600
    assert folder.run("get", "a", "--file", kept.name).out == b"mine"
    # An editor that fails at the second look does not lose the text either.
    kept.unlink()
    (folder.path / "credentials.omni.lock").unlink()
    script = rf"""grep -q '^#! ' "$1" && exit 1; {locked(folder)} sed -i 's/"one"/"mine"/' "$1" """
    folder.at_terminal("edit", "--wait", "0", EDITOR=editor(folder, script)).finish(11)
    (kept,) = folder.path.glob("credentials.omni.unsaved-*")
    assert folder.run("get", "a", "--file", kept.name).out == b"mine"


def test_a_new_master_secret_while_editing(folder: Folder) -> None:
    folder.set("a", "one")
    new = master_key(b"new")
    rotate = f"{VARIABLE}={KEY} OMNI_CREDENTIALS_NEW_MASTER_PASSWORD={new} omni-credentials rotate-master-secret; "
    script = rotate + """sed -i 's/"one"/"mine"/' "$1" """
    terminal = folder.at_terminal("edit", EDITOR=editor(folder, script))
    for secret in ("wrong", new):
        terminal.expect_hidden("The file has another master secret now: ")
        terminal.send(secret + "\n")
    terminal.finish()
    folder.environment[VARIABLE] = new
    assert folder.get("a") == b"mine"
    folder.run("verify")


def test_line_ends_of_an_editor(folder: Folder) -> None:
    folder.set("a", "one")
    folder.set("b", "line\nline\n")
    folder.set("c", "line\r\nline")
    script = r"""sed -i -e 's/"one"/"two"/' -e 's/$/\r/' -e '1s/^/\xef\xbb\xbf/' "$1" """
    assert "0 added, 1 changed, 0 deleted" in folder.run("edit", EDITOR=editor(folder, script)).err
    assert [folder.get(name) for name in "abc"] == [b"two", b"line\nline\n", b"line\r\nline"]


def test_as_many_credentials_as_a_file_holds(folder: Folder) -> None:
    folder.fill(100_000, 5)
    assert folder.get("n99999") == b"vvvvv"
    script = """sed -i 's/name = "n7"/name = "m7"/' "$1" """
    told = folder.run("edit", EDITOR=editor(folder, script), status=12).err
    assert "more than 100,000 records" in told and "omni-credentials compact" in told
    assert "0 added, 1 changed, 0 deleted" in folder.run("edit", EDITOR=editor(folder, "sed -i '0,/vvvvv/s//w/' \"$1\"")).err


def test_the_text_is_gone_before_the_file_is_saved(folder: Folder) -> None:
    folder.set("a", "one")
    script = locked(folder) + """sed -i 's/"one"/"mine"/' "$1" """
    command = [PROGRAM, "edit", "--wait", "600"]
    environment = folder.environment | {"EDITOR": editor(folder, script)}
    process = subprocess.Popen(command, cwd=folder.path, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lock = folder.path / "credentials.omni.lock"
    wait_until(lambda: lock.exists() and scratch(folder) == [])
    assert process.poll() is None
    lock.unlink()
    assert process.wait(timeout=PATIENCE) == 0 and folder.get("a") == b"mine"


@pytest.mark.parametrize("end", ["twice", "closed", "killed"])
def test_no_text_stays_behind(folder: Folder, end: str) -> None:
    folder.set("a", "one")
    script = "trap '' HUP INT TERM; echo ready; exec sleep 600"
    terminal = folder.at_terminal("edit", EDITOR=editor(folder, script))
    terminal.expect("ready")
    # Another one that edits leaves the text alone.
    folder.run("edit", EDITOR="true")
    assert len(scratch(folder)) == 1
    if end == "twice":
        terminal.signal(signal.SIGTERM)
        # A second one that comes before the first was taken is none.
        time.sleep(0.5)
        terminal.signal(signal.SIGTERM)
        terminal.finish(128 + signal.SIGTERM)
    elif end == "closed":
        assert terminal.close() == 128 + signal.SIGHUP
    else:
        terminal.signal(signal.SIGKILL)
        assert terminal.close() == -signal.SIGKILL and len(scratch(folder)) == 1
        folder.run("edit", EDITOR="true")
    assert scratch(folder) == []


def wait_until(is_so) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def others(name: str, value: str) -> str:
    """What another person does while the editor is open. The editor itself does not get the secret."""
    return f"printf %s {value} | {VARIABLE}={KEY} omni-credentials set {name}; "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_while_editing(folder: Folder, number: signal.Signals) -> None:
    folder.set("a", "one")
    before = folder.file.read_bytes()
    terminal = folder.at_terminal("edit", EDITOR=editor(folder, "echo ready; exec sleep 600"))
    terminal.expect("ready")
    assert scratch(folder) != []
    terminal.signal(number)
    terminal.finish(128 + number)
    assert folder.file.read_bytes() == before and scratch(folder) == []


def test_interrupt_belongs_to_the_editor(folder: Folder) -> None:
    folder.set("a", "one")
    script = """trap 'sed -i s/one/two/ "$1"; exit 0' INT; echo ready; while :; do sleep 0.05; done"""
    terminal = folder.at_terminal("edit", EDITOR=editor(folder, script))
    terminal.expect("ready")
    terminal.send("\x03")
    terminal.finish()
    assert folder.get("a") == b"two"


@pytest.mark.parametrize("words", ["{} --wait", "WAIT=1 {}", "'{}'"])
def test_editors_with_arguments(folder: Folder, words: str) -> None:
    folder.set("a", "one")
    script = """for text; do :; done; sed -i s/one/two/ "$text" """
    folder.run("edit", EDITOR=words.format(editor(folder, script)))
    assert folder.get("a") == b"two"


def test_progress_on_a_terminal_only(folder: Folder) -> None:
    # So many that it takes several redraws on a fast machine: shorter work shows nothing.
    folder.fill(12_000, 3000)
    assert "\r" not in folder.run("rotate-key").err
    terminal = folder.at_terminal("rotate-key")
    terminal.expect("encrypting: ")
    assert " of 12000" in terminal.finish()
    assert folder.leftovers() == []
