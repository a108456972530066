"""The file in git: two clones and two databases, merged by hand, by the merge driver, and by the command afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import PROGRAM
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, refused
from file_stores import READ, deleted, in_step, in_threads, leftovers, live, mirror, put, remove
from standbys import eventually

NAME = "app.credentials"
WHO = {
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
    # The folders are the server's user's.
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    # For the merge driver.
    VARIABLE: MASTER_KEY,
}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


class Clone:
    """A working tree, and a database that mirrors its copy into the file in it."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.folder, self.file = db, folder, folder / NAME

    def git(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=os.environ | WHO,
            capture_output=True, text=True, check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [PROGRAM, *arguments], cwd=self.folder, env=os.environ | WHO, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-m", "credentials")

    def reload(self) -> dict[str, str]:
        # git wrote the file as the user of the tests, the server replaces it as its own.
        self.db.server.account.own(self.file)
        return dict(self.db.run(
            "select name, action from omni_credentials.credential_file_store_reload(%s)", str(self.file)
        ))

    def values(self) -> dict[str, bytes]:
        return dict(self.db.run(READ))


@pytest.fixture
def clones(db: Database) -> Iterator[tuple[Clone, Clone]]:
    """Two clones of one repository, in which a, c, e, g and i are committed and loaded."""
    other = fresh_database(db.server)
    base = db.server.folder / f"git-{db.name}"
    base.mkdir()
    shared = base / "shared.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", shared], check=True)
    made = []
    for number, database in enumerate((db, other)):
        folder = base / f"clone{number}"
        subprocess.run(["git", "clone", "-q", shared, folder], check=True, capture_output=True)
        db.server.account.own(folder)
        made.append(Clone(database, folder))
    first, second = made
    for name in "acegi":
        put(first.db, name, b"old")
    mirror(first.db, first.file)
    first.git("checkout", "-q", "-B", "main")
    first.commit()
    first.git("push", "-q", "origin", "main")
    second.git("pull", "-q", "origin", "main")
    db.server.account.own(second.file)
    mirror(second.db, second.file)
    assert second.values() == first.values()
    yield first, second
    drop_database(other)


