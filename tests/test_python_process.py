"""The Python host in a process that gets signals, and that forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import PATIENCE, Folder
from conftest import PYTHON_HOST
from python_files import folder

PRELUDE = """
import os, signal, sys, threading, time
from omni_credentials import *
from omni_credentials.module import *
class Interrupted(BaseException):
    pass
def interrupt(*_):
    raise Interrupted
def ended(process):
    # In this time a child that does not hang is over.
    for _ in range(3000):
        if (done := os.waitpid(process, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    return "hangs"
"""


def run(folder: Folder, code: str, *, quiet: bool = True) -> list[str]:
    """The lines that a Python printed, with the package, in the folder. Where a handler raises in a finalizer, Python
    says so and goes on: then it is not quiet."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + code],
        cwd=folder.path, env=folder.environment | {"PYTHONPATH": str(PYTHON_HOST)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )
    assert done.returncode == 0 and (done.stderr == "" or not quiet), f"status {done.returncode}: {done.stderr}"
    return done.stdout.splitlines()


@pytest.mark.parametrize("handler", ["signal.default_int_handler", "interrupt"])
def test_a_derivation_is_interrupted(folder: Folder, handler: str) -> None:
    """The exception of the handler comes out of the call, and the next call works."""
    said = run(folder, f"""
signal.signal(signal.SIGALRM, {handler})
module = Module.load()
keyring = module.create_keyring(b"x", Costs(64, 1, 1)).keyring
slow = Costs(65536, 16, 4)
for delay in [0.001, 0.003, 0.01, 0.03] * 5:
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        module.create_keyring(b"x", slow)
        print("not interrupted")
    except (KeyboardInterrupt, Interrupted):
        pass
    assert len(module.derive_kek(b"x", keyring).secret) == 32
print("whole")
""")
    assert said == ["whole"]


def test_exceptions_of_handlers_anywhere(folder: Folder) -> None:
    """Also in short calls, which ask for entropy: a handler that raises a thousand times a second."""
    said = run(folder, """
signal.signal(signal.SIGALRM, interrupt)
identity = RawIdentity(b"n", b"k", b"p", b"{}")
module = Module.load()
made = module.create_keyring(b"x", Costs(64, 1, 1))
keyring = module.unlock(made.keyring, made.kek)
interrupted = 0
def delay(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
for number in range(600):
    try:
        delay(0.00005 + number % 60 / 30000)
        for _ in range(1000):
            keyring.open(identity, None, keyring.seal(identity, None, b"x" * 1000))
    except Interrupted:
        interrupted += 1
    finally:
        delay(0)
sealed = keyring.seal(identity, None, b"whole")
print(interrupted > 100, keyring.open(identity, None, sealed))
""", quiet=False)
    assert said == ["True b'whole'"]


def test_a_store_stays_whole_whenever_it_is_interrupted(folder: Folder) -> None:
    """No lock stays behind, no unsaved change is lost, and the store and its file agree afterwards."""
    said = run(folder, """
signal.signal(signal.SIGALRM, interrupt)
store = Store.open("credentials.omni", wait=0)
other = Store.open("credentials.omni")
interrupted = 0
def delay(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
for number in range(300):
    store["keep"] = str(number)
    if number % 4 == 0:
        other["other"] = str(number)
        other.save()
    try:
        delay(0.0002 + number % 100 / 5000)
        # Python drops the exception if the handler runs in a finalizer.
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            store["a"] = os.urandom(8)
            store.save()
            store.reload()
    except Interrupted:
        interrupted += 1
    finally:
        delay(0)
    assert store["keep"] == str(number).encode() and set(store) >= {"keep"}, number
    names = os.listdir(".")
    assert not [name for name in names if ".lock" in name], names
store["last"] = "1"
store.save()
again = Store.open("credentials.omni")
print(interrupted > 200, dict(again) == dict(store), store.changed, sorted(again), os.listdir("."))
""", quiet=False)
    assert said == ["True True [] ['a', 'keep', 'last', 'other'] ['credentials.omni']"]


def test_a_handler_may_use_the_store(folder: Folder) -> None:
    said = run(folder, """
store = Store.open("credentials.omni")
store["a"] = "1"
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(store["a"]))
signal.setitimer(signal.ITIMER_REAL, 0.05)
store.module.create_keyring(b"x", Costs(65536, 16, 4))
print(seen, store["a"])
""")
    assert said == ["[b'1'] b'1'"]


def test_a_fork_while_other_threads_are_in_the_store(folder: Folder) -> None:
    """The child's store is whole, and so is the parent's."""
    said = run(folder, """
store = Store.open("credentials.omni")
store["a"] = "1"
stop = threading.Event()
def work(number):
    while not stop.is_set():
        store[f"t{number}"] = os.urandom(500)
        assert store["a"] == b"1"
        store.module.create_keyring(b"x", Costs(1024, 1, 1))
        Store.open("credentials.omni").close()
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    time.sleep(0.005)
    if (process := os.fork()) == 0:
        assert store["a"] == b"1" and store.set("b", "2") and store["b"] == b"2"
        Store.open("credentials.omni").close()
        os._exit(7)
    assert (status := ended(process)) == 7, status
stop.set()
for thread in threads:
    thread.join()
print(store["a"], store.save())
""")
    assert said == ["b'1' True"]


def test_a_fork_while_a_store_waits_for_a_lock(folder: Folder) -> None:
    """Such a store is lost to the child, which says so and does not hang; it can open the file again."""
    said = run(folder, """
from omni_credentials import _fork
from omni_credentials._lock import Lock
_fork._PATIENCE = 0.2
lock = Lock("credentials.omni", 0)
store = Store.open("credentials.omni", wait=60)
store["a"] = "1"
saving = threading.Thread(target=store.save)
saving.start()
while store._lock.acquire(blocking=False):
    store._lock.release()
if (process := os.fork()) == 0:
    for call in (lambda: store["a"], store.save, store.close):
        try:
            call()
        except InvalidInput as error:
            assert error.code == "forked", error.code
            print(error, flush=True)
    Store.open("credentials.omni").set("b", "2")
    os._exit(7)
assert (status := ended(process)) == 7, status
lock.release()
saving.join()
print(store["a"], store.changed)
""")
    assert said == ["another thread was using this store when the process forked"] * 3 + ["b'1' []"]


def test_a_fork_in_a_handler(folder: Folder) -> None:
    """The fork waits for the derivation, on a busy machine longer than it would."""
    said = run(folder, """
from omni_credentials import _fork
_fork._PATIENCE = 60
module = Module.load()
found = []
def fork(*_):
    if (process := os.fork()) == 0:
        found.append("child")
    else:
        found.append(ended(process))
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.05)
made = module.create_keyring(b"x", Costs(65536, 8, 4))
assert module.derive_kek(b"x", made.keyring) == made.kek
if found == ["child"]:
    os._exit(7)
print(found)
""")
    assert said == ["[7]"]


def test_a_call_needs_no_thread_when_none_can_start(folder: Folder) -> None:
    """At the end of the interpreter."""
    said = run(folder, """
import atexit
def last():
    print(Store.open("credentials.omni").get("a", b"none"))
atexit.register(last)
""")
    assert said == ["b'none'"]
