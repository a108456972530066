"""status(): how each instance is, on any node, and never an error as a whole."""

from __future__ import annotations

from conftest import PASSWORD, VARIABLE, Database, refused
from file_stores import mirrored
from psycopg.rows import dict_row
from standbys import base_backup, catch_up

COLUMNS = ["schema", "version", "variable", "secret", "unlocks", "keyrings", "module", "credentials", "expired", "due",
           "unknown_principals", "file_stores", "file_stores_behind", "preloaded", "problem"]
SET = "select {}.set_credential(%s, 'v', expires_at => now() + %s::interval)"


def status(db: Database, user: str = "postgres") -> dict[str, dict]:
    with db.connect(user) as session, session.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from omni_credentials.status()").fetchall()
    assert all(list(row) == COLUMNS for row in rows)
    return {row["schema"]: row for row in rows}


def test_an_instance_from_its_first_day(own_db: Database) -> None:
    row = status(own_db)["omni_credentials"]
    assert row["variable"] == VARIABLE and row["secret"] == "variable" and row["problem"] is None
    assert (row["unlocks"], row["keyrings"], row["credentials"], row["preloaded"]) == (None, 0, 0, False)
    for name, within in (("past", "-1 day"), ("soon", "10 days"), ("late", "100 days")):
        own_db.run(SET.format("omni_credentials"), name, within)
    row = status(own_db)["omni_credentials"]
    assert (row["unlocks"], row["keyrings"], row["credentials"], row["expired"], row["due"]) == (True, 1, 3, 1, 1)
    assert (row["unknown_principals"], row["file_stores"], row["problem"]) == (0, 0, None)
    module = own_db.run("select encode(digest, 'hex') from omni_credentials.crypto_modules")
    assert [(row["module"],)] == module
    own_db.close()

    own_db.server.settings["shared_preload_libraries"] = "omni_credentials"
    own_db.server.restart({VARIABLE: "another secret"})
    row = status(own_db)["omni_credentials"]
    assert row["unlocks"] is False and row["credentials"] == 3 and row["preloaded"] is True
    assert f"the master secret in environment variable {VARIABLE} is not the one" in row["problem"]
    own_db.close()
    own_db.server.restart({})
    row = status(own_db)["omni_credentials"]
    assert (row["secret"], row["unlocks"], row["credentials"]) == (None, False, 3)
    assert f"{VARIABLE} is not set" in row["problem"]
    own_db.close()
    secret = own_db.server.data / "secret"
    secret.write_text(PASSWORD)
    own_db.server.restart({f"{VARIABLE}_FILE": str(secret)})
    row = status(own_db)["omni_credentials"]
    assert (row["secret"], row["unlocks"], row["problem"]) == ("file", True, None)


def test_what_is_wrong_with_one_is_told_of_that_one(role, db: Database) -> None:
    app = role("app")
    db.run("create schema broken; select omni_credentials.instantiate('broken')")
    db.run("create schema whole; select omni_credentials.instantiate('whole')")
    db.run("insert into whole.credentials (name, value, principal) values ('n', 'v', %s::regrole)", app)
    db.run("alter table broken.credentials_keyrings alter column keyring type text using ''")
    rows = status(db)
    assert list(rows) == ["broken", "omni_credentials", "whole"]
    assert "keyring" in rows["broken"]["problem"] and rows["broken"]["credentials"] is None
    assert rows["whole"]["problem"] is None and rows["whole"]["credentials"] == 1
    # A row keeps no role from being dropped.
    gone = role("gone")
    db.run("insert into whole.credentials (name, value, principal) values ('o', 'v', %s::regrole)", gone)
    db.run(f"drop role {gone}; create role {gone}")
    row = status(db)["whole"]
    assert (row["credentials"], row["unknown_principals"], row["problem"]) == (2, 1, None)


def test_file_stores(db: Database) -> None:
    file = mirrored(db, {"n": b"v"})
    row = status(db)["omni_credentials"]
    assert (row["file_stores"], row["file_stores_behind"], row["problem"]) == (1, 0, None)
    file.unlink()
    row = status(db)["omni_credentials"]
    assert (row["file_stores"], row["file_stores_behind"]) == (1, 1)
    assert "the file is missing" in row["problem"] and str(file) in row["problem"]


def test_a_role_that_monitors_needs_nothing_else(role, db: Database) -> None:
    monitor, tenant = role("monitor"), role("tenant")
    db.run("insert into omni_credentials.credentials (name, value) values ('n', 'v')")
    with refused("42501"):
        status(db, monitor)
    db.run(f"grant usage on schema omni_credentials to {monitor}, {tenant}")
    for function in ("status()", "instance_status(regnamespace)", "file_store_status(regnamespace)"):
        db.run(f"grant execute on function omni_credentials.{function} to {monitor}")
    db.run(f"grant select on omni_credentials.instances to {monitor}")
    row = status(db, monitor)["omni_credentials"]
    assert (row["credentials"], row["unlocks"], row["problem"]) == (1, True, None)
    with refused("42501"):
        db.run("select value from omni_credentials.credentials", user=monitor)
    with refused("42501"):
        db.run("select * from omni_credentials.instance_status('omni_credentials')", user=tenant)


def test_a_cancelled_statement_ends(db: Database) -> None:
    """The handler of what is wrong with an instance does not swallow a timeout."""
    db.run("insert into omni_credentials.credentials (name, value) select n::text, 'v' from generate_series(1, 3) n")
    with db.connect() as session, refused("57014"):
        session.execute("set statement_timeout = 1")
        for _ in range(200):
            session.execute("select * from omni_credentials.status(), generate_series(1, 1000)")


def test_on_a_standby(own_db: Database) -> None:
    own_db.run(SET.format("omni_credentials"), "soon", "10 days")
    standby = base_backup(own_db.server)
    try:
        standby.start({VARIABLE: PASSWORD})
        replica = Database(standby, own_db.name)
        catch_up(own_db, replica)
        row = status(replica)["omni_credentials"]
        assert (row["unlocks"], row["credentials"], row["due"], row["problem"]) == (True, 1, 1, None)
        replica.close()
    finally:
        standby.remove()
