"""`exec --mask`: values that the program prints are replaced, and otherwise it runs as without."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from command import PATIENCE, PROGRAM, Folder
from printing import is_alive

KEY = "-----BEGIN KEY-----\nbase64 of the first line\nAA==\nbase64 of the last line\n-----END KEY-----\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (path := tmp_path / "work").mkdir()
    folder = Folder(path)
    folder.run("init")
    for name, value in {"stripe": "sk_live_123", "key": KEY, "pin": "123", "db": "pass word $*'"}.items():
        folder.set(name, value)
    return folder


def masked(folder: Folder, script: str, *arguments: str, status: int = 0):
    return folder.run("exec", "--mask", *arguments, "--", "sh", "-c", script, status=status)


def start(folder: Folder, *program: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [PROGRAM, "exec", "--mask", "--", *program], cwd=folder.path, env=folder.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )


def test_both_streams(folder: Folder) -> None:
    done = masked(folder, 'echo "key=$STRIPE;"; echo "and $DB" >&2; printf %s "$STRIPE"')
    assert done.text == "key=[stripe];\n[stripe]"
    note, told = done.err.splitlines()
    assert note.startswith("pin (") and note.endswith(" is too short to be masked") and told == "and [db]"


def test_only_what_the_program_gets(folder: Folder) -> None:
    done = masked(folder, "echo sk_live_123 \"pass word \\$*'\"", "--only", "db")
    assert done.text == "sk_live_123 [db]\n" and done.err == ""


def test_lines_of_a_value(folder: Folder) -> None:
    assert masked(folder, 'printf %s "$KEY"').text == "[key]\n"
    assert masked(folder, 'echo "<$KEY>"').text == "<[key]\n>\n"
    shown = masked(folder, 'printf %s "$KEY" | sed "s/^/  /"').text
    assert shown == "  -----BEGIN KEY-----\n  [key]\n  AA==\n  [key]\n  -----END KEY-----\n"


def test_what_is_not_promised(folder: Folder) -> None:
    """Another way to write a value is not found."""
    assert masked(folder, 'printf %s "$STRIPE" | base64; printf %s "$STRIPE" | rev').text == "c2tfbGl2ZV8xMjM=\n321_evil_ks"


def test_a_value_in_several_writes(folder: Folder) -> None:
    pieces = "for piece in s k_ live _12 3; do printf %s $piece; sleep 0.1; done; echo"
    assert masked(folder, pieces).text == "[stripe]\n"
    # The beginning of a value alone comes out, at the end at the latest.
    assert masked(folder, "printf sk_live_12").text == "sk_live_12"
    process = start(folder, "sh", "-c", "printf 'ready? '; read x < fifo; printf sk_live_; read x < fifo; echo none")
    os.mkfifo(folder.path / "fifo")
    assert process.stdout.read(7) == b"ready? ", "what is no beginning comes out at once"
    process.kill()
    process.communicate()


def test_a_lot_of_output(folder: Folder) -> None:
    done = masked(folder, "head -c 50000000 /dev/zero | tr '\\0' s; echo $STRIPE")
    assert done.out == b"s" * 50_000_000 + b"[stripe]\n"
    binary = bytes(range(256)) * 100
    (folder.path / "binary").write_bytes(binary)
    assert masked(folder, "cat binary").out == binary


def test_status_and_signals(folder: Folder) -> None:
    masked(folder, "exit 42", status=42)
    masked(folder, "kill -TERM $$", status=-signal.SIGTERM)
    masked(folder, "kill -KILL $$", status=-signal.SIGKILL)
    masked(folder, "kill -SEGV $$", status=-signal.SIGSEGV)
    assert not list(folder.path.glob("core*"))
    folder.run("exec", "--mask", "--", "no-such-program", status=127)
    folder.run("exec", "--mask", "--", str(folder.file), status=126)


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2))
def test_signals_reach_the_program(folder: Folder, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    # With an interactive program's own handling, and again and again.
    script = f"trap 'echo got; n=x$n; [ $n = xxx ] && exit 7' {name}; echo ready; while :; do sleep 0.02; done"
    process = start(folder, "sh", "-c", script, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        process.send_signal(number)
        assert process.stdout.readline() == b"got\n"
    assert process.wait(PATIENCE) == 7
    process.communicate()


def test_a_signal_that_ends_the_program(folder: Folder) -> None:
    process = start(folder, "sh", "-c", "echo $$; exec sleep 300")
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == -signal.SIGTERM
    assert not is_alive(pid)
    # And one that no process can handle.
    process = start(folder, "sh", "-c", "echo $$; exec sleep 300")
    pid = int(process.stdout.readline())
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while is_alive(pid):
        assert time.monotonic() < deadline, "the program goes on"
        time.sleep(0.02)


def test_ignored_signals_stay_ignored(folder: Folder) -> None:
    done = subprocess.run(
        ["sh", "-c", "trap '' HUP INT TERM USR1; exec \"$@\"", "sh", PROGRAM, "exec", "--mask", "--", "sh", "-c",
         "for signal in HUP INT TERM USR1; do kill -$signal $$; done; echo alive $STRIPE"],
        cwd=folder.path, env=folder.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )
    assert done.stdout == b"alive [stripe]\n", done


def test_input_and_files_reach_the_program(folder: Folder) -> None:
    done = folder.run("exec", "--mask", "--", "cat", stdin=b"a line\nsk_live_123\n")
    assert done.text == "a line\n[stripe]\n"


def test_no_one_reads_any_more(folder: Folder) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [PROGRAM, "exec", "--mask", "--", "yes"], cwd=folder.path, env=folder.environment, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.wait(PATIENCE) == -signal.SIGPIPE
    process.communicate()


def test_what_the_program_leaves_behind(folder: Folder) -> None:
    """It does not keep the command waiting."""
    done = masked(folder, "sleep 300 & echo $! $STRIPE")
    pid, value = done.text.split()
    assert value == "[stripe]" and is_alive(int(pid))
    os.kill(int(pid), signal.SIGKILL)


class TestAtATerminal:
    def run(self, folder: Folder, script: str, status: int = 0) -> str:
        terminal = folder.at_terminal("exec", "--mask", "--", "sh", "-c", script)
        return terminal.finish(status)

    def test_the_program_has_one(self, folder: Folder) -> None:
        script = "for it in 0 1 2; do test -t $it && printf 'yes '; done; echo $STRIPE; echo $DB >&2"
        shown = self.run(folder, script)
        assert shown.endswith("yes yes yes [stripe]\n[db]\n"), shown

    def test_its_size(self, folder: Folder) -> None:
        terminal = folder.at_terminal("exec", "--mask", "--", sys.executable, "-c", (
            "import os, signal, time\n"
            "print('size', *os.get_terminal_size(1), flush=True)\n"
            "signal.signal(signal.SIGWINCH, lambda *_: None)\n"
            "print('ready', flush=True)\n"
            "while os.get_terminal_size(1).columns != 77: signal.sigtimedwait([], 0.01)\n"
            "print('now', *os.get_terminal_size(1), flush=True)\n"
        ))
        terminal.expect("ready")
        termios.tcsetwinsize(terminal.fd, (33, 77))
        terminal.expect("now 77 33")
        terminal.finish()

    def test_line_ends(self, folder: Folder) -> None:
        terminal = folder.at_terminal("exec", "--mask", "--", "sh", "-c", "printf 'a\\nb\\n'; printf '\\033[31mred\\033[0m'")
        while terminal._read(time.monotonic() + PATIENCE):
            pass
        assert terminal.seen.endswith(b"a\r\nb\r\n\x1b[31mred\x1b[0m")
        terminal.finish()

    def test_the_keyboard(self, folder: Folder) -> None:
        """Ctrl-C reaches the program, once, and the program decides."""
        script = "trap 'echo got' INT; echo ready; read x; echo \"read $x\"; n=0; while [ $n -lt 50 ]; do sleep 0.02; n=$((n+1)); done; exit 5"
        terminal = folder.at_terminal("exec", "--mask", "--", "sh", "-c", script)
        terminal.expect("ready")
        terminal.send("sk_live_123\n")
        terminal.expect("read [stripe]")
        terminal.send("\x03")
        shown = terminal.finish(5)
        assert shown.count("got") == 1

    def test_ctrl_c_ends_it(self, folder: Folder) -> None:
        terminal = folder.at_terminal("exec", "--mask", "--", "sh", "-c", "echo ready; exec sleep 300")
        terminal.expect("ready")
        terminal.send("\x03")
        terminal.finish(-signal.SIGINT)

    def test_stop_and_go_on(self, folder: Folder) -> None:
        """As a shell does it, with Ctrl-Z and fg."""
        terminal = folder.at_terminal("exec", "--mask", "--", "sh", "-c", "echo ready $$; while ! [ -e go ]; do sleep 0.02; done; echo done $STRIPE")
        terminal.expect("ready ")
        while not terminal.seen.endswith(b"\r\n"):
            terminal._read(time.monotonic() + PATIENCE)
        terminal.signal(signal.SIGSTOP)
        os.waitpid(terminal.pid, os.WUNTRACED)
        (folder.path / "go").touch()
        terminal.signal(signal.SIGCONT)
        terminal.expect("done [stripe]")
        terminal.finish()

    def test_one_stream_is_a_terminal(self, folder: Folder) -> None:
        master, slave = pty.openpty()
        done = subprocess.run(
            [PROGRAM, "exec", "--mask", "--", "sh", "-c", "test -t 1 || echo pipe $STRIPE; test -t 2 && echo terminal $DB >&2"],
            cwd=folder.path, env=folder.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, check=False,
        )
        os.close(slave)
        assert done.stdout == b"pipe [stripe]\n"
        assert os.read(master, 4096).endswith(b"terminal [db]\r\n")
        os.close(master)
