#!/usr/bin/env python3
"""The demo: a throw-away server, the SQL of this folder, and its output as psql prints it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

from throwaway import Server, ServerError  # noqa: E402

SECRETS = {
    "OMNI_CREDENTIALS_MASTER_PASSWORD": "correct horse battery staple",
    "APP_SECRETS_MASTER_PASSWORD": "another secret for another copy",
}


def tell(server: Server, file: str, *, may_fail: bool = False) -> None:
    """Runs one file through psql, which echoes every line it reads."""
    stop = "0" if may_fail else "1"
    command = server.program(
        "psql", "-X", "-a", "-q", "-v", f"ON_ERROR_STOP={stop}", "-P", "footer=off", "-P", "pager=off", "-f", f"demo/{file}"
    )
    with subprocess.Popen(
        command,
        cwd=HERE.parent,
        env=server.client_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as psql:
        show(psql.stdout)
    if psql.returncode != 0:
        sys.exit(f"demo: {file} ended with {psql.returncode}; the server's log is {server.log}")


def show(lines: Iterable[str]) -> None:
    """Prints psql's output with one empty line between parts; on a terminal comments are bold and errors red."""
    terminal = sys.stdout.isatty()
    blank = True
    for line in lines:
        text = re.sub(r"^psql:\S+:\d+: ", "", line.rstrip())
        if blank and not text:
            continue
        if text.startswith("-- ") and not blank:
            print()
        blank = not text
        style = "1" if text.startswith("-- ") else "31" if text.startswith("ERROR:") else ""
        print(f"\033[{style}m{text}\033[0m" if terminal and style else text, flush=True)


def main() -> None:
    try:
        server = Server.create("demo").start(SECRETS)
        tell(server, "1-story.sql")
        print()
        server.restart(SECRETS | {"OMNI_CREDENTIALS_MASTER_PASSWORD": "a wrong guess"})
        tell(server, "2-wrong-secret.sql", may_fail=True)
        server.restart(SECRETS)
    except ServerError as error:
        sys.exit(f"demo: {error}")
    print(
        "\nThe server runs on, with the right secret again."
        "\n  ./just psql     opens psql on it"
        "\n  ./just stop     stops it and removes its data"
    )


if __name__ == "__main__":
    main()
