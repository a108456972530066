"""The command without a terminal: what it does, and how it ends when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest
from command import KEY, PATIENCE, PROGRAM, Folder
from conftest import VARIABLE, master_key
from packages import TARGET

DOCUMENTATION = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    (path := tmp_path / "work").mkdir()
    return Folder(path)


@pytest.fixture
def folder(empty: Folder) -> Folder:
    empty.run("init")
    return empty


def test_first_steps(folder: Folder) -> None:
    assert stat.S_IMODE(folder.file.stat().st_mode) == 0o600
    assert folder.set("stripe", "sk_live").err == 'added stripe (credential of app, {"all":true})\n'
    assert folder.set("stripe", "sk_new").err.startswith("changed ")
    before = folder.file.read_bytes()
    assert folder.set("stripe", "sk_new").err.startswith("unchanged ")
    assert folder.file.read_bytes() == before, "nothing to change, and it was written"
    assert folder.get("stripe") == b"sk_new"
    assert b"sk_new" not in before and b"sk_live" not in before
    assert folder.run("rm", "stripe").out == b""
    folder.run("get", "stripe", status=3)
    assert folder.run("list").out == b""
    assert "stripe (deleted)" in folder.run("list", "--deleted").text
    assert folder.run("compact", "--json").json == {"forgotten": 1}
    assert folder.run("list", "--deleted").out == b""
    assert folder.leftovers() == []


@pytest.mark.parametrize("value", [b"x", b"a\nb\n", b"\x00\xff\xfe", b"\n", "é\U0001f511".encode(), b"x" * (1 << 20)])
def test_values_are_kept_as_they_are(folder: Folder, value: bytes) -> None:
    folder.set("v", value)
    assert folder.get("v") == value


def test_one_line_end_is_taken_off(folder: Folder) -> None:
    for given, kept in [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b"a", b"a")]:
        folder.run("set", "v", stdin=given)
        assert folder.get("v") == kept


def test_empty_values_must_be_asked_for(folder: Folder) -> None:
    folder.set("v", "precious")
    assert "hint: to set an empty value: omni-credentials set NAME --empty" in folder.run("set", "v", status=7).err
    folder.run("set", "v", stdin=b"", status=7)
    closed = subprocess.run(
        ["/bin/sh", "-c", f"exec {PROGRAM} set v <&-"], cwd=folder.path, env=folder.environment, capture_output=True
    )
    assert closed.returncode == 7
    assert folder.get("v") == b"precious"
    folder.run("set", "v", "--empty")
    assert folder.get("v") == b""


def test_identities(folder: Folder) -> None:
    folder.set("a", "1", "--kind", "api_key", "--scope", '{"x": 1.0, "b": 2}')
    folder.set("a", "2", "--kind", "password", "--principal", "other")
    refused = folder.run("get", "a", status=3).err
    assert "there are 2 credentials a" in refused and "--kind" in refused
    assert folder.get("a", "--kind", "password") == b"2"
    assert folder.get("a", "--principal", "app") == b"1"
    assert folder.get("a", "--scope", '{"b":2.00,"x":1}') == b"1", "scopes are compared as values"
    folder.set("a", "3", "--kind", "api_key", "--scope", '{"b":2,"x":1}')
    assert len(folder.run("list", "--json").json["credentials"]) == 2
    assert folder.run("set", "p", stdin=b"v", PGUSER="session").err.endswith('of session, {"all":true})\n')
    nobody = Folder(folder.path, {"USER": ""})
    assert "--principal" in nobody.run("set", "q", stdin=b"v", status=7).err
    folder.run("set", "a", "--scope", "{", stdin=b"v", status=12)
    folder.run("set", "a", "--kind", "nonsense", stdin=b"v", status=2)
    folder.run("set", "", stdin=b"v", status=12)
    folder.run("set", "v", stdin=b"x" * ((1 << 20) + 1), status=12)


def test_set_changes_the_only_credential_of_that_name(folder: Folder) -> None:
    folder.set("a", "1", "--kind", "api_key", "--principal", "other", "--scope", '{"x":1}')
    assert folder.set("a", "2").err == 'changed a (api_key of other, {"x":1})\n'
    nobody = Folder(folder.path, {"USER": ""})
    assert nobody.set("a", "3").err.startswith("changed a (api_key of other")
    folder.set("a", "4", "--kind", "password")
    assert "there are 2 credentials a" in folder.run("set", "a", stdin=b"5", status=3).err
    assert folder.get("a", "--kind", "password") == b"4" and folder.get("a", "--kind", "api_key") == b"3"


def test_a_value_from_a_file(folder: Folder) -> None:
    pem = b"-----BEGIN KEY-----\nabc\n-----END KEY-----\n"
    (folder.path / "key.pem").write_bytes(pem)
    folder.run("set", "pem", "--from-file", "key.pem", "--exact")
    assert folder.get("pem") == pem
    folder.run("set", "pem", "--from-file", "key.pem")
    assert folder.get("pem") == pem[:-1]
    assert "missing: no such file" in folder.run("set", "pem", "--from-file", "missing", status=4).err
    (folder.path / "key.pem").write_bytes(b"")
    folder.run("set", "pem", "--from-file", "key.pem", status=7)
    folder.run("set", "pem", "--from-file", "key.pem", "--empty", status=2)
    (folder.path / "key.pem").write_bytes(b"x" * ((1 << 20) + 2))
    folder.run("set", "pem", "--from-file", "key.pem", status=12)
    assert folder.get("pem") == pem[:-1]


def test_the_file_is_found_in_a_parent_folder(folder: Folder) -> None:
    (deep := folder.path / "a" / "b").mkdir(parents=True)
    below = Folder(deep, folder.environment)
    below.set("x", "1")
    assert folder.get("x") == b"1" and not below.file.exists()
    # The closest one is meant. A new one is made in the current folder.
    Folder(deep.parent, folder.environment).run("init")
    below.run("get", "x", status=3)
    (deep.parent / "credentials.omni").unlink()
    # The search ends at the top of a work tree, and at a folder in which every user can put a file.
    (deep / ".git").mkdir()
    assert "credentials.omni: no such file" in below.run("list", status=4).err
    (deep / ".git").rmdir()
    below.run("list")
    deep.parent.chmod(0o777)
    below.run("list", status=4)
    deep.parent.chmod(0o755)
    folder.path.chmod(0o1777)
    below.run("list", status=4)


def test_usage_errors_are_json_too(empty: Folder) -> None:
    for arguments in [("set", "--json"), ("--json", "nonsense"), ("get", "x", "--json", "--kind", "nonsense")]:
        told = json.loads(empty.run(*arguments, status=2).err)
        assert told["status"] == 2 and told["hint"] == "omni-credentials help" and "\n" not in told["error"]
    assert empty.run("exec", "--nonsense", "--", "--json", status=2).err.startswith("error: ")
    assert "Usage:" in empty.run("--help", "--json").text
    assert empty.run("help", "set").out == empty.run("set", "--help").out


def test_json_everywhere(folder: Folder) -> None:
    identity = {"name": "a\"\n", "kind": "credential", "principal": "app", "scope": {"all": True}}
    assert folder.run("set", "a\"\n", "--json", stdin=b"\xff").json == identity | {"result": "added"}
    assert folder.run("get", "a\"\n", "--json").json == identity | {"value_base64": "/w=="}
    assert folder.run("list", "--json").json == {"generation": 2, "credentials": [identity | {"deleted": False}]}
    shown = folder.run("show", "--values", "--json").json
    assert shown["credentials"][0]["value_base64"] == "/w=="
    verified = {"generation": 2, "values": 1, "under_older_keys": 0, "unreadable": []}
    assert folder.run("verify", "--json").json == verified
    assert folder.run("rotate-key", "--json").json == {"reencrypted": 1}
    assert folder.run("keygen", "--json").json["key"].startswith("omck1_")
    module = folder.run("module", "inspect", "--json").json
    assert module["suite"] == {"id": 1, "name": "xchacha20poly1305"}
    # The digest that the notes of a release name.
    assert module["digest"] == (TARGET / "modules" / "xchacha20poly1305.wasm.sha256").read_text().split()[0]
    assert folder.run("edit", "--json", EDITOR="true").json == {"added": 0, "changed": 0, "deleted": 0}
    assert folder.run("merge", "--json").json == {"merged": False}
    assert folder.run("rm", "a\"\n", "--json").json["result"] == "deleted"


def test_rotation_and_a_new_master_secret(folder: Folder) -> None:
    for number in range(20):
        folder.set(f"c{number}", f"v{number}")
    old = folder.file.read_bytes()
    folder.run("rotate-key")
    assert folder.run("verify", "--json").json["under_older_keys"] == 0
    assert folder.run("diff", "old", status=1)  # neither a file nor, without a repository, a commit
    (folder.path / "old").write_bytes(old)
    changes = folder.run("diff", "old", "--json").json
    assert changes["keyring_changed"] and {it["change"] for it in changes["changes"]} == {"re-encrypted"}

    new = master_key(b"new")
    folder.run("rotate-master-secret", OMNI_CREDENTIALS_NEW_MASTER_PASSWORD=new)
    assert "the master secret is not the one" in folder.run("get", "c7", status=8).err
    folder.environment[VARIABLE] = new
    assert folder.get("c7") == b"v7"
    folder.run("rotate-master-secret", "--generate", "--key-file", "k")
    assert stat.S_IMODE((folder.path / "k").stat().st_mode) == 0o600
    folder.run("rotate-master-secret", "--generate", "--key-file", "k", status=8)
    keyed = folder.without_secret()
    keyed.environment[f"{VARIABLE}_FILE"] = "k"
    assert keyed.get("c7") == b"v7"
    before = (folder.path / "k").read_bytes()
    keyed.run("rotate-master-secret", "--generate", "--key-file", "k", status=4)
    assert (folder.path / "k").read_bytes() == before, "a key in use was overwritten"


def test_a_password(empty: Folder) -> None:
    empty.environment[VARIABLE] = "correct horse"
    empty.run("init")
    empty.set("a", "1")
    assert empty.get("a") == b"1"
    empty.run("get", "a", status=8, **{VARIABLE: "battery staple"})
    empty.run("get", "a", status=8, **{VARIABLE: "omck1_short"})


# How the command ends


def test_exit_codes_are_documented(empty: Folder) -> None:
    listed = dict(re.findall(r"^  (\d+)\+? +(.+)$", empty.run("--help").text.split("Exit status:")[1], re.M))
    documented = dict(re.findall(r"^\| (\d+)\+? \| (.+?) \|$", DOCUMENTATION, re.M))
    assert listed == documented and len(listed) == 22


def test_secrets(folder: Folder) -> None:
    nobody = folder.without_secret()
    refused = nobody.run("get", "x", status=3)
    folder.set("x", "1")
    refused = nobody.run("get", "x", status=7)
    assert refused.err.count("\n") == 2 and f"hint: export {VARIABLE}=" in refused.err
    assert nobody.run("list").text.startswith("x "), "a list needs no secret"
    nobody.run("show")
    nobody.run("get", "x", status=8, **{VARIABLE: ""})
    nobody.run("get", "x", status=4, **{f"{VARIABLE}_FILE": "/nonexistent"})
    assert nobody.run("get", "x", "--secret-env", "OTHER", OTHER=KEY).out == b"1"
    # A variable has precedence over its companion, unless it is empty; where it is wrong, the hint says so.
    (folder.path / "key").write_text(KEY)
    named = {f"{VARIABLE}_FILE": "key"}
    assert nobody.run("get", "x", **named, **{VARIABLE: ""}).out == b"1"
    assert f"unset {VARIABLE}" in nobody.run("get", "x", status=8, **named, **{VARIABLE: "left over"}).err
    noted = nobody.run("init", "--file", "other.omni", **named, **{VARIABLE: KEY}).err
    assert f"{VARIABLE} is set, so the command does not use {VARIABLE}_FILE" in noted
    assert KEY not in nobody.run("get", "x", status=8, **{VARIABLE: KEY + "x"}).err


def test_files(folder: Folder) -> None:
    folder.set("x", "1")
    whole = folder.file.read_bytes()
    missing = folder.run("get", "x", "--file", "other.omni", status=4).err
    assert "hint: create it: omni-credentials init --file other.omni" in missing
    folder.run("init", status=4)
    folder.run("get", "x", "--file", ".", status=4)
    folder.run("get", "x", "--file", "a/b/c", status=4)
    assert folder.run("get", "x", OMNI_CREDENTIALS_FILE="credentials.omni").out == b"1"
    for damaged, status, message in [
        (b"", 5, "not an encrypted credentials file"),
        (b"{}", 5, "not an encrypted credentials file"),
        (whole[:-10], 5, "line "),
        (whole.replace(b'"x"', b'"y"'), 5, "seal does not match"),
        (whole.replace(b"\n", b"\r\n"), 5, "CR LF"),
        (b"<<<<<<< ours\n" + whole, 5, "unfinished merge"),
        (whole.replace(b"omni-credentials 1\n", b"omni-credentials 2\n"), 6, "newer version"),
    ]:
        folder.file.write_bytes(damaged)
        for command in [("get", "x"), ("set", "x"), ("rm", "x"), ("rotate-key",), ("compact",), ("edit",), ("verify",)]:
            if status == 5 and b'"y"' in damaged and command in [("get", "x"), ("rm", "x")]:
                continue  # without having looked at the seal: there is no x
            refused = folder.run(*command, stdin=b"new" if command[0] == "set" else None, status=status, EDITOR="true")
            assert message in refused.err and "hint: " in refused.err, refused.err
            assert folder.file.read_bytes() == damaged, f"{command} wrote to a damaged file"
    assert folder.leftovers() == []


def test_a_value_of_another_record_is_noticed(folder: Folder) -> None:
    folder.set("a", "1")
    folder.set("b", "2")
    blocks = folder.file.read_text().split("\n\n")
    values = [block.split("  value\n")[1] for block in blocks[1:3]]
    blocks[1], blocks[2] = (
        block.replace(old, new) for block, old, new in zip(blocks[1:3], values, values[::-1], strict=True)
    )
    folder.file.write_text("\n\n".join(blocks))
    folder.run("get", "a", status=5)
    # Without the seal each value still vouches for itself.
    folder.run("merge", status=12)


def test_locks(folder: Folder) -> None:
    folder.set("x", "1")
    lock = folder.path / "credentials.omni.lock"
    other = f"omni-credentials lock 1\npid 1\nstart 1\nboot b\nnamespace n\nmachine m\nhost {socket.gethostname()}-2\n"
    lock.write_text(other)
    refused = folder.run("set", "x", "--wait", "0", stdin=b"2", status=9).err
    assert "is locked by process 1 on host" in refused and f"rm {lock}" in refused
    assert folder.get("x") == b"1", "reading needs no lock"
    assert lock.read_text() == other
    lock.unlink()
    folder.set("x", "2")


def test_two_writers_at_once(folder: Folder) -> None:
    count = 12
    writers = [
        subprocess.Popen([PROGRAM, "set", f"c{n}"], cwd=folder.path, env=folder.environment, stdin=subprocess.PIPE)
        for n in range(count)
    ]
    for n, writer in enumerate(writers):
        writer.communicate(str(n).encode(), timeout=PATIENCE)
        assert writer.returncode == 0
    assert [folder.get(f"c{n}") for n in range(count)] == [str(n).encode() for n in range(count)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_in_the_middle_of_a_write(folder: Folder, number: signal.Signals) -> None:
    """Whenever it comes, the file is the old one or the new one, and nothing lies around."""
    folder.fill(2_000, 5000)
    interrupted = 0
    for delay in range(0, 40, 2):
        before = folder.file.read_bytes()
        process = subprocess.Popen(
            [PROGRAM, "rotate-key"], cwd=folder.path, env=folder.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )
        time.sleep(delay / 1000)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        # Before the first instruction of the command, the system ends it.
        assert process.returncode in (0, 128 + number, -number)
        assert folder.leftovers() == []
        if process.returncode != 0:
            assert folder.file.read_bytes() == before
            interrupted += 1
    assert interrupted > 0
    folder.run("verify")


def test_a_signal_while_waiting_for_a_pipe(folder: Folder) -> None:
    process = subprocess.Popen(
        [PROGRAM, "set", "x"], cwd=folder.path, env=folder.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    process.stdin.close()
    folder.run("get", "x", status=3)


def test_nobody_reads_the_output(folder: Folder) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([PROGRAM, "show"], cwd=folder.path, env=folder.environment, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


# exec


def test_exec(folder: Folder) -> None:
    folder.set("stripe-key", "s p a c e $HOME '\n")
    folder.set("2nd", "2")
    shown = folder.run("exec", "--", "/usr/bin/env", "-0").out.split(b"\0")
    assert b"STRIPE_KEY=s p a c e $HOME '\n" in shown and b"_2ND=2" in shown
    assert not any(line.startswith(VARIABLE.encode()) for line in shown), "the program gets the master secret"
    shown = folder.run("exec", "--only", "2nd", "--", "env").text
    assert "_2ND=2" in shown and "STRIPE" not in shown
    folder.run("exec", "--only", "2nd,nothing", "--", "env", status=3)
    assert folder.run("exec", "--", "printf", "%s|", "$X", "*").out == b"$X|*|", "a shell was there"
    folder.run("exec", "--", "sh", "-c", "exit 42", status=42)
    folder.run("exec", "--", "no-such-program", status=127)
    folder.run("exec", "--", str(folder.file), status=126)
    folder.run("exec", status=2)


def test_exec_refuses_what_is_not_clear(folder: Folder) -> None:
    folder.set("a.b", "1")
    folder.set("a_b", "2")
    assert "would both be A_B" in folder.run("exec", "--", "env", status=12).err
    folder.run("exec", "--only", "a.b", "--", "env")
    folder.set("path", "/evil")
    assert "PATH" in folder.run("exec", "--only", "path", "--", "env", status=12).err
    folder.set("zero", b"\0")
    assert "zero byte" in folder.run("exec", "--only", "zero", "--", "env", status=12).err


def test_exec_passes_on_no_master_secret(folder: Folder) -> None:
    folder.set("a", "1")
    given = {"MINE": KEY, "MINE_FILE": "x", "MINE_COMMAND": "x"}
    for name in [VARIABLE, "OMNI_CREDENTIALS_NEW_MASTER_PASSWORD"]:
        given |= {name: "secret", f"{name}_FILE": "x", f"{name}_COMMAND": "x"}
    shown = folder.run("exec", "--secret-env", "MINE", "--", "env", **given).text
    assert "A=1" in shown and "MINE" not in shown and "MASTER_PASSWORD" not in shown


def test_exec_keeps_ignored_signals_ignored(folder: Folder) -> None:
    folder.set("a", "1")
    script = "for signal in HUP INT TERM; do kill -$signal $$; done; echo alive"
    for starter in (["nohup"], ["sh", "-c", "trap '' HUP INT TERM; exec \"$@\"", "sh"]):
        ignored = "kill -HUP $$; echo alive" if starter == ["nohup"] else script
        done = subprocess.run(
            [*starter, PROGRAM, "exec", "--", "sh", "-c", ignored],
            cwd=folder.path, env=folder.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )
        assert done.stdout == b"alive\n", done


def test_exec_names_a_value_that_is_too_long(folder: Folder) -> None:
    folder.set("big", b"x" * 200_000)
    refused = folder.run("exec", "--", "env", status=12).err
    assert "less than big (credential of app" in refused and "at most 131072 bytes" in refused
    folder.run("rm", "big")
    folder.fill(30, 130_000)
    folder.set("largest", b"x" * 131_000)
    assert "131009 of them largest (credential" in folder.run("exec", "--", "env", status=12).err


def test_exec_passes_signals(folder: Folder) -> None:
    folder.set("a", "1")
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [PROGRAM, "exec", "--", "sh", "-c", script], cwd=folder.path, env=folder.environment, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE) == 7


# Modules


def test_modules(folder: Folder) -> None:
    modules = Path(os.environ["OMNI_CREDENTIALS_MODULES"])
    for name, suite in [("xchacha20poly1305", 1), ("aes256gcmsiv", 2)]:
        path = modules / f"{name}.wasm"
        told = folder.run("module", "verify", str(path), "--json").json
        assert told["suite"]["id"] == suite
        assert told["imports"] == ["wasi:random/random@0.2.3#get-random-bytes"]
        assert told["digest"] == (modules / f"{name}.wasm.sha256").read_text().split()[0]
    assert "not a WebAssembly component" in folder.run("module", "verify", str(folder.file), status=13).err
    folder.run("module", "inspect", "nothing.wasm", status=4)

    other = str(modules / "aes256gcmsiv.wasm")
    refused = folder.run("list", "--module", other, status=6).err
    assert "suite 1" in refused and "--module" in refused
    folder.run("init", "--file", "other.omni", "--module", other)
    folder.run("set", "x", "--file", "other.omni", "--module", other, stdin=b"1")
    assert folder.run("get", "x", "--file", "other.omni", "--module", other).out == b"1"
    folder.run("get", "x", "--file", "other.omni", status=6)


def test_pages(empty: Folder) -> None:
    nobody = empty.without_secret()
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"]:
        assert "rotate-master-secret" in nobody.run("completions", shell).text
    bash = subprocess.run(["bash", "-n"], input=nobody.run("completions", "bash").out, check=False)
    assert bash.returncode == 0
    assert nobody.run("man").text.startswith(".ie")
    (empty.path / "man").mkdir()
    nobody.run("man", "man")
    assert {"omni-credentials.1", "omni-credentials-exec.1"} <= {path.name for path in (empty.path / "man").iterdir()}


def test_every_command_is_documented(empty: Folder) -> None:
    listed = empty.run("--help").text.split("Commands:\n")[1].split("\n\n")[0]
    commands = re.findall(r"^  ([\w-]+) ", listed, re.M)
    assert len(commands) == 23
    documented = set(re.findall(r"^### `omni-credentials ([\w-]+)", DOCUMENTATION, re.M))
    assert documented == set(commands)
    ours = re.sub(r"`git [^`]*`", "", DOCUMENTATION)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    helps = "".join(empty.run("help", command).text for command in commands)
    missing = {option for option in options if option not in helps}
    assert not missing, f"documented, but not there: {missing}"
