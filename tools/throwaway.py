#!/usr/bin/env python3
"""Throw-away Postgres servers with the extension at hand, for the demo, the tests and `./just psql`.

Each has its data below the target folder and a Unix socket in a private folder; none listens on the network. Started
by root, a server runs as another account, since Postgres refuses root. Needs what ./just sets in the environment
(OMNI_PG_CONFIG, CARGO_TARGET_DIR) and nothing outside the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

SUPERUSER = "postgres"
START_SECONDS = 60
STOP_SECONDS = 60


class ServerError(Exception):
    """A server could not be made, started or stopped."""


class Account:
    """Who runs the servers: this user, or for root an account without rights."""

    def __init__(self) -> None:
        self.entry = None
        if os.geteuid() == 0:
            self.entry = _first_account("postgres", "nobody")

    @property
    def name(self) -> str:
        return self.entry.pw_name if self.entry else pwd.getpwuid(os.geteuid()).pw_name

    @property
    def popen(self) -> dict:
        """What makes a process of `subprocess` run as this account."""
        if self.entry is None:
            return {}
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        if self.entry is not None:
            for path in paths:
                os.chown(path, self.entry.pw_uid, self.entry.pw_gid)

    def reaches(self, path: Path) -> bool:
        """Whether the account can read `path`; root's home, for one, is closed to others."""
        if self.entry is None:
            return True
        return subprocess.run(["test", "-r", path], cwd="/", **self.popen, check=False).returncode == 0


def _first_account(*names: str) -> pwd.struct_passwd:
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(f"root cannot run Postgres, and there is none of the accounts {', '.join(names)}")


@dataclass
class Installation:
    """The programs of one Postgres, and the folder the extension was staged in."""

    pg_config: Path
    target: Path

    @classmethod
    def from_environment(cls) -> Installation:
        try:
            return cls(Path(os.environ["OMNI_PG_CONFIG"]), Path(os.environ["CARGO_TARGET_DIR"]))
        except KeyError as missing:
            raise ServerError(f"{missing} is not set: run this by way of ./just") from None

    def ask(self, what: str) -> str:
        answer = subprocess.run([self.pg_config, f"--{what}"], check=True, capture_output=True, text=True)
        return answer.stdout.strip()

    @cached_property
    def major(self) -> int:
        return int(re.search(r"\d+", self.ask("version"))[0])

    @cached_property
    def bin(self) -> Path:
        return Path(self.ask("bindir"))

    @property
    def stage(self) -> Path:
        """lib/ and share/extension/ as `./just build` left them."""
        return self.target / "stage" / f"pg{self.major}"

    @cached_property
    def libraries(self) -> str:
        return self.ask("libdir")

    def open_to(self, account: Account) -> Installation:
        """This installation, or a copy where `account` cannot reach it."""
        programs = self.bin / "postgres"
        if account.reaches(programs) and (not self.stage.exists() or account.reaches(self.stage)):
            return self
        home = _shared_home(self.target)
        try:
            inside = programs.relative_to(self.target / "pg")
        except ValueError:
            raise ServerError(f"{programs} is closed to the account that runs servers, {account.name}") from None
        # The whole tree: programs find their files and libraries relative to themselves.
        tree = inside.parts[0]
        _renew_tree(self.target / "pg" / tree, home / "pg" / tree)
        copy = Installation(home / "pg" / inside.with_name("pg_config"), home)
        if self.stage.exists():
            _renew_tree(self.stage, copy.stage)
        return copy


def _renew_tree(source: Path, destination: Path) -> None:
    # Packages that were only unpacked have links into others that are not there.
    shutil.copytree(
        source, destination, copy_function=_renew_file, dirs_exist_ok=True, ignore_dangling_symlinks=True
    )


def _renew_file(source: str, destination: str) -> None:
    """Copies what has changed, by rename: a running server keeps what it has open."""
    new, old = os.stat(source), os.stat(destination) if os.path.exists(destination) else None
    if old is None or (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
        shutil.copy2(source, f"{destination}.new")
        os.replace(f"{destination}.new", destination)


def _shared_home(target: Path) -> Path:
    """Where servers live when the target folder is closed to their account. Each target folder has its own: what is
    copied there must not be another build's."""
    of_target = hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:8]
    home = Path("/var/tmp") / f"omni_credentials-{os.geteuid()}-{of_target}"
    home.mkdir(mode=0o755, exist_ok=True)
    if home.stat().st_uid != os.geteuid() or home.is_symlink():
        raise ServerError(f"{home} belongs to somebody else")
    return home


