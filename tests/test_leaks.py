"""A canary, written in every way, is found nowhere on the server's disk: heap, WAL, temporary files, logs, statistics,
the stream of logical decoding, the file store."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server
from throwaway import Server

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
SETTINGS = {
    "log_statement": "all",
    "log_min_messages": "debug2",
    "log_min_error_statement": "debug1",
    "log_min_duration_statement": "0",
    # Both are for the administrator to choose: Postgres itself writes bound parameters to its log otherwise.
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "verbose",
    "debug_print_plan": "off",
    "wal_level": "logical",
    "max_wal_senders": "4",
    "wal_keep_size": "1GB",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "pg_stat_statements.track_utility": "on",
    "work_mem": "64kB",
    "log_temp_files": "0",
    "full_page_writes": "on",
}


@pytest.fixture
def logging_server() -> Iterator[Server]:
    server = new_server("leaks", SETTINGS)
    server.start({VARIABLE: MASTER_KEY})
    yield server
    server.remove()


def spellings(value: bytes) -> set[bytes]:
    """How a value may look in a file: as it is, in hex, as COPY or a log writes it, as base64, as UTF-16."""
    import base64

    found = {value, value.hex().encode(), value.hex().upper().encode(), value.decode().encode("utf-16-le")}
    # base64 of any alignment, without the characters at the ends that depend on the neighbours.
    for shift in range(3):
        found.add(base64.b64encode(b"x" * shift + value)[4:-4])
    return found


def files_with(folder, needles: set[bytes]) -> list[str]:
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                continue
            if any(needle in content for needle in needles):
                found.append(path)
    return found


def write_in_every_way(db: Database, canary: bytes) -> None:
    """Values go as bound parameters or as COPY data, the ways that the documentation names."""
    session = db.connect()
    execute = session.execute
    execute(f"insert into {VIEW} (name, value) values ('a', %b)", (canary,))
    execute(f"insert into {VIEW} (name, value) values ('b', %b), ('c', %b) returning value", (canary, canary))
    execute(f"update {VIEW} set value = %b || value where name = 'b'", (canary,))
    execute(f"update {VIEW} set name = 'd' where name = 'c' returning value")
    execute("select omni_credentials.set_credential('e', %b)", (canary,))
    execute("select omni_credentials.set_credential('e', %b, 'token')", (canary + b"!",))
    execute(f"insert into {VIEW} (name, value, kind) select name, value, 'otp' from {VIEW} where kind = 'credential'")
    execute(f"insert into {VIEW} (name, value) values ('large', %b)", (canary * 20_000,))
    with session.cursor() as cursor, cursor.copy(f"copy {VIEW} (name, value) from stdin") as copy:
        copy.write_row(("f", canary))
    execute(
        f"insert into {TABLE} (name, value) select 'g', omni_credentials.seal_credential('{TABLE}'::regclass, 'g',"
        " 'credential'::omni_credentials.credential_kind, current_user::regrole, '{\"all\": true}', %b)",
        (canary,),
    )
    if db.server.installation.major >= 17:
        execute(
            f"merge into {VIEW} c using (select 'm' as name, %b as value) s on c.name = s.name"
            " when not matched then insert (name, value) values (s.name, s.value)"
            " when matched then update set value = s.value",
            (canary,),
        )
    # Ways that fail.
    for statement in (
        f"insert into {VIEW} (name, value) values ('a', %b)",
        f"insert into {VIEW} (name, value, kind) values (null, %b, null)",
        f"insert into {VIEW} (name, value, principal) values ('', %b, default)",
        f"insert into {TABLE} (name, value) values ('x', %b)",
        f"update {VIEW} set value = %b, name = 'a'",
    ):
        with pytest.raises(psycopg.Error):
            execute(statement, (canary,))
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        execute(f"insert into {VIEW} (name, value) values ('x', %b)", (canary * 100_000,))
    # Reading, rotating, undoing.
    assert execute(f"select count(*) from {VIEW} where value = %b", (canary,)).fetchone()[0] > 5
    execute("select omni_credentials.rotate_key()")
    execute("select * from omni_credentials.verify()")
    with pytest.raises(ZeroDivisionError), session.transaction():
        execute(f"update {VIEW} set value = value || %b", (canary,))
        raise ZeroDivisionError
    execute(f"delete from {VIEW} where name = 'f' returning value")
    session.close()


def test_canary(logging_server: Server) -> None:
    server = logging_server
    db = fresh_database(server)
    canary = f"canary-{secrets.token_hex(12)}".encode()
    needles = spellings(canary)
    db.run("create extension pg_stat_statements")
    db.run("select pg_create_logical_replication_slot('text', 'test_decoding')")
    db.run("alter table omni_credentials.encrypted_credentials replica identity full")
    db.run("select * from omni_credentials.instantiate_file_store('mirror.omni')")
    write_in_every_way(db, canary)

    decoded = "\n".join(data for (data,) in db.run("select data from pg_logical_slot_get_changes('text', null, null)"))
    assert "encrypted_credentials: UPDATE" in decoded and "encrypted_credentials: DELETE" in decoded
    assert not any(needle.decode("latin-1") in decoded for needle in needles)
    statements = "\n".join(query for (query,) in db.run("select query from pg_stat_statements"))
    assert "insert into" in statements
    assert not any(needle.decode("latin-1") in statements for needle in needles)
    assert (server.data / "mirror.omni").exists()
    db.run("checkpoint")
    db.close()
    assert files_with(server.folder, needles | {MASTER_KEY.encode()} ) == [str(server.folder / "server.json")]
    server.stop()
    (server.folder / "server.json").write_text((server.folder / "server.json").read_text().replace(MASTER_KEY, "-"))
    assert files_with(server.folder, needles | {MASTER_KEY.encode()}) == []
    log = server.log.read_text(errors="replace")
    assert "set_credential" in log
    assert "merge into" in log or server.installation.major < 17


def test_no_temporary_files_of_our_own(logging_server: Server) -> None:
    """Whatever goes through the extension stays out of temporary files; a query that sorts values does not."""
    server = logging_server
    db = fresh_database(server)
    db.run(f"insert into {VIEW} (name, value) select 'n' || n, convert_to(repeat('x', 3000), 'utf8') from generate_series(1, 500) n")
    db.run("select * from omni_credentials.instantiate_file_store('mirror.omni')")
    db.run(f"update {VIEW} set value = value || 'y'")
    for function in ("rotate_key()", "use_module()", "verify()", "credential_file_store_reload('mirror.omni')"):
        db.run(f"select * from omni_credentials.{function}")
    with db.connect() as session, session.cursor() as cursor, cursor.copy(f"copy {VIEW} (name, value) from stdin") as copy:
        for n in range(500):
            copy.write_row((f"c{n}", b"x" * 3000))
    db.run(f"delete from {VIEW} where name like 'c%'")
    assert "temporary file: path" not in server.log.read_text(errors="replace")
    db.run(f"select name from {VIEW} order by value")
    assert "temporary file: path" in server.log.read_text(errors="replace")


def test_the_search_finds_what_is_there(logging_server: Server) -> None:
    """The same search, for a value that was written as a literal: Postgres logs it, as the documentation warns."""
    db = fresh_database(logging_server)
    canary = f"canary-{secrets.token_hex(12)}".encode()
    db.run("create table public.plain (v bytea)")
    db.run("insert into public.plain values (%b)", canary)
    db.run(f"insert into {VIEW} (name, value) values ('n', '{canary.decode()}')")
    db.run("checkpoint")
    found = files_with(logging_server.folder, spellings(canary))
    assert any(path.endswith("/log") for path in found)
    assert any("/base/" in path for path in found)
    assert any("/pg_wal/" in path for path in found)


def test_errors_show_no_value(db: Database) -> None:
    """Neither message, detail, hint nor context of any refusal holds the value."""
    canary = b"canary-in-an-error"
    db.run(f"insert into {VIEW} (name, value) values ('a', %b)", canary)
    for statement in (
        f"insert into {VIEW} (name, value) values ('a', %b)",
        f"insert into {VIEW} (name, value) values ('', %b)",
        f"insert into {VIEW} (name, value, kind) values ('a', %b, 'nonsense')",
        f"insert into {TABLE} (name, value) values ('x', %b)",
        "select omni_credentials.set_credential(null, %b)",
        f"update {VIEW} set value = %b, name = null",
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.run(statement, canary)
        diag = caught.value.diag
        said = " ".join(
            str(part)
            for part in (diag.message_primary, diag.message_detail, diag.message_hint, diag.context, diag.internal_query)
        )
        assert canary.decode() not in said and canary.hex() not in said, said
