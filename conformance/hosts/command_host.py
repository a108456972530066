#!/usr/bin/env python3
"""The command's driver for the matrix of hosts: `command_host.py MODULE.wasm`; see conformance/src/driver.rs.

The command takes files and master secrets, not keyrings and KEKs, so keyrings and sealed values are put into files by the
independent writer of conformance/independent, which shares no code with what is tested.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "independent"))
from omni_credentials_format import (
    File,
    Identity,
    Keyring,
    Sealed,
    StoredKeyring,
    base64_lines,
    canonical_scope,
    parse_time,
    write_time,
)

RELEASE = Path(os.environ["CARGO_TARGET_DIR"]) / "release"
FIELDS = ("name", "kind", "principal", "scope")


class Unsupported(Exception):
    """The command has no way to do it."""


class Refusal(Exception):
    def __init__(self, cause: str, line: int = 0, found: int = 0):
        super().__init__(cause)
        self.fields = {"class": cause, "line": line, "found": found}


class Command:
    def __init__(self, module: str):
        self.module = module
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "credentials.omni"

    def run(self, *arguments: str, secret: bytes = b"", stdin: bytes = b"", status: tuple[int, ...] = (0,)) -> bytes:
        """Runs the command with this master secret; what ends otherwise is the refusal that it reports."""
        environment: dict[str, str | bytes] = {"HOME": self.folder.name, "PATH": "/usr/bin:/bin", "USER": "app"}
        if b"\0" in secret:
            # No variable can hold it; a line end at the end of a file would not be part of it.
            key = Path(self.folder.name) / "key"
            key.write_bytes(secret)
            environment["OMNI_CREDENTIALS_MASTER_PASSWORD_FILE"] = str(key)
        else:
            environment["OMNI_CREDENTIALS_MASTER_PASSWORD"] = secret
        done = subprocess.run(
            [RELEASE / "omni-credentials", "--json", "--module", self.module, *arguments],
            input=stdin, env=environment, cwd=self.folder.name, capture_output=True, check=False,
        )
        if done.returncode in status:
            return done.stdout
        error = json.loads(done.stderr.splitlines()[-1])
        raise Refusal(error.get("class", f"status {done.returncode}"), error.get("line", 0), error.get("found", 0))

    def write(self, file: bytes) -> str:
        self.file.write_bytes(file)
        return str(self.file)

    # ---- What the driver is asked

    def suite(self, request: dict) -> int:
        return json.loads(self.run("module", "inspect"))["suite"]["id"]

    def read_file(self, request: dict) -> dict:
        shown = json.loads(self.run("show", "--values", request["file"], secret=secret(request)))
        records = [
            {field: record[field] for field in FIELDS[:3]}
            | ({"expires": parse_time(record["expires"])} if "expires" in record else {})
            | {"scope": scope_text(record["scope"]), "value": None if record["deleted"] else value_of(record).hex()}
            for record in shown["credentials"]
        ]
        return {"records": records, "generation": shown["generation"]}

    def open(self, request: dict) -> bytes:
        keys = Keyring(bytes.fromhex(request["keyring"]), bytes.fromhex(request["kek"]))
        file = File(keys.data, keys.suite, records={identity(request): Sealed(bytes.fromhex(request["sealed"]), request["identity"].get("expires"))})
        try:
            shown = json.loads(self.run("show", "--values", self.write(file.write(keys)), secret=secret(request)))
        except Refusal as refusal:
            # The line is one of the file around the value.
            raise Refusal(refusal.fields["class"], 0, refusal.fields["found"]) from refusal
        return value_of(shown["credentials"][0])

    def seal(self, request: dict) -> bytes:
        keys = Keyring(bytes.fromhex(request["keyring"]), bytes.fromhex(request["kek"]))
        path = self.write(File(keys.data, keys.suite).write(keys))
        self.set(request | {"file": path})
        lines = self.file.read_text().split("  value\n")[1].split("\n\n")[0]
        return base64.b64decode(lines)

    def derive_kek(self, request: dict) -> bytes:
        """Only its refusals can be seen."""
        keyring = bytes.fromhex(request["keyring"])
        try:
            self.run("verify", "--file", self.write(unsealed(keyring)), secret=secret(request))
        except Refusal as refusal:
            if refusal.fields["class"] != "seal-mismatch":
                raise Refusal(refusal.fields["class"], 0, refusal.fields["found"]) from refusal
        raise Unsupported

    def set(self, request: dict) -> None:
        which = request["identity"]
        narrow = [f"--{field}={which[field]}" for field in FIELDS[1:]]
        if request["value"] is None:
            self.run("rm", "--file", request["file"], *narrow, "--", which["name"], secret=secret(request))
            return
        if which["kind"] not in kinds():
            raise Unsupported
        value = bytes.fromhex(request["value"])
        more = ["--exact"] if value else ["--empty"]
        if "expires" in which:
            more += ["--expires", write_time(which["expires"])]
        self.run(
            "set", "--file", request["file"], *narrow, *more, "--", which["name"], secret=secret(request), stdin=value
        )

    def get(self, request: dict) -> bytes:
        which = request["identity"]
        narrow = [f"--{field}={which[field]}" for field in FIELDS[1:]]
        shown = json.loads(
            self.run("get", "--file", request["file"], *narrow, "--", which["name"], secret=secret(request))
        )
        return value_of(shown)


OPERATIONS: dict[str, Callable[[Command, dict], object]] = {
    "suite": Command.suite,
    "read-file": Command.read_file,
    "open": Command.open,
    "seal": Command.seal,
    "derive-kek": Command.derive_kek,
    "set": Command.set,
    "get": Command.get,
}


@functools.cache
def classes() -> dict[str, str]:
    """The class of a refusal by the words it is told in."""
    told = json.loads(subprocess.run([RELEASE / "drive", "--classes"], capture_output=True, check=True).stdout)
    return {words: cause for cause, words in told.items()}


@functools.cache
def kinds() -> str:
    done = subprocess.run([RELEASE / "omni-credentials", "set", "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def secret(request: dict) -> bytes:
    return bytes.fromhex(request["secret"] or "")


def identity(request: dict) -> Identity:
    which = request["identity"]
    scope = canonical_scope(which["scope"].encode()).decode()
    return Identity(which["name"], which["kind"], which["principal"], scope)


def value_of(record: dict) -> bytes:
    if "unreadable" in record:
        raise Refusal(classes()[record["unreadable"]])
    if "value_base64" in record:
        return base64.b64decode(record["value_base64"])
    return record["value"].encode()


def scope_text(scope: object) -> str:
    return canonical_scope(json.dumps(scope, ensure_ascii=False).encode()).decode()


def unsealed(keyring: bytes) -> bytes:
    """A file with nothing but a keyring, and a seal of the right form that is not right."""
    stored = StoredKeyring(keyring)
    seal = bytes([1, stored.suite.number]) + stored.current + bytes(32)
    lines = ["omni-credentials 1", "keyring", *base64_lines(keyring, "  "), "", "end"]
    lines += ["  records 0", "  generation 1", "  deletions-since 0"]
    return "\n".join([*lines, f"  seal {base64.b64encode(seal).decode()}", ""]).encode()


def answer(command: Command, request: dict) -> dict:
    operation = OPERATIONS.get(request["op"])
    try:
        if operation is None:
            raise Unsupported
        result = operation(command, request)
    except Unsupported:
        return {"unsupported": True}
    except Refusal as refusal:
        return {"refused": refusal.fields}
    return {"ok": result.hex() if isinstance(result, bytes) else result}


def main() -> None:
    command = Command(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer(command, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
