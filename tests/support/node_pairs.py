"""Two servers, each a subscriber of the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, master_key, new_server
from standbys import eventually
from throwaway import Server

VIEW = "omni_credentials.credentials"
READ = f"select name, convert_from(value, 'UTF8') from {VIEW} order by name"
KEYRINGS = "select number, id from omni_credentials.credentials_keyrings order by 1, 2"
TABLES = ", ".join(
    f"omni_credentials.{name}" for name in ("encrypted_credentials", "encrypted_credential_versions", "credentials_keyrings")
)
# A second variable, for another master secret.
NEW_VARIABLE = "NEW_SECRET"
SECRETS = {VARIABLE: MASTER_KEY, NEW_VARIABLE: master_key(b"another")}


@dataclass
class Node:
    server: Server
    db: Database

    def run(self, statement: str, *parameters: object) -> list[tuple]:
        return self.db.run(statement, *parameters)

    def put(self, name: str, value: str) -> None:
        self.run("select omni_credentials.set_credential(%s, %s)", name, value)

    def read(self) -> dict[str, str]:
        return dict(self.run(READ))

    def sound(self) -> bool:
        return self.run("select count(*) from omni_credentials.verify()") == [(0,)]


@dataclass
class Pair:
    here: Node
    there: Node

    @property
    def both(self) -> tuple[Node, Node]:
        return self.here, self.there

    def apart(self) -> None:
        """Neither hears of the other until `together`: what both do is done at the same time."""
        for node in self.both:
            node.run("alter subscription s disable")
            eventually(lambda node=node: node.run("select count(*) from pg_stat_subscription where pid is not null") == [(0,)])

    def together(self) -> None:
        for node in self.both:
            node.run("alter subscription s enable")
        self.settled()

    def settled(self) -> None:
        """Waits until each has applied what the other has committed so far."""
        for source in self.both:
            ((position,),) = source.run("select pg_current_wal_insert_lsn()::text")
            eventually(
                lambda source=source, position=position: source.run(
                    "select replay_lsn >= %s::pg_lsn from pg_stat_replication where application_name = 's'", position
                ) == [(True,)]
            )

    def agree(self, expected: dict[str, str]) -> None:
        self.settled()
        for node in self.both:
            assert node.read() == expected
            assert node.sound()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    settings = {"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20", "wal_retrieve_retry_interval": "100ms"}
    pair = new_server("here", settings), new_server("there", settings)
    if pair[0].installation.major < 16:
        for server in pair:
            server.remove()
        pytest.skip("a subscription can leave out what came by replication (origin = none) since Postgres 16")
    for server in pair:
        server.start(SECRETS)
    yield pair
    for server in pair:
        server.remove()


@pytest.fixture
def pair(servers: tuple[Server, Server]) -> Iterator[Pair]:
    """Two empty instances, each a subscriber of the other."""
    here, there = (Node(server, fresh_database(server)) for server in servers)
    for node in (here, there):
        node.run(f"create publication p for table {TABLES}")
    for node, other in ((here, there), (there, here)):
        slot = f"{node.db.name}_{other.db.name}"
        node.run(
            f"create subscription s connection '{other.server.conninfo(other.db.name)} application_name=s' publication p"
            f" with (origin = none, copy_data = false, slot_name = {slot})"
        )
    yield Pair(here, there)
    for node in (here, there):
        node.run("alter subscription s disable")
    for node in (here, there):
        node.run("drop subscription s")
        node.db.close()
