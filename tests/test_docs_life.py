"""The pages about commands that print a secret, and about the log of reads, work as they are written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from command import KEY, Folder
from conftest import MASTER_KEY, VARIABLE, Database, new_server
from printing import script

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = (DOCS / "secret-commands.md").read_text()
TABLE = COMMANDS.split("## Examples")[1].split("##")[0]
EXAMPLES = dict(re.findall(r"^\| ([^|`]+) \| `([^`]+)` \|$", TABLE, re.M))


def stand_ins(folder: Path, secret: str) -> Path:
    """Programs that print the secret if they are called as the page says, whatever that program is."""
    folder.mkdir()
    for command in EXAMPLES.values():
        program, *arguments = shlex.split(command)
        expected = " ".join(map(shlex.quote, arguments))
        script(folder / program, f'[ "$*" = {shlex.quote(" ".join(arguments))} ] || {{ echo "not $*, but" {shlex.quote(expected)} >&2; exit 9; }}\necho {secret}')
    return folder


@pytest.mark.parametrize("where", EXAMPLES)
def test_the_examples_of_commands(tmp_path: Path, where: str) -> None:
    assert len(EXAMPLES) == 7
    folder = Folder(tmp_path).without_secret()
    programs = stand_ins(tmp_path / "programs", KEY)
    path = f"{programs}:{folder.environment['PATH']}"
    folder.run("init", **{VARIABLE: KEY})
    folder.run("verify", PATH=path, **{f"{VARIABLE}_COMMAND": EXAMPLES[where]})


def test_the_shell_of_the_page_of_commands(tmp_path: Path) -> None:
    folder = Folder(tmp_path).without_secret()
    folder.run("init", **{VARIABLE: KEY})
    folder.run("set", "stripe", stdin=b"sk_live", **{VARIABLE: KEY})
    programs = stand_ins(tmp_path / "programs", "c2VjcmV0")
    script(programs / "pass", f"echo {KEY}")
    first, second = re.findall(r"```sh\n(.*?)```", COMMANDS, re.S)
    second = second.replace("/usr/local/bin/", f"{tmp_path}/") + f"\n{tmp_path}/omni-master-key\n"
    done = subprocess.run(
        ["sh", "-eu", "-c", first + second], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=folder.environment | {"PATH": f"{programs}:{folder.environment['PATH']}"}, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sk_live" in done.stdout and done.stdout.endswith("secret")


def test_the_variables_of_the_page_of_commands() -> None:
    """As the vectors have them, which every host is tested with."""
    vectors = json.loads((DOCS.parent / "conformance" / "commands.json").read_text())["environment"]
    (item,) = re.findall(r"^- It gets `PATH` .*?(?=^- )", COMMANDS, re.M | re.S)
    names = set(re.findall(r"`([A-Z_]+)`", item))
    prefixes = tuple(name for name in names if name.endswith("_"))
    for name in vectors["passed_on"]:
        assert name in names or name.startswith(prefixes) or name.lower().endswith("_proxy"), name
    for name in vectors["kept"]:
        assert name not in names and not name.startswith(prefixes), name


def test_the_page_of_the_audit() -> None:
    page = (DOCS / "audit.md").read_text()
    server = new_server("audit-page")
    try:
        server.start({VARIABLE: MASTER_KEY})
        Database(server, "postgres").run("create extension omni_credentials")
        first, second = re.findall(r"```sql\n(.*?)```", page, re.S)

        def psql(text: str) -> None:
            done = subprocess.run(
                server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
                input=text, env=server.client_environment(), capture_output=True, text=True, check=False,
            )
            assert done.returncode == 0, done.stderr

        psql(first)
        database = Database(server, "postgres")
        while database.run("select current_setting('omni_credentials.log_reads', true)") != [("on",)]:
            time.sleep(0.05)
        psql(second)
        (shown,) = re.findall(r"LOG:  credential read: \{.*?\}\n```", page, re.S)
        shown = re.sub(r"\n    ", "", shown.removesuffix("\n```"))
        (logged,) = [line for line in server.log.read_text().splitlines() if "credential read: " in line]
        assert logged.endswith(shown)
    finally:
        server.remove()
