"""NAME_COMMAND: a program that prints the master secret, the same way in every host."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import KEY, PROGRAM, Folder
from conftest import PYTHON_HOST, VARIABLE
from printing import FAILURES, TARGET, arguments, environment, files, is_alive, recorder, runs, script

VECTORS = json.loads((Path(__file__).parents[1] / "conformance" / "commands.json").read_text())
PYTHON = """
import sys
from omni_credentials import CredentialsError, Store
try:
    with Store.open(sys.argv[1]) as store:
        print(store.get("n").decode())
except CredentialsError as error:
    print(f"{type(error).__name__}|{error}|{error.hint}", file=sys.stderr)
    sys.exit(1)
"""
NODE = """
import { Store } from "omni-credentials";
try {
    console.log((await Store.open(process.argv[1])).getText("n"));
} catch (error) {
    console.error(`${error.name}|${error.message}|${error.hint}`);
    process.exit(1);
}
"""
HOSTS = {
    "command": [str(PROGRAM), "--json", "get", "n", "--file"],
    "python": [sys.executable, "-c", PYTHON],
    "node": ["node", "--input-type=module", "-e", NODE, "--"],
}
COMMAND = f"{VARIABLE}_COMMAND"


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(request.param, tmp_path)


class Host:
    """A host with a file of one credential, and no secret in its environment."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        (path / "work").mkdir()
        self.folder = Folder(path / "work", {"XDG_CACHE_HOME": str(TARGET / "python" / "cache")})
        self.folder.run("init")
        self.folder.set("n", "value")
        self.environment = {key: value for key, value in self.folder.environment.items() if key != VARIABLE}
        self.environment["PYTHONPATH"] = os.pathsep.join([str(PYTHON_HOST), *sys.path])

    def start(self, pass_fds: tuple[int, ...] = (), **more: str) -> subprocess.Popen:
        # Packages of Node are found from here.
        return subprocess.Popen(
            [*HOSTS[self.name], str(self.folder.file)], cwd=TARGET / "node" / "installed",
            env=self.environment | more, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )

    def reads(self, pass_fds: tuple[int, ...] = (), **more: str) -> str:
        process = self.start(pass_fds, **more)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return json.loads(out)["value"] if self.name == "command" else out.decode().rstrip("\n")

    def refuses(self, kind: str = "SecretCommandError", **more: str) -> tuple[str, str]:
        """What it says, and the hint."""
        process = self.start(**more)
        out, err = process.communicate(timeout=90)
        assert process.returncode != 0 and not out, out
        if self.name == "command":
            told = json.loads(err.splitlines()[-1])
            assert told["status"] == process.returncode == 17
            return told["error"], told["hint"]
        name, message, hint = err.decode().splitlines()[-1].split("|")
        assert name.removesuffix("Error") == kind.removesuffix("Error")
        return message, hint


def test_the_words_of_a_command(host: Host, tmp_path: Path) -> None:
    program = recorder(tmp_path, KEY)
    for vector in VECTORS["split"]:
        assert host.reads(**{COMMAND: f"{program} {vector['command']}"}) == "value"
        assert arguments(tmp_path) == vector["words"], vector["comment"]
    assert runs(tmp_path) == len(VECTORS["split"]), "a host runs the program once"


def test_what_is_no_command(host: Host) -> None:
    for vector in (*VECTORS["refused"], *VECTORS["refused_programs"]):
        if not vector["command"]:
            continue
        message, hint = host.refuses(**{COMMAND: vector["command"]})
        assert message.startswith(f"{COMMAND}: the command "), vector["comment"]
        assert COMMAND in hint


def test_what_the_program_gets(host: Host, tmp_path: Path) -> None:
    given = VECTORS["environment"]
    program = recorder(tmp_path, KEY)
    more = dict.fromkeys((*given["passed_on"], *given["kept"]), "/nowhere") | {"PATH": os.environ["PATH"]}
    # They would change the host itself.
    for name in ("LD_PRELOAD", "NODE_OPTIONS", "PYTHONPATH", "XDG_CACHE_HOME"):
        more.pop(name, None)
    with open("/dev/null") as file:
        kept = os.dup2(file.fileno(), 77)
    assert host.reads(pass_fds=(kept,), **more, **{COMMAND: str(program)}) == "value"
    os.close(kept)
    assert "0" in files(tmp_path)
    # Node cannot close what it inherited itself; what it opened is closed.
    assert "77" not in files(tmp_path) or host.name == "node"
    found = environment(tmp_path) - {"PWD", "_", "SHLVL", "OLDPWD"}
    assert set(given["passed_on"]) <= found
    assert found <= {*given["passed_on"], "XDG_CACHE_HOME"}


@pytest.mark.parametrize("case", FAILURES)
def test_a_program_that_fails(host: Host, tmp_path: Path, case: str) -> None:
    text, expected = FAILURES[case]
    program = script(tmp_path / "program", text)
    message, _ = host.refuses(**{COMMAND: str(program)})
    assert message == f"{COMMAND}: {expected.format(program=program)}"


