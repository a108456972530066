"""A program that prints the master secret, as every host runs it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time

from .errors import SecretCommandError

# How long the program may take, in seconds.
_TIME_LIMIT = 30
# How much of its standard error is kept, in bytes: the end.
_MAX_PRINTED = 1000
# How long to wait before looking again whether it has ended, in seconds.
_TICK = 0.02
_READ = 4096
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"

# conformance/commands.json has examples of what a program gets and does not get.
_PASSED_ON = frozenset(
    b"ALL_PROXY CREDENTIALS_DIRECTORY DISPLAY GNUPGHOME GPG_TTY HOME HTTPS_PROXY HTTP_PROXY LANG LANGUAGE LC_ALL LOGNAME NO_PROXY"
    b" PATH SHELL SSH_AUTH_SOCK SSL_CERT_DIR SSL_CERT_FILE TERM TMPDIR TZ USER WAYLAND_DISPLAY all_proxy http_proxy"
    b" https_proxy no_proxy".split()
)
_PASSED_ON_PREFIXES = tuple(
    b"AGE_ AWS_ AZURE_ BAO_ BITWARDENCLI_ BWS_ BW_ CLOUDSDK_ DBUS_ DOPPLER_ GOOGLE_ INFISICAL_ KUBERNETES_ OP_"
    b" PASSWORD_STORE_ SOPS_ VAULT_ XDG_".split()
)


def run(command: bytes, variable: str, folder: str | None, most: int) -> bytes:
    """What the program of a command prints, at most so many bytes. It gets no input and few variables, and has a session
    of its own. Raises `SecretCommandError`."""
    words = split(command, variable)
    if not words:
        raise _failure(variable, "the command is empty")
    program = words[0]
    if not program or (b"/" in program and not program.startswith(b"/")):
        raise _failure(
            variable,
            "the command names neither a program on the search path nor the absolute path of one",
            program,
        )
    environment = _environment(variable)
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, cwd=folder or None, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        reason = "there is no such program"
    except PermissionError:
        reason = "the program is not executable"
    except OSError as error:
        reason = f"the program cannot be run: {error.strerror}"
    else:
        return _wait(child, variable, program, most)
    raise _failure(variable, reason, program)


def split(command: bytes, variable: str) -> list[bytes]:
    """The words of a command. Single quotes take the meaning from everything; between double quotes, a backslash does from
    `"`, `\\`, `$` and a backquote; outside of quotes, from any character. Before a line end, it stands for nothing, and the
    line end as well. Nothing is expanded. The module shlex reads `\\$` differently."""
    words: list[bytes] = []
    word: bytearray | None = None
    at = 0
    while at < len(command):
        byte = command[at : at + 1]
        at += 1
        if byte in b" \t\r\n":
            if word is not None:
                words.append(bytes(word))
            word = None
        elif byte == b"'":
            end = command.find(b"'", at)
            if end < 0:
                raise _failure(variable, "the command has a single quote without its pair")
            word = (word or bytearray()) + command[at:end]
            at = end + 1
        elif byte == b'"':
            quoted, at = _double_quoted(command, at, variable)
            word = (word or bytearray()) + quoted
        elif byte == b"\\":
            if at == len(command):
                raise _failure(variable, "the command ends with a backslash")
            if command[at : at + 1] != b"\n":
                word = (word or bytearray()) + command[at : at + 1]
            at += 1
        else:
            word = (word or bytearray()) + byte
    return words if word is None else [*words, bytes(word)]


def _double_quoted(command: bytes, at: int, variable: str) -> tuple[bytes, int]:
    """What stands between double quotes, and the place after them."""
    quoted = bytearray()
    while at < len(command):
        byte, following = command[at : at + 1], command[at + 1 : at + 2]
        if byte == b'"':
            return bytes(quoted), at + 1
        if byte == b"\\" and following == b"\n":
            at += 2
        elif byte == b"\\" and following and following in b'"\\$`':
            quoted += following
            at += 2
        else:
            quoted += byte
            at += 1
    raise _failure(variable, "the command has a double quote without its pair")


def _wait(child: subprocess.Popen[bytes], variable: str, program: bytes, most: int) -> bytes:
    """Reads what the program prints until it has ended. However this ends, so has the program."""
    printed, errors = bytearray(), bytearray()
    started = time.monotonic()
    try:
        assert child.stdout is not None and child.stderr is not None
        with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
            for pipe, into, limit in ((child.stdout, printed, most), (child.stderr, errors, None)):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, (into, limit))
            ended = False
            while not ended:
                if time.monotonic() - started > _TIME_LIMIT:
                    raise _failure(variable, f"the program did not end within {_TIME_LIMIT} seconds", program, errors)
                # What it has printed by then is in the pipes.
                ended = child.poll() is not None
                for key, _ in selector.select(0 if ended else _TICK) if selector.get_map() else ():
                    _read(selector, key)
                if len(printed) > most:
                    raise _failure(variable, f"the program printed more than {most} bytes", program, errors)
                if not ended and not selector.get_map():
                    time.sleep(_TICK)
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode < 0:
        raise _failure(variable, f"the program was ended by signal {-child.returncode}", program, errors)
    if child.returncode > 0:
        raise _failure(variable, f"the program ended with status {child.returncode}", program, errors)
    if not bytes(printed).strip():
        raise _failure(variable, "the program printed nothing", program, errors)
    return bytes(printed)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Reads what can be read at once, of a program that never stops no more than fits into a pipe."""
    into, most = key.data
    for _ in range(64):
        try:
            read = os.read(key.fd, _READ)
        except BlockingIOError:
            return
        if not read:
            selector.unregister(key.fileobj)
            return
        into += read
        if most is None:
            del into[:-_MAX_PRINTED]
        elif len(into) > most:
            return


def _environment(variable: str) -> dict[bytes, bytes]:
    own = {os.fsencode(variable + ending) for ending in ("", "_FILE", "_COMMAND")}
    passed_on = {
        name: value
        for name, value in os.environb.items()
        if (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)) and name not in own
    }
    return passed_on | {b"PATH": passed_on.get(b"PATH") or _DEFAULT_PATH}


def _failure(variable: str, reason: str, program: bytes = b"", errors: bytes | bytearray = b"") -> SecretCommandError:
    name = ascii(program.decode(errors="replace"))[1:-1] if program else ""
    return SecretCommandError(f"{variable}_COMMAND", reason, name, _one_line(errors))


def _one_line(text: bytes | bytearray) -> str:
    """Text of a program for one line of a message."""
    shown = "".join(it if it.isprintable() else " " for it in bytes(text).decode(errors="replace"))
    return " ".join(shown.split())
