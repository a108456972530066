"""The Python host and the command on one file at once: the lock protocol of FORMAT.md §7.2."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import PATIENCE, PROGRAM, Folder
from conftest import PYTHON_HOST
from omni_credentials import FileError, FileLocked, Store
from omni_credentials._holder import UNKNOWN, Holder
from omni_credentials._lock import Lock
from omni_credentials._place import Place
from omni_credentials._staged import Staged
from python_files import folder, store


def child(folder: Folder, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Another Python, with the package, in the folder."""
    prelude = "import sys\nfrom omni_credentials import *\nfrom omni_credentials._lock import Lock\n"
    environment = folder.environment | {"PYTHONPATH": str(PYTHON_HOST)}
    command = [sys.executable, "-c", prelude + code, *arguments]
    return subprocess.Popen(command, cwd=folder.path, env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


def said(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Waits until the process printed this line."""
    assert process.stdout is not None and process.stdout.readline() == line + b"\n"


def dead() -> Holder:
    """A holder that was a process of this machine and is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    here = Holder.current()
    return Holder(process.pid, here.start, here.boot, here.namespace, here.machine, here.host)


HOLD = """
lock = Lock("credentials.omni", 0)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("freed", flush=True)
"""


def test_the_command_waits_for_python(folder: Folder) -> None:
    with child(folder, HOLD) as holder:
        said(holder, b"held")
        lock = folder.path / "credentials.omni.lock"
        text = lock.read_text()
        refused = folder.run("set", "a", "--wait", "0", stdin=b"1", status=9).err
        assert f"is locked by process {holder.pid} on host" in refused and f"rm {lock}" in refused
        waiting = subprocess.Popen(
            [PROGRAM, "set", "a", "--wait", str(PATIENCE)],
            cwd=folder.path, env=folder.environment, stdin=subprocess.PIPE,
        )
        assert waiting.stdin is not None
        waiting.stdin.write(b"1")
        waiting.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert lock.read_text() == text
        assert holder.stdin is not None
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        said(holder, b"freed")
        assert waiting.wait(PATIENCE) == 0
    assert folder.get("a") == b"1" and folder.leftovers() == []


def test_python_waits_for_another(folder: Folder) -> None:
    """For a holder that lives: a process of this machine, as the command would name it."""
    with Store.open(folder.file, wait=0.2) as store:
        store["a"] = "1"
        before = folder.file.read_bytes()
        with child(folder, HOLD) as holder:
            said(holder, b"held")
            for call in (store.save, store.rotate_key, lambda: store.rotate_master_secret("x" * 20)):
                with pytest.raises(FileLocked, match=f"is locked by process {holder.pid} on host") as caught:
                    call()
                assert caught.value.lock == f"{folder.file}.lock" and f"rm {folder.file}.lock" in caught.value.hint
            assert store.reload() is False and store["a"].decode() == "1", "reading needs no lock"
            assert folder.file.read_bytes() == before
            holder.stdin.write(b"\n")  # type: ignore[union-attr]
        assert store.save() and folder.get("a") == b"1"


def test_the_lock_file_says_who_holds_it(folder: Folder) -> None:
    with Lock(str(folder.file), 0):
        lines = (folder.path / "credentials.omni.lock").read_text().split("\n")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert lines[:2] == ["omni-credentials lock 1", f"pid {os.getpid()}"] and lines[7:] == [""]
    assert [line.split(" ")[0] for line in lines[2:7]] == ["start", "boot", "namespace", "machine", "host"]
    assert lines[3] == f"boot {boot}" and lines[4] == f"namespace {os.readlink('/proc/self/ns/pid')}"
    assert Holder.parse("\n".join(lines)) == Holder.current()
    assert folder.leftovers() == []


def test_texts_that_are_no_lock() -> None:
    text = str(Holder.current())
    for cut in range(len(text)):
        assert Holder.parse(text[:cut]) is None
    for other in (f"{text}x\n", text.replace("lock 1", "lock 2"), text.replace("pid ", "pid -"), "nonsense\n"):
        assert Holder.parse(other) is None


def test_the_living_and_the_dead() -> None:
    here, gone = Holder.current(), dead()
    assert not here.is_gone(True) and gone.is_gone(True)

    def like(holder: Holder, **changed: object) -> Holder:
        fields = {name: getattr(holder, name) for name in Holder.__slots__}
        return Holder(**(fields | changed))

    assert like(here, start="1").is_gone(True), "the pid was used again"
    assert not like(here, start=UNKNOWN).is_gone(True) and not like(here, pid=1, start=UNKNOWN).is_gone(True)
    for elsewhere in ({"namespace": "pid:[1]"}, {"host": "elsewhere"}, {"machine": "other"}):
        assert not like(gone, **elsewhere).is_gone(True)
    assert like(here, boot="earlier").is_gone(True) == (here.machine != UNKNOWN)
    assert not like(here, boot="earlier").is_gone(False), "perhaps a machine made from the same image"
    assert gone.is_gone(False) and not like(gone, boot=UNKNOWN).is_gone(False)


def test_containers_without_proc_do_not_take_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines or containers of one image, of which the system tells nothing more, may be different ones."""
    gone = dead().pid
    here = Holder(1, *[UNKNOWN] * 4, Holder.current().host)
    monkeypatch.setattr(Holder, "current", lambda: here)
    assert not Holder(gone, *[UNKNOWN] * 4, here.host).is_gone(True)


def test_a_holder_that_cannot_be_seen_is_named(folder: Folder) -> None:
    """A writer killed in another container, or on another machine: what to look for, and what to remove."""
    lock, here, gone = folder.path / "credentials.omni.lock", Holder.current(), dead()
    for changed, said_ in (
        ({"namespace": "pid:[1]"}, "in another container (pid namespace pid:[1])"),
        ({"machine": "other"}, "another machine of the same name or before a restart"),
    ):
        fields = {name: getattr(gone, name) for name in Holder.__slots__}
        lock.write_text(str(Holder(**(fields | changed))))
        with pytest.raises(FileLocked) as caught:
            Lock(str(folder.file), 0)
        assert f"process {gone.pid} on host {here.host}, {said_};" in str(caught.value)
        assert caught.value.hint == f"if no process is using the file: rm {lock}"
        assert lock.exists()


def test_a_folder_that_is_replaced_meanwhile(folder: Folder) -> None:
    """From the lock on, every step is in the folder that was opened, whatever has its name."""
    (folder.path / "a").mkdir()
    Store.create(folder.path / "a" / "file").close()
    (folder.path / "b").mkdir()
    with Lock(str(folder.path / "a" / "file"), 0) as lock:
        (folder.path / "a").rename(folder.path / "moved")
        (folder.path / "a").symlink_to("b")
        with lock.stage(lock.read(1 << 20) + b"x") as staged:
            staged.publish()
    assert (folder.path / "moved" / "file").read_bytes().endswith(b"x")
    assert os.listdir(folder.path / "b") == [] and os.listdir(folder.path / "moved") == ["file"]


def test_python_takes_over_from_the_dead(folder: Folder, store: Store) -> None:
    lock = folder.path / "credentials.omni.lock"
    for suffix in ("", ".takeover", ".takeover.takeover"):
        Path(f"{lock}{suffix}").write_text(str(dead()))
    (folder.path / ".credentials.omni.0123456789abcdef.tmp").write_text("half")
    (folder.path / ".credentials.omni.backup.tmp").write_text("somebody's own")
    store["a"] = "1"
    assert store.save() and folder.get("a") == b"1"
    assert folder.leftovers() == [".credentials.omni.backup.tmp"]


@pytest.mark.parametrize("text", ["", "nonsense", "omni-credentials lock 1\n", "elsewhere", "\udcff"])
def test_what_cannot_be_judged_stays(folder: Folder, text: str) -> None:
    lock = folder.path / "credentials.omni.lock"
    if text == "elsewhere":
        text = str(dead()).replace("\nhost ", "\nhost not-")
    lock.write_text(text, errors="surrogateescape")
    with Store.open(folder.file, wait=0) as store:
        store["a"] = "1"
        with pytest.raises(FileLocked) as caught:
            store.save()
    assert caught.value.lock == str(lock) and lock.read_text(errors="surrogateescape") == text
    folder.run("set", "a", "--wait", "0", stdin=b"1", status=9)


def test_a_takeover_that_cannot_be_judged_is_named(folder: Folder) -> None:
    (folder.path / "credentials.omni.lock").write_text(str(dead()))
    (folder.path / "credentials.omni.lock.takeover").write_text("nonsense")
    with pytest.raises(FileLocked) as caught:
        Lock(str(folder.file), 0)
    assert caught.value.lock.endswith("credentials.omni.lock.takeover")


def test_the_command_takes_over_from_python_that_died(folder: Folder) -> None:
    with child(folder, HOLD) as holder:
        said(holder, b"held")
        holder.kill()
    assert folder.leftovers() == ["credentials.omni.lock"]
    folder.set("a", "1")
    assert folder.get("a") == b"1" and folder.leftovers() == []


def test_only_the_own_lock_is_freed(folder: Folder) -> None:
    lock = Lock(str(folder.file), 0)
    (folder.path / "credentials.omni.lock").write_text("of somebody else")
    lock.release()
    assert (folder.path / "credentials.omni.lock").read_text() == "of somebody else"
    (folder.path / "credentials.omni.lock").unlink()
    lock = Lock(str(folder.file), 0)
    if (process := os.fork()) == 0:
        lock.release()
        os._exit(0)
    os.waitpid(process, 0)
    assert folder.leftovers() == ["credentials.omni.lock"], "a child freed the lock of its parent"
    lock.release()
    assert folder.leftovers() == []


def test_links_lead_to_one_file(folder: Folder) -> None:
    (folder.path / "deep").mkdir()
    (folder.path / "deep" / "link").symlink_to("../credentials.omni")
    with Store.open(folder.path / "deep" / "link", wait=0) as store:
        store["a"] = "1"
        with Lock(str(folder.file), 0), pytest.raises(FileLocked):
            store.save()
        store.save()
    assert (folder.path / "deep" / "link").is_symlink() and os.listdir(folder.path / "deep") == ["link"]
    assert folder.get("a") == b"1"
    (folder.path / "dangling").symlink_to("deep/new.omni")
    with pytest.raises(FileError, match="already exists"):
        Store.create(folder.path / "dangling")


def test_names_as_long_as_they_may_be(folder: Folder) -> None:
    path = folder.path / ("n" * 240)
    with Store.create(path) as store:
        store["a"] = "1"
        store.save()
    assert folder.run("get", "a", "--file", str(path)).out == b"1" and folder.leftovers() == []


def test_a_failed_replacement_leaves_nothing(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store["a"] = "1"
    before = folder.file.read_bytes()

    def fails(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "rename", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(FileError, match="no space left") as caught:
                store.save()
            assert caught.value.fault == "no-space"
        assert folder.file.read_bytes() == before and folder.leftovers() == [], name
        assert [it.name for it in store.changed] == ["a"]
    with pytest.raises(KeyboardInterrupt), Staged(Place(str(folder.file)), b"half"):
        raise KeyboardInterrupt
    assert folder.leftovers() == []
    assert store.save() and folder.get("a") == b"1"


def test_without_hard_links(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: object, **named: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store["a"] = "1"
    assert store.save() and folder.get("a") == b"1" and folder.leftovers() == []


WRITE = """
who, count = sys.argv[1], int(sys.argv[2])
with Store.open("credentials.omni", wait=60) as store:
    for number in range(count):
        store[f"{who}-{number}"] = f"{who} {number}"
        store.save()
"""


def test_writers_at_once_lose_nothing(folder: Folder) -> None:
    count = 15
    pythons = [child(folder, WRITE, who, str(count)) for who in ("p", "q")]
    set_ = f'echo "c $number" | {PROGRAM} --wait 60 set "c-$number"'
    loop = f"for number in $(seq 0 {count - 1}); do {set_} || exit 1; done"
    command = subprocess.Popen(
        ["/bin/sh", "-c", loop], cwd=folder.path, env=folder.environment, stderr=subprocess.DEVNULL
    )
    for writer in (*pythons, command):
        assert writer.wait(PATIENCE) == 0
    with Store.open(folder.file) as store:
        assert dict(store) == {f"{who}-{it}": f"{who} {it}".encode() for who in "pqc" for it in range(count)}
    assert folder.run("verify", "--json").json["values"] == 3 * count and folder.leftovers() == []


ONE_BY_ONE = """
with Store.open("credentials.omni", wait=60) as store:
    print("ready", flush=True)
    for number in range(100000):
        store["a"] = store["b"] = str(number)
        store.save()
"""


def test_killed_in_the_middle_of_a_save(folder: Folder) -> None:
    seen = set()
    for round_ in range(12):
        with child(folder, ONE_BY_ONE) as writer:
            said(writer, b"ready")
            time.sleep(random.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
        with Store.open(folder.file) as store:
            assert store.get("a") == store.get("b"), "half of a save"
            seen.add(store.get("a"))
            # The next writer finds what is left in its way and clears it.
            store["c"] = str(round_)
            store.save()
        assert folder.get("c") == str(round_).encode() and folder.leftovers() == []
    assert len(seen) > 1, "it was never killed after a save"


def test_a_wait_has_an_end_whatever_the_lock_is(folder: Folder) -> None:
    """A lock that cannot be read is no reason to try without end, and no link is followed to make it."""
    lock = folder.path / "credentials.omni.lock"
    lock.symlink_to("nowhere")
    with pytest.raises(FileLocked, match="an unknown process"):
        Lock(str(folder.file), 0.1)
    assert not (folder.path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another account")
def test_a_link_of_another_account_is_refused(folder: Folder) -> None:
    link = folder.path / "link.omni"
    link.symlink_to("target.omni")
    os.lchown(link, 65534, -1)
    with pytest.raises(FileError, match="belongs to another account"):
        Lock(str(link), 0)
    assert not (folder.path / "target.omni").exists()


def test_mode_is_kept_and_a_link_that_came_later_is_not_followed(folder: Folder) -> None:
    folder.file.chmod(0o640)
    with Staged(Place(str(folder.file)), folder.file.read_bytes()) as staged:
        staged.publish()
    assert folder.file.stat().st_mode & 0o777 == 0o640
    precious = folder.path / "precious"
    precious.write_bytes(b"precious")
    with Staged(Place(str(folder.file)), b"new") as staged:
        folder.file.unlink()
        folder.file.symlink_to("precious")
        staged.publish()
    assert precious.read_bytes() == b"precious" and folder.file.read_bytes() == b"new"


def test_long_names_do_not_share_staged_files(folder: Folder) -> None:
    names = [str(folder.path / ("n" * 210 + last)) for last in "ab"]
    with Staged(Place(names[0]), b"new"):
        with Lock(names[1], 0):
            assert len([name for name in os.listdir(folder.path) if name.endswith(".tmp")]) == 1
        with Lock(names[0], 0):
            assert [name for name in os.listdir(folder.path) if name.endswith(".tmp")] == []