def test_programs_that_cannot_run(host: Host, tmp_path: Path) -> None:
    plain = script(tmp_path / "plain", "echo s", mode=0o644)
    for command, expected in (
        ("/nowhere/program", "there is no such program: /nowhere/program"),
        ("no-such-program-anywhere", "there is no such program: no-such-program-anywhere"),
        (f"{plain}", f"the program is not executable: {plain}"),
        (f"{tmp_path}", f"the program is not executable: {tmp_path}"),
    ):
        message, _ = host.refuses(**{COMMAND: command})
        assert message == f"{COMMAND}: {expected}"


def test_what_counts_of_the_output(host: Host, tmp_path: Path) -> None:
    """Exactly as of a file."""
    for output in (KEY, KEY + "\n", KEY + "\r\n"):
        assert host.reads(**{COMMAND: f"printf %s {shlex.quote(output)}"}) == "value"
    binary = script(tmp_path / "binary", r"printf '\377\000\001'")
    for command in (f"printf '%s\\n\\n' {KEY}", str(binary)):
        process = host.start(**{COMMAND: command})
        process.communicate(timeout=60)
        assert process.returncode == (8 if host.name == "command" else 1), "not the secret of the file"


def test_a_program_is_found_on_the_search_path(host: Host, tmp_path: Path) -> None:
    script(tmp_path / "print-it", f"echo {KEY}")
    assert host.reads(**{COMMAND: "print-it", "PATH": f"{tmp_path}:{os.environ['PATH']}"}) == "value"


def test_which_variable_counts(host: Host, tmp_path: Path) -> None:
    program = recorder(tmp_path, KEY)
    key = tmp_path / "key"
    key.write_text(KEY)
    by_file, by_program = {f"{VARIABLE}_FILE": str(key)}, {COMMAND: str(program)}
    assert host.reads(**{VARIABLE: KEY}, **by_program) == "value"
    assert host.reads(**{VARIABLE: KEY, f"{VARIABLE}_FILE": "/nowhere"}, **by_program) == "value"
    assert host.reads(**{VARIABLE: ""}, **by_file, **{COMMAND: ""}) == "value"
    assert runs(tmp_path) == 0
    assert host.reads(**{VARIABLE: "", f"{VARIABLE}_FILE": ""}, **by_program) == "value"
    assert runs(tmp_path) == 1
    for more in ({}, {VARIABLE: ""}):
        message, hint = host.refuses("InvalidInput", **more, **by_file, **by_program)
        assert message == f"{VARIABLE}_FILE and {COMMAND} are both set"
        assert hint == f"unset {VARIABLE}_FILE, or: unset {COMMAND}"
    assert runs(tmp_path) == 1


def test_what_the_program_leaves_behind(host: Host, tmp_path: Path) -> None:
    """An agent that it started may stay, and may hold its output."""
    program = script(tmp_path / "program", f"sleep 60 & echo $! > {tmp_path}/agent; echo {KEY}")
    assert host.reads(**{COMMAND: str(program)}) == "value"
    agent = int((tmp_path / "agent").read_text())
    assert is_alive(agent)
    os.kill(agent, signal.SIGKILL)


def test_a_program_that_hangs(tmp_path: Path) -> None:
    """It is killed with all that it started. The hosts wait at the same time."""
    hosts = []
    for name in HOSTS:
        (path := tmp_path / name).mkdir()
        hosts.append(Host(name, path))
        script(path / "program", f"trap '' TERM INT HUP; sleep 300 & echo $! $$ > {path}/pids; echo waiting >&2; wait; wait")
    with ThreadPoolExecutor(len(hosts)) as pool:
        told = list(pool.map(lambda host: host.refuses(**{COMMAND: str(tmp_path / host.name / "program")}), hosts))
    for host, (message, _) in zip(hosts, told, strict=True):
        program = tmp_path / host.name / "program"
        assert message == f"{COMMAND}: the program did not end within 30 seconds: {program}, which said: waiting"
        deadline = time.monotonic() + 30
        pids = [int(pid) for pid in (tmp_path / host.name / "pids").read_text().split()]
        while any(map(is_alive, pids)):
            assert time.monotonic() < deadline, "something goes on"
            time.sleep(0.05)


def test_the_command_ends_the_program(tmp_path: Path) -> None:
    host = Host("command", tmp_path)
    program = script(tmp_path / "program", f"sleep 300 & echo $! $$ > {tmp_path}/pids; wait")
    process = host.start(**{COMMAND: str(program)})
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().strip():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in err
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "something goes on"
        time.sleep(0.05)


def test_git_runs_the_program_once(tmp_path: Path) -> None:
    """What asks whether there is a secret, and then uses it."""
    host = Host("command", tmp_path)
    program = recorder(tmp_path, KEY)
    (tmp_path / "other").write_bytes(host.folder.file.read_bytes())
    host.folder.environment.pop(VARIABLE)
    host.folder.run("diff", str(tmp_path / "other"), "--values", **{COMMAND: str(program)})
    assert runs(tmp_path) == 1


def test_the_program_that_exec_runs_gets_none_of_it(tmp_path: Path) -> None:
    host = Host("command", tmp_path)
    host.folder.environment.pop(VARIABLE)
    done = host.folder.run("exec", "--", "env", **{COMMAND: f"printf %s {KEY}"})
    assert COMMAND not in done.text and "N=value" in done.text