def test_a_diff_shows_one_record_and_the_trailer(clones: tuple[Clone, Clone]) -> None:
    first, _ = clones
    put(first.db, "e", b"new")
    diff = first.git("diff", "--unified=0")
    changed = [line[1:] for line in diff.splitlines() if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    assert [line for line in changed if not line.startswith("    ")] == [
        line for line in changed if line.startswith(("  generation ", "  seal "))
    ]
    assert len(changed) <= 2 * (3 + 2), diff


def test_one_after_the_other(clones: tuple[Clone, Clone]) -> None:
    first, second = clones
    put(first.db, "a", b"1")
    put(first.db, "b", b"new")
    remove(first.db, "c")
    first.commit()
    first.git("push", "-q", "origin", "main")
    second.git("pull", "-q", "origin", "main")
    assert second.reload() == {"a": "changed", "b": "added", "c": "removed"}
    assert second.values() == first.values()
    assert in_step(second.db)


def diverge(first: Clone, second: Clone) -> None:
    """Both add, change and delete, in records that stand side by side; the first has pushed, the second committed."""
    put(first.db, "a", b"1")
    put(first.db, "b", b"new")
    remove(first.db, "e")
    first.commit()
    first.git("push", "-q", "origin", "main")
    put(second.db, "g", b"2")
    put(second.db, "h", b"new")
    remove(second.db, "c")
    second.commit()


def test_both_at_once_merged_by_hand(clones: tuple[Clone, Clone]) -> None:
    first, second = clones
    diverge(first, second)
    told = second.git("pull", "--no-rebase", "origin", "main", check=False)
    assert "CONFLICT" in told
    # A merge without the driver stops in the trailer, and the database says what the file is.
    left = second.file.read_bytes()
    assert b"<<<<<<<" in left
    second.db.server.account.own(second.file)
    with refused("22P04", "merge", hint="omni-credentials merge"):
        second.reload()
    with refused("22P04", "merge", hint="omni-credentials merge"):
        put(second.db, "z", b"x")
    assert second.file.read_bytes() == left

    # By hand: take the other side's file, load it, and make one's own changes once more. What the file knows nothing
    # of stays, for absence is not deletion.
    second.git("checkout", "--theirs", NAME)
    assert second.reload() == {"a": "changed", "b": "added", "c": "added", "e": "removed", "g": "changed"}
    put(second.db, "g", b"2")
    remove(second.db, "c")
    assert second.values() == {"a": b"1", "b": b"new", "g": b"2", "h": b"new", "i": b"old"}
    assert (live(second.file), deleted(second.file)) == (["a", "b", "g", "h", "i"], ["c", "e"])
    second.commit()
    second.git("push", "-q", "origin", "HEAD:main")

    first.git("pull", "-q", "--no-rebase", "origin", "main")
    assert first.reload() == {"c": "removed", "g": "changed", "h": "added"}
    assert first.values() == second.values()
    assert first.file.read_bytes() == second.file.read_bytes()
    assert in_step(first.db) and in_step(second.db)


def assert_both_have_all_of_it(first: Clone, second: Clone) -> None:
    """After the second has merged and committed: it loads the file and pushes, the first pulls and loads."""
    assert second.reload() == {"a": "changed", "b": "added", "e": "removed"}
    second.git("push", "-q", "origin", "HEAD:main")
    first.git("pull", "-q", "--no-rebase", "origin", "main")
    assert first.reload() == {"c": "removed", "g": "changed", "h": "added"}
    assert first.values() == second.values() == {"a": b"1", "b": b"new", "g": b"2", "h": b"new", "i": b"old"}
    assert (live(first.file), deleted(first.file)) == (["a", "b", "g", "h", "i"], ["c", "e"])
    assert first.file.read_bytes() == second.file.read_bytes()
    assert in_step(first.db) and in_step(second.db)


def test_both_at_once_merged_by_the_driver(clones: tuple[Clone, Clone]) -> None:
    first, second = clones
    first.command("init", "--git", "--file", NAME)
    first.commit()
    first.git("push", "-q", "origin", "main")
    second.git("pull", "-q", "--no-rebase", "origin", "main")
    second.command("init", "--git", "--file", NAME)
    diverge(first, second)
    told = second.git("pull", "--no-rebase", "--no-edit", "origin", "main")
    assert "CONFLICT" not in told
    assert_both_have_all_of_it(first, second)


def test_a_merge_elsewhere_is_mended_by_the_command(clones: tuple[Clone, Clone]) -> None:
    """A host that has neither driver nor key merges and commits what it made of it."""
    first, second = clones
    diverge(first, second)
    assert "CONFLICT" in second.git("pull", "--no-rebase", "origin", "main", check=False)
    second.git("commit", "-a", "-m", "merged with its markers")
    second.db.server.account.own(second.file)
    with refused("22P04", "merge", hint="omni-credentials merge"):
        second.reload()
    second.command("merge", "--file", NAME)
    second.commit()
    assert_both_have_all_of_it(first, second)


def test_both_changed_one_credential(clones: tuple[Clone, Clone]) -> None:
    first, second = clones
    put(first.db, "e", b"1")
    first.commit()
    first.git("push", "-q", "origin", "main")
    put(second.db, "e", b"2")
    second.commit()
    assert "CONFLICT" in second.git("pull", "--no-rebase", "origin", "main", check=False)
    second.git("checkout", "--theirs", NAME)
    # The file that was checked out is the other side's. Taking it is a decision that the reload carries out.
    assert second.reload() == {"e": "changed"}
    assert second.values() == first.values()


def test_switching_branches_deletes_nothing(clones: tuple[Clone, Clone]) -> None:
    first, _ = clones
    first.git("checkout", "-q", "-b", "feature")
    put(first.db, "new", b"1")
    put(first.db, "a", b"1")
    first.commit()
    first.git("checkout", "-q", "main")
    first.reload()
    assert set(first.values()) == {*"acegi", "new"}
    first.git("checkout", "-q", "--", NAME)
    first.git("checkout", "-q", "feature")
    first.reload()
    assert first.values() == dict.fromkeys("cegi", b"old") | {"a": b"1", "new": b"1"}


def test_a_checkout_while_a_commit_waits(own_db: Database) -> None:
    """Git takes no lock. What it puts in place after the server has read the file, here while the commit waits for a standby
    that does not answer, is not overwritten by what the server made from the file before."""
    file = own_db.server.data / "ours.credentials"
    put(own_db, "a", b"1")
    mirror(own_db, file)
    older = file.read_bytes()
    put(own_db, "c", b"3")
    own_db.run("alter system set synchronous_standby_names = 'none_such'")
    own_db.run("select pg_reload_conf()")
    told: list[str] = []

    def write() -> None:
        with own_db.connect() as session:
            session.add_notice_handler(lambda notice: told.append(notice.message_primary))
            session.execute("select omni_credentials.set_credential('b', '2')")

    def checkout() -> None:
        eventually(lambda: own_db.run("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == [(1,)])
        file.write_bytes(older)
        own_db.run("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")

    eventually(lambda: own_db.run("show synchronous_standby_names") == [("none_such",)])
    in_threads(write, checkout)
    assert file.read_bytes() == older
    assert any("file store" in text and "was changed by another program meanwhile" in text for text in told)
    own_db.run("alter system reset synchronous_standby_names")
    own_db.run("select pg_reload_conf()")
    ((step, reason),) = own_db.run("select in_step, reason from omni_credentials.credential_file_stores")
    assert step is False and "went back from generation" in reason
    own_db.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
    assert live(file) == ["a", "b", "c"] and leftovers(file.parent) == []
