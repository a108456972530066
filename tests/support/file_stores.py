"""What the tests of file stores share: looking into a file, and writing it from outside."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import Database, drop_database, fresh_database
from throwaway import Server

INSERT = "insert into omni_credentials.credentials (name, value) values (%s, %b)"
READ = "select name, value from omni_credentials.credentials order by name"
SEALED = "select name, value, kind::text, principal::text, scope from omni_credentials.encrypted_credentials order by 1"
STATUS = "select filename, in_step, reason from omni_credentials.credential_file_stores"
RELOAD = "select name, action from omni_credentials.credential_file_store_reload(%s) order by name"
_RECORD = re.compile(r'^(credential|deleted) "(.*)"$', re.MULTILINE)


def mirror(db: Database, file: Path | str, schema: str = "omni_credentials") -> list[tuple]:
    """Registers a file store and gives what was imported: name and action."""
    return db.run(
        "select name, action from omni_credentials.instantiate_file_store(%s, %s::regnamespace) order by name",
        str(file),
        schema,
    )


def put(db: Database, name: str, value: bytes) -> None:
    db.run("select omni_credentials.set_credential(%s, %b)", name, value)


def mirrored(db: Database, credentials: dict[str, bytes]) -> Path:
    """A file store of the default copy, with these credentials of the superuser in it."""
    file = db.server.data / f"{db.name}.credentials"
    for name, value in credentials.items():
        put(db, name, value)
    mirror(db, file)
    return file


def remove(db: Database, name: str) -> None:
    db.run("delete from omni_credentials.credentials where name = %s", name)


def live(file: Path) -> list[str]:
    """The names of the credentials that a file holds."""
    return [name for what, name in _RECORD.findall(file.read_text()) if what == "credential"]


def deleted(file: Path) -> list[str]:
    """The names of its tombstones."""
    return [name for what, name in _RECORD.findall(file.read_text()) if what == "deleted"]


def generation(file: Path) -> int:
    return int(re.search(r"^  generation (\d+)$", file.read_text(), re.MULTILINE)[1])


def leftovers(folder: Path) -> list[str]:
    """Lock files and what was staged beside credentials files."""
    return sorted(entry.name for entry in folder.iterdir() if ".lock" in entry.name or entry.name.endswith(".tmp"))


def in_step(db: Database) -> bool:
    return all(row[1] for row in db.run(STATUS))


@contextlib.contextmanager
def outsider(server: Server, file: Path | str) -> Iterator[Database]:
    """Another database around the same file: whoever else edits it, for one edit or several."""
    other = fresh_database(server)
    try:
        mirror(other, file)
        yield other
    finally:
        drop_database(other)


def edit(server: Server, file: Path | str, **values: bytes | None) -> None:
    """Changes a file from outside: sets these values, and deletes where None is given."""
    with outsider(server, file) as other:
        for name, value in values.items():
            if value is None:
                remove(other, name)
            else:
                put(other, name, value)


def contents(server: Server, file: Path | str) -> dict[str, bytes]:
    """What a file says to somebody who has nothing else. The file is not changed."""
    before = Path(file).read_bytes() if Path(file).is_absolute() else None
    with outsider(server, file) as other:
        found = dict(other.run(READ))
    if before is not None:
        assert Path(file).read_bytes() == before, "reading changed the file"
    return found


def in_threads(*functions: Callable[[], None]) -> None:
    """Runs them at the same time, to the end of the last."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"
    if errors:
        raise errors[0]
