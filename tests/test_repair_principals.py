"""repair_principals: rows that came from another cluster in binary, where principals travel as numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server, refused
from owners import instance_of
from throwaway import Server

TABLES = ("credentials_keyrings", "encrypted_credentials")
VIEW = "omni_credentials.credentials"
ROWS = f"select name, convert_from(value, 'UTF8'), principal::text, expires_at is null from {VIEW} order by 1, 3"
REPAIR = "select omni_credentials.repair_principals({})"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two clusters with the same roles, made in different orders, so that each has the numbers of others."""
    pair = new_server("here"), new_server("there")
    for server, roles in zip(pair, ("anna berta carla", "carla anna berta"), strict=True):
        server.start({VARIABLE: MASTER_KEY})
        database = Database(server, "postgres")
        for role in roles.split():
            database.run(f"create role {role} login")
    yield pair
    for server in pair:
        server.remove()


@pytest.fixture
def pair(servers: tuple[Server, Server]) -> tuple[Database, Database]:
    return fresh_database(servers[0]), fresh_database(servers[1])


def fill(database: Database, *rows: tuple[str, str]) -> None:
    for name, role in rows:
        database.run(f"insert into {VIEW} (name, value, principal) values (%s, %s, %s::regrole)", name, f"{name} of {role}".encode(), role)


def send(source: Database, target: Database) -> None:
    """COPY BINARY of the tables of the default instance."""
    for table in TABLES:
        with source.connect() as out, target.connect() as into:
            into.execute("set session_replication_role = replica")
            with out.cursor().copy(f"copy omni_credentials.{table} to stdout (format binary)") as reading, \
                    into.cursor().copy(f"copy omni_credentials.{table} from stdin (format binary)") as writing:
                for data in reading:
                    writing.write(data)


def test_all_come_back_to_their_roles(pair: tuple[Database, Database]) -> None:
    here, there = pair
    # One name for all three is a circle; two of three, a chain; one alone moves.
    fill(here, *[(name, role) for name, roles in {"circle": "anna berta carla", "chain": "anna berta", "alone": "carla"}.items() for role in roles.split()])
    fill(here, ("of the owner", "postgres"))
    here.run(f"update {VIEW} set expires_at = '2100-01-01' where name = 'circle' and principal = 'berta'::regrole")
    send(here, there)
    assert len(there.run("select * from omni_credentials.verify()")) == 6
    assert there.run(REPAIR.format("")) == [(6,)]
    assert there.run("select * from omni_credentials.verify()") == []
    assert there.run(ROWS) == here.run(ROWS)
    assert there.run(REPAIR.format("")) == [(0,)]
    # What is sealed stays as it was.
    sealed = "select name, value, principal::text from omni_credentials.encrypted_credentials order by 1, 3"
    assert there.run(sealed) == here.run(sealed)


def test_a_place_that_is_taken_stays(pair: tuple[Database, Database]) -> None:
    here, there = pair
    fill(here, ("n", "anna"), ("m", "anna"))
    send(here, there)
    there.run("delete from omni_credentials.encrypted_credentials where name = 'x'")
    there.run(f"insert into {VIEW} (name, value, principal) values ('n', 'newer', 'anna'::regrole)")
    assert there.run(REPAIR.format("")) == [(1,)]
    assert [row[:2] for row in there.run(f"select name, convert_from(value, 'UTF8') from {VIEW} where principal = 'anna'::regrole order by 1")] \
        == [("m", "m of anna"), ("n", "newer")]
    assert [row[0] for row in there.run("select name from omni_credentials.verify()")] == ["n"]


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1), (3, 2, 1), (2, 1, 3), (3, 1, 2), (1, 3, 2)])
def test_a_row_that_waits_for_a_circle_stays(pair: tuple[Database, Database], order: tuple[int, ...]) -> None:
    """Two values for anna, one of them where berta's belongs and the other where carla's does: none is lost."""
    here, there = pair
    fill(here, ("n", "anna"), ("n", "berta"))
    first = here.run("select value from omni_credentials.encrypted_credentials where principal = 'anna'::regrole")[0][0]
    here.run(f"update {VIEW} set value = 'second' where principal = 'anna'::regrole")
    send(here, there)
    sealed = dict(there.run("select 'berta', value from omni_credentials.encrypted_credentials where principal = 'anna'::regrole"))
    second = here.run("select value from omni_credentials.encrypted_credentials where principal = 'anna'::regrole")[0][0]
    rows = {1: (first, "berta"), 2: (second, "carla"), 3: (sealed["berta"], "anna")}
    with there.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute("delete from omni_credentials.encrypted_credentials")
        for number in order:
            value, role = rows[number]
            session.execute("insert into omni_credentials.encrypted_credentials (name, value, principal) values ('n', %s, %s::regrole)", (value, role))
    there.run(REPAIR.format(""))
    kept = {row[0] for row in there.run("select value from omni_credentials.encrypted_credentials")}
    assert kept == {first, second, sealed["berta"]}
    assert there.run(f"select convert_from(value, 'UTF8') from {VIEW} where principal = 'berta'::regrole") == [("n of berta",)]
    assert len(there.run("select * from omni_credentials.verify()")) == 1


def test_a_second_copy_stays_and_is_not_counted(pair: tuple[Database, Database]) -> None:
    here, there = pair
    fill(here, ("n", "anna"))
    send(here, there)
    assert there.run(REPAIR.format("")) == [(1,)]
    with there.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute("insert into omni_credentials.encrypted_credentials select name, value, kind, 'carla'::regrole, scope"
                        " from omni_credentials.encrypted_credentials")
    assert there.run(REPAIR.format("")) == [(0,)] == there.run(REPAIR.format(""))
    assert len(there.run("select * from omni_credentials.verify()")) == 1


def test_a_role_that_is_not_here(pair: tuple[Database, Database]) -> None:
    here, there = pair
    here.run("create role only_here")
    fill(here, ("n", "only_here"), ("m", "berta"))
    send(here, there)
    assert there.run(REPAIR.format("")) == [(1,)]
    assert [row[0] for row in there.run("select name from omni_credentials.verify()")] == ["n"]
    there.run("create role another; create role only_here")
    assert there.run(REPAIR.format("")) == [(1,)]
    assert there.run("select * from omni_credentials.verify()") == []


def test_damaged_rows_stay(pair: tuple[Database, Database]) -> None:
    here, there = pair
    fill(here, ("n", "anna"))
    send(here, there)
    with there.connect() as session:
        session.execute("set session_replication_role = replica")
        session.execute("update omni_credentials.encrypted_credentials set value = set_byte(value, 60, get_byte(value, 60) # 1)")
    assert there.run(REPAIR.format("")) == [(0,)]
    assert len(there.run("select * from omni_credentials.verify()")) == 1


def test_for_the_owner_only(role, db: Database) -> None:
    owner, thief = role("owner"), role("thief")
    instance_of(db, owner)
    db.grant(thief, schema="mine")
    db.run(f"grant execute on function omni_credentials.repair_principals to {owner}, {thief}")
    with refused("42501"):
        db.run(REPAIR.format("'mine'"), user=thief)
    assert db.run(REPAIR.format("'mine'"), user=owner) == [(0,)]
    with refused("22004"):
        db.run(REPAIR.format("null"))
    with refused("3F000"):
        db.run(REPAIR.format("'public'"))