@dataclass
class Server:
    """One cluster. Its folder holds data/, log and server.json."""

    name: str
    installation: Installation
    folder: Path
    account: Account
    socket: Path
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    # Making and finding

    @classmethod
    def create(cls, name: str, settings: dict[str, str] | None = None, *, initdb: bool = True) -> Server:
        """A new cluster, not started. One of the same name is stopped and removed first."""
        with contextlib.suppress(ServerError):
            cls.find(name).remove()
        account = Account()
        installation = Installation.from_environment()
        folder = _server_folder(installation, account, name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The path of a socket has room for some hundred characters, so it cannot be below the target folder.
        socket = Path(tempfile.mkdtemp(prefix="omni-", dir="/tmp"))
        account.own(folder, socket)
        try:
            server = cls(name, installation.open_to(account), folder, account, socket, {}, settings or {})
            server._save()
            if initdb:
                server._initdb()
        except BaseException:
            shutil.rmtree(socket, ignore_errors=True)
            raise
        return server

    @classmethod
    def find(cls, name: str) -> Server:
        """The cluster that `create` made, perhaps in another process."""
        account = Account()
        installation = Installation.from_environment()
        folder = _server_folder(installation, account, name)
        try:
            saved = json.loads((folder / "server.json").read_text())
        except FileNotFoundError:
            raise ServerError(f"there is no server {name!r}: ./just demo starts one") from None
        installation = Installation(Path(saved["pg_config"]), Path(saved["target"]))
        return cls(
            name, installation, folder, account, Path(saved["socket"]), saved["environment"], saved["settings"]
        )

    def _save(self) -> None:
        state = {
            "pg_config": str(self.installation.pg_config),
            "target": str(self.installation.target),
            "socket": str(self.socket),
            "environment": self.environment,
            "settings": self.settings,
        }
        file = self.folder / "server.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(state, indent=2))

    def _initdb(self) -> None:
        command = [
            self.installation.bin / "initdb",
            *("-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"),
        ]
        done = subprocess.run(
            command, cwd="/", env=self._child_environment(), capture_output=True, text=True, **self.account.popen
        )
        if done.returncode != 0:
            raise ServerError(f"initdb failed:\n{done.stdout}{done.stderr}")

    # Running

    def start(self, environment: dict[str, str] | None = None, prepare: Callable[[], None] | None = None) -> Server:
        """Starts the server with these environment variables (those of the last start when None). `prepare` runs in its
        process before it."""
        if self.running():
            raise ServerError(f"server {self.name!r} is running already")
        if environment is not None:
            self.environment = dict(environment)
        self._save()
        options = [item for pair in self._all_settings().items() for item in ("-c", "=".join(pair))]
        self.socket.mkdir(mode=0o700, exist_ok=True)
        self.account.own(self.socket)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.installation.bin / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=self._child_environment() | self.environment,
                start_new_session=True,
                preexec_fn=prepare,
                **self.account.popen,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"server {self.name!r} did not start; its log ends:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server if it runs: SIGINT ends its sessions first, SIGQUIT is a crash."""
        pid = self.running()
        if not pid:
            return
        os.kill(pid, how)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_alive(pid):
            if time.monotonic() > deadline:
                raise ServerError(f"server {self.name!r} does not stop")
            time.sleep(0.02)

    def restart(self, environment: dict[str, str] | None = None) -> Server:
        """Stops and starts, with other environment variables when given."""
        self.stop()
        return self.start(environment)

    def remove(self) -> None:
        """Stops the server and removes all it has."""
        self.stop()
        shutil.rmtree(self.socket, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def running(self) -> int:
        """The process id of the running server, or 0."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return 0
        return pid if _is_alive(pid) and _is_postgres(pid, self.data) else 0

    def _ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() in ("ready", "standby")

    # Using

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def conninfo(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """What libpq wants to know."""
        return f"host={self.socket} port=5432 dbname={database} user={user}"

    def program(self, name: str, *arguments: str, database: str = "postgres", user: str = SUPERUSER) -> list[str]:
        """The command line of one of the server's client programs."""
        return [str(self.installation.bin / name), "-h", str(self.socket), "-U", user, "-d", database, *arguments]

    def client_environment(self) -> dict[str, str]:
        """The environment for such a program: the caller's, without what would change its output."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return kept | {"LD_LIBRARY_PATH": self.installation.libraries, "PGCLIENTENCODING": "UTF8"}

    def _all_settings(self) -> dict[str, str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "port": "5432",
            # Nothing here outlives the machine.
            "fsync": "off",
            "cluster_name": f"omni-{self.name}",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "timezone": "UTC",
        }
        if self.installation.major >= 18:
            stage = self.installation.stage
            settings["extension_control_path"] = f"{stage}/share:$system"
            settings["dynamic_library_path"] = f"{stage}/lib:$libdir"
        return settings | self.settings

    def _child_environment(self) -> dict[str, str]:
        """The least a server needs: nothing of the caller's environment gets in by chance."""
        return {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "LD_LIBRARY_PATH": self.installation.libraries,
        }


def _server_folder(installation: Installation, account: Account, name: str) -> Path:
    target = installation.target
    target.mkdir(parents=True, exist_ok=True)
    home = target if account.reaches(target) else _shared_home(target)
    return home / "servers" / name


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        # A server that this process started would stay a zombie until it is waited for.
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_postgres(pid: int, data: Path) -> bool:
    """Whether the process is the server of `data`: after a reboot its number may be another's."""
    try:
        return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw-away Postgres servers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("create", "make a new server, in place of one of that name, and start it"),
        ("restart", "stop and start, with these variables if any are given"),
        ("stop", "stop a server and remove it"),
        ("psql", "open psql on a running server"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("name")
        if command in ("create", "restart"):
            sub.add_argument("variables", nargs="*", metavar="NAME=VALUE", help="a variable of the server")
        if command == "psql":
            sub.add_argument("arguments", nargs="*", help="arguments for psql, after --")
    options = parser.parse_args()
    try:
        run(options)
    except ServerError as error:
        sys.exit(f"throwaway: {error}")


def run(options: argparse.Namespace) -> None:
    given = getattr(options, "variables", [])
    if wrong := [item for item in given if "=" not in item]:
        raise ServerError(f"{wrong[0]!r} is not of the form NAME=VALUE")
    variables = dict(item.split("=", 1) for item in given)
    if options.command == "create":
        Server.create(options.name).start(variables)
        return
    server = Server.find(options.name)
    if options.command == "restart":
        server.restart(variables or None)
    elif options.command == "stop":
        server.remove()
    else:
        if not server.running():
            raise ServerError(f"server {options.name!r} is not running")
        command = server.program("psql", *options.arguments)
        os.execve(command[0], command, server.client_environment())


if __name__ == "__main__":
    main()
