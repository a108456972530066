"""What a server does to the keyrings of another one that it replicates to, by accident or on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import VARIABLE, fresh_database, refused
from file_stores import contents, mirror
from foreign_keyrings import CLOSED, KEYRINGS, delete_of, ids, read, send_closed, stored, unguarded
from node_pairs import TABLES, Node, Pair, pair, servers  # noqa: F401 # fixtures
from standbys import eventually

STATUS = "select in_step from omni_credentials.credential_file_stores"


@contextmanager
def log_of(node: Node) -> Iterator[list[str]]:
    """What the server writes into its log meanwhile."""
    before, lines = node.server.log.stat().st_size, []
    yield lines
    lines += node.server.log.read_text()[before:].splitlines()


@pytest.fixture
def agreed(pair: Pair) -> Pair:  # the fixture
    """Both have one value and one keyring."""
    pair.here.put("a", "1")
    pair.agree({"a": "1"})
    return pair


@pytest.mark.parametrize("kind", CLOSED)
def test_a_keyring_that_does_not_open(agreed: Pair, kind: str) -> None:
    """Both read on, with file stores, until someone deletes it on one of them."""
    files = [node.server.data / f"{node.db.name}.credentials" for node in agreed.both]
    for node, file in zip(agreed.both, files, strict=True):
        mirror(node.db, file)
    bad = send_closed(agreed.there.db, kind)
    agreed.there.run(
        f"insert into {KEYRINGS} (number, module, keyring) select 9, module, keyring from {KEYRINGS} where id = %s", bad
    )
    agreed.settled()
    for node in agreed.both:
        assert node.read() == {"a": "1"} and node.sound()
        with refused(CLOSED[kind][0], "keyring .* of schema omni_credentials"):
            node.put("b", "2")
    for _ in range(2):
        with refused(CLOSED[kind][0]) as caught:
            agreed.here.put("b", "2")
        agreed.here.run(delete_of(caught.error))
    agreed.here.put("b", "2")
    agreed.settled()
    for node, file in zip(agreed.both, files, strict=True):
        node.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
        assert node.run(STATUS) == [(True,)]
        assert contents(node.server, file) == {"a": b"1", "b": b"2"}
        file.unlink()
    agreed.agree({"a": "1", "b": "2"})


def test_a_keyring_that_is_overwritten(agreed: Pair) -> None:
    before = stored(agreed.here.db)
    with log_of(agreed.here) as log:
        unguarded(agreed.there.db, f"update {KEYRINGS} set keyring = '\\x00'")
        agreed.settled()
    assert stored(agreed.here.db) == before and agreed.here.read() == {"a": "1"}
    assert any("kept keyring" in line and "another server changed" in line for line in log)


def test_two_with_the_same_keys_that_are_removed(agreed: Pair) -> None:
    ((number, module, good, _),) = stored(agreed.here.db)
    agreed.here.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
    agreed.here.run(f"insert into {KEYRINGS} (number, module, keyring) values (%s, %b, %b)", number, module, good)
    agreed.settled()
    assert len(ids(agreed.there.db)) == 2
    with log_of(agreed.here) as log:
        unguarded(agreed.there.db, f"delete from {KEYRINGS}")
        agreed.settled()
    assert len(ids(agreed.here.db)) == 1 and agreed.here.read() == {"a": "1"}
    assert sum("kept keyring" in line for line in log) == 1


def test_a_truncate(agreed: Pair) -> None:
    """The subscription stops, and goes on as the page for operators says."""
    before = stored(agreed.here.db)
    with log_of(agreed.here) as log:
        unguarded(agreed.there.db, f"truncate {KEYRINGS}")
        # With its old id it would meet the row that stayed here.
        agreed.there.run(f"insert into {KEYRINGS} (number, module, keyring) values (%s, %b, %b)", *before[0][:3])
        file = agreed.here.server.log
        start = file.stat().st_size
        eventually(lambda: "finished at" in file.read_text()[start:])
    assert stored(agreed.here.db) == before and agreed.here.read() == {"a": "1"}
    assert any("cannot remove keyrings of schema omni_credentials" in line for line in log)
    position = re.findall(r"finished at ([0-9A-F]+/[0-9A-F]+)", "\n".join(log))[-1]
    agreed.here.run(f"alter subscription s skip (lsn = '{position}')")
    agreed.there.put("b", "2")
    agreed.agree({"a": "1", "b": "2"})


def test_all_is_truncated(agreed: Pair) -> None:
    agreed.there.run(f"truncate {TABLES}")
    agreed.settled()
    assert [stored(node.db) for node in agreed.both] == [[], []]
    agreed.here.put("b", "2")
    agreed.agree({"b": "2"})


def test_both_delete_and_change_at_once(agreed: Pair) -> None:
    """Each deletes what the other one has just begun to use."""
    ((*_, old),) = stored(agreed.here.db)
    agreed.apart()
    agreed.here.run("select omni_credentials.use_module()")
    agreed.here.run("select omni_credentials.purge_history(everything => true)")
    agreed.here.run(f"delete from {KEYRINGS} where id = %s", old)
    agreed.there.put("b", "2")
    agreed.together()
    # Here it is gone, and what is sealed with it came.
    assert agreed.there.read() == {"a": "1", "b": "2"}
    with refused("42704", '"b"', hint="credentials_keyrings"):
        read(agreed.here.db)
    agreed.there.run("select omni_credentials.use_module()")
    agreed.agree({"a": "1", "b": "2"})


def test_a_server_that_makes_no_keys(agreed: Pair) -> None:
    agreed.there.run("alter system set omni_credentials.create_keys = off")
    agreed.there.run("select pg_reload_conf()")
    try:
        eventually(lambda: agreed.there.run("select current_setting('omni_credentials.create_keys', true)") == [("off",)])
        bad = send_closed(agreed.there.db, "altered")
        assert agreed.there.read() == {"a": "1"}
        with refused("XX001", bad) as caught:
            agreed.there.put("b", "2")
        with refused("55000", "makes no keys"):
            agreed.there.run("select omni_credentials.use_module()")
        agreed.there.run(delete_of(caught.error))
        agreed.there.put("b", "2")
        agreed.agree({"a": "1", "b": "2"})
    finally:
        agreed.there.run("alter system reset omni_credentials.create_keys")
        agreed.there.run("select pg_reload_conf()")


def test_a_worker_that_runs_as_the_owner_of_the_tables(servers) -> None:  # the fixture
    """A subscription whose owner is no superuser: `run_as_owner = false` makes the worker the owner of each table."""
    here, there = (Node(server, fresh_database(server)) for server in servers)
    names = ", ".join(f"mine.{name}" for name in ("credentials_keyrings", "encrypted_credentials", "encrypted_credential_versions"))
    for node in (here, there):
        node.run("create role keys_owner login; create role keys_subscriber login in role keys_owner")
        node.run("create schema mine authorization keys_owner")
        node.run("grant usage on schema omni_credentials to keys_owner with grant option")
        node.run("grant execute on all functions in schema omni_credentials to keys_owner with grant option")
        node.db.allow("keys_owner")
        node.db.run("select omni_credentials.instantiate('mine')", user="keys_owner")
    try:
        there.run(f"create publication p for table {names}")
        slot = f"{here.db.name}_owner"
        here.run(
            f"create subscription s connection '{there.server.conninfo(there.db.name)} application_name=s' publication p"
            f" with (copy_data = false, slot_name = {slot}, run_as_owner = false, password_required = false)"
        )
        here.run(f"grant create on database {here.db.name} to keys_subscriber; grant pg_create_subscription to keys_subscriber")
        here.run("alter subscription s owner to keys_subscriber")

        def settled() -> None:
            ((position,),) = there.run("select pg_current_wal_insert_lsn()::text")
            applied = "select replay_lsn >= %s::pg_lsn from pg_stat_replication where application_name = 's'"
            eventually(lambda: there.run(applied, position) == [(True,)])

        def keyrings(node: Node) -> list[tuple]:
            return node.run("select id::text from mine.credentials_keyrings order by id")

        values = "select name, value from mine.credentials order by name"
        there.db.run("select mine.set_credential('a', '1'::text)", user="keys_owner")
        settled()
        assert here.db.run(values, user="keys_owner") == [("a", b"1")]
        good = keyrings(here)
        there.run("insert into mine.credentials_keyrings (number, module, keyring) select 9, module, '\\x00' from mine.credentials_keyrings")
        settled()
        assert len(keyrings(here)) == 2 and here.db.run(values, user="keys_owner") == [("a", b"1")]
        with log_of(here) as log:
            unguarded(there.db, "delete from mine.credentials_keyrings", table="mine.credentials_keyrings")
            settled()
        assert keyrings(here) == good and here.db.run(values, user="keys_owner") == [("a", b"1")]
        assert any("kept keyring" in line for line in log)
    finally:
        here.run("alter subscription s disable")
        here.run("alter subscription s owner to postgres")
        here.run("drop subscription s")
        for node in (here, there):
            node.run("drop schema mine cascade")
            node.run("drop owned by keys_subscriber, keys_owner")
            node.run("drop role keys_subscriber")
            node.run("drop role keys_owner")
            node.db.close()
