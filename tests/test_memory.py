"""What a backend takes for a while, it does not keep: memory of derivations, code of modules, sandboxes of copies."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
from conftest import VARIABLE, Database
from test_modules import AES, WRONG, fill, install

# What Argon2id takes with the default costs, in KiB.
DERIVATION = 65_536


def memory(session: psycopg.Connection) -> tuple[int, int]:
    """The backend's own memory now, and the most it ever had resident, in KiB."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(lines[name].split()[0]) for name in ("RssAnon", "VmHWM"))


def test_memory_after_a_derivation(own_db: Database) -> None:
    session = own_db.connect()
    session.execute("select 1")
    before, most = memory(session)
    assert most < DERIVATION, "nothing was derived yet"
    session.execute("insert into omni_credentials.credentials (name, value) values ('a', 'b')")
    assert session.execute("select value from omni_credentials.credentials").fetchall() == [(b"b",)]
    after, most = memory(session)
    assert most > DERIVATION, "a key was derived"
    assert after - before < DERIVATION / 8, f"{after - before} KiB are kept"


def address_space(session: psycopg.Connection) -> int:
    """GiB; every sandbox reserves four."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    return int(re.search(r"VmSize:\s+(\d+)", status)[1]) >> 20


def test_memory_after_large_values(db: Database) -> None:
    """One sandbox serves the large values of a transaction, whatever keyrings they have, and does not outlive it."""
    session = db.connect()
    session.execute("create schema other; select omni_credentials.instantiate('other')")
    for schema in ("omni_credentials", "other"):
        session.execute(
            f"insert into {schema}.credentials (name, value) select 'n' || i, repeat('x', 300000)::bytea from generate_series(1, 3) i"
        )
    read = "select sum(length(value)) from {}.credentials"
    session.execute(read.format("omni_credentials"))
    before = address_space(session)
    for end in ("commit", "rollback"):
        session.execute("begin")
        for schema in ("omni_credentials", "other", "omni_credentials"):
            assert session.execute(read.format(schema)).fetchall() == [(900_000,)]
            assert address_space(session) - before in (4, 5)
        session.execute(end)
        assert address_space(session) - before in (0, 1)


def test_memory_of_many_instances(db: Database) -> None:
    """A backend keeps the sandboxes of 64 instances, and reads all the others as well."""
    schemas = [f"many{number}" for number in range(72)]
    session = db.connect()
    for schema in schemas:
        session.execute(f"create schema {schema}")
        session.execute("select omni_credentials.instantiate(%s::regnamespace, %s, 8192, 1, 1)", (schema, VARIABLE))
        session.execute(f"select {schema}.set_credential('a', %s)", (schema,))
    session = db.connect()
    session.execute("select 1")
    before = address_space(session)
    for _ in range(2):
        for schema in schemas:
            read = session.execute(f"select value from {schema}.credentials").fetchall()
            assert read == [(schema.encode(),)]
    assert 40 < (address_space(session) - before) / 4 <= 66
    # The ones that were forgotten are written as well, in one transaction with others.
    with session.transaction():
        for schema in schemas:
            session.execute(f"select {schema}.set_credential('a', 'new')")
    assert all(session.execute(f"select value from {schema}.credentials").fetchall() == [(b"new",)] for schema in schemas)


def test_memory_after_a_scope_of_any_size(db: Database) -> None:
    """A scope is an argument of the function, and its text can be far longer than it is: none of it is kept."""
    opened = (
        "select omni_credentials.open_credential(c.tableoid, c.name, c.kind, c.principal, {}, c.value)"
        " from omni_credentials.encrypted_credentials c"
    )
    session = db.connect()
    session.execute("insert into omni_credentials.credentials (name, value) values ('a', 'b')")
    session.execute("select value from omni_credentials.credentials")
    before, _ = memory(session)
    session.execute("set omni_credentials.on_unreadable = 'null'")
    for scope in ("to_jsonb(repeat('x', 200000000))", "to_jsonb(array_fill('1e131071'::numeric, array[150]))"):
        assert session.execute(opened.format(scope)).fetchall() == [(None,)]
    after, _ = memory(session)
    # The allocator keeps some of what was freed.
    assert after - before < DERIVATION / 2, f"{after - before} KiB are kept"


def variant(number: int) -> bytes:
    """The same module under another digest: a custom section, which means nothing, is appended."""
    name = b"variant"
    section = bytes([len(name)]) + name + bytes([number])
    return AES + bytes([0, len(section)]) + section


def modules_in_memory(session: psycopg.Connection) -> int:
    """How many compiled modules a session's backend has: executable memory that is of no file, or of a sealed copy."""
    maps = Path(f"/proc/{session.info.backend_pid}/maps").read_text()
    return len(re.findall(r"^\S+ r-xp \S+ \S+ \S+ *(?:/memfd:omni-credentials-module.*)?$", maps, re.M))


def test_code_of_modules_used_in_turn(db: Database) -> None:
    fill(db, 3)
    owner, reader = db.connect(), db.connect()
    assert reader.execute(WRONG).fetchall() == owner.execute(WRONG).fetchall() == [(0,)]
    before = modules_in_memory(owner), modules_in_memory(reader)
    assert before == (1, 1)
    for number in range(4):
        install(db, f"m{number}", variant(number))
        for statement, count in (
            (f"select omni_credentials.use_module(module => 'm{number}')", 2),
            ("select omni_credentials.use_module(module => 'xchacha20poly1305')", 2),
            ("select omni_credentials.prune_keyrings()", 1),
            (f"select omni_credentials.remove_module('m{number}')", 1),
        ):
            owner.execute(statement)
            for session in (owner, reader):
                assert session.execute(WRONG).fetchall() == [(0,)]
                assert modules_in_memory(session) == count, statement
    # Those that were only looked at are not kept either.
    for number in range(4, 7):
        owner.execute("select omni_credentials.install_module('m', %s, sha256(%s))", (variant(number), variant(number)))
        assert owner.execute(WRONG).fetchall() == [(0,)]
    assert modules_in_memory(owner) == 1


def test_copies_that_are_gone(db: Database) -> None:
    """A sandbox reserves some gigabytes of address space, so one that stays cannot be missed."""
    session = db.connect()

    def sandboxes() -> int:
        status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
        return int(status.split("VmSize:")[1].split()[0]) >> 22

    def use_one() -> None:
        session.execute("create schema passing")
        session.execute("select omni_credentials.instantiate('passing')")
        session.execute("insert into passing.credentials (name, value) values ('a', 'b')")
        assert session.execute("select value from passing.credentials").fetchall() == [(b"b",)]

    fill(db, 3)
    assert session.execute(WRONG).fetchall() == [(0,)]
    before = sandboxes()
    use_one()
    assert sandboxes() == before + 1
    for _ in range(4):
        session.execute("drop schema passing cascade")
        use_one()
        assert sandboxes() == before + 1
    session.execute("drop schema passing cascade")
    assert session.execute(WRONG).fetchall() == [(0,)]
    assert sandboxes() == before
