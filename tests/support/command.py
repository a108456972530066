"""Running the command `omni-credentials` in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conftest import MASTER_KEY, VARIABLE, Database, master_key

PROGRAM = Path(os.environ["CARGO_TARGET_DIR"]) / "release" / "omni-credentials"
KEY = master_key(b"command")
# How long a thing may take that has no reason to take long.
PATIENCE = 60


@dataclass
class Result:
    status: int
    out: bytes
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass
class Folder:
    """A folder to work in, and the environment the command gets; nothing of the caller's gets in by chance."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    # What runs in the command's process before it.
    prepare: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        home = Path(self.environment.get("HOME", self.path.parent / "home"))
        home.mkdir(exist_ok=True)
        self.environment = {
            "PATH": f"{PROGRAM.parent}:/usr/bin:/bin:/usr/local/bin",
            "HOME": str(home),
            "USER": "app",
            "LANG": "C.UTF-8",
            VARIABLE: KEY,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.org",
        } | self.environment

    @property
    def file(self) -> Path:
        return self.path / "credentials.omni"

    def without_secret(self) -> Folder:
        environment = {key: value for key, value in self.environment.items() if key != VARIABLE}
        folder = Folder(self.path, environment)
        folder.environment.pop(VARIABLE)
        return folder

    def fill(self, count: int, size: int) -> None:
        """Gives the file this many credentials, of values of this many bytes, at once."""
        text = self.path.parent / "fill"
        text.write_text("".join(f'[[credential]]\nname = "n{n}"\nvalue = "{"v" * size}"\n' for n in range(count)))
        self.run("edit", EDITOR=f"cp '{text}'")

    def run(self, *arguments: str, status: int = 0, stdin: bytes | None = None, **environment: str) -> Result:
        """Runs the command without a terminal and expects this status."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=self.environment | environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=PATIENCE,
            start_new_session=True,
            preexec_fn=self.prepare,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode())
        assert result.status == status, f"{arguments}: status {result.status}, not {status}\n{result.err}{result.out!r}"
        return result

    def set(self, name: str, value: str | bytes, *arguments: str) -> Result:
        return self.run("set", name, "--exact", *arguments, stdin=value if isinstance(value, bytes) else value.encode())

    def get(self, name: str, *arguments: str) -> bytes:
        return self.run("get", name, *arguments).out

    def git(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *arguments],
            cwd=self.path, env=self.environment, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE, check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    def leftovers(self) -> list[str]:
        """Locks and temporary files that no one removed."""
        return [path.name for path in self.path.iterdir() if ".lock" in path.name or path.name.endswith(".tmp")]

    def at_terminal(self, *arguments: str, **environment: str) -> Terminal:
        return Terminal([str(PROGRAM), *arguments], self.path, self.environment | environment)


class Terminal:
    """The command with a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            with contextlib.suppress(OSError):
                os.execve(command[0], command, {"TERM": "dumb"} | environment)
            os._exit(99)
        self.seen = b""
        self._looked = 0

    def expect(self, text: str) -> None:
        """Waits until this was printed, after what was waited for last."""
        deadline = time.monotonic() + PATIENCE
        wanted = text.encode()
        while (at := self.seen.find(wanted, self._looked)) < 0:
            assert self._read(deadline), f"{text!r} did not come: {self.seen!r}"
        self._looked = at + len(wanted)

    def expect_hidden(self, prompt: str) -> None:
        """Waits for a prompt, and until the terminal shows no more what is typed."""
        self.expect(prompt)
        deadline = time.monotonic() + PATIENCE
        while termios.tcgetattr(self.fd)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed appears on the screen"
            time.sleep(0.01)

    def expect_shown(self) -> None:
        """Waits until the terminal shows again what is typed."""
        deadline = time.monotonic() + PATIENCE
        while not termios.tcgetattr(self.fd)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed does not appear on the screen"
            time.sleep(0.01)

    def close(self) -> int:
        """Closes the terminal under the command, and gives the command's status."""
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def finish(self, status: int = 0) -> str:
        """Reads to the end, expects this status, and gives all that was printed."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        _, wait = os.waitpid(self.pid, 0)
        os.close(self.fd)
        found = os.waitstatus_to_exitcode(wait)
        assert found == status, f"status {found}, not {status}: {self.seen!r}"
        return self.seen.decode().replace("\r\n", "\n")

    def _read(self, deadline: float) -> bool:
        """Reads some; false at the end."""
        ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing came: {self.seen!r}"
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            return False
        self.seen += data
        return bool(data)


def beside(database: Database) -> Folder:
    """A folder in the server's data directory, for the server runs as another user; with the server's secret."""
    path = database.server.data / f"store-{database.name}" / "work"
    path.mkdir(parents=True)
    database.server.account.own(path.parent, path)
    return Folder(path, {VARIABLE: MASTER_KEY})


def own(database: Database, folder: Folder) -> None:
    """Gives the file to the server's user. Where both are one user, as in development, it is theirs already."""
    database.server.account.own(*folder.path.iterdir())
