"""The history against the owner of an instance, and against sessions that change it at the same time."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from conftest import Database, refused

VIEW = "mine.credentials"
TABLE = "mine.encrypted_credentials"
VERSIONS = "mine.encrypted_credential_versions"
HISTORY = "mine.credential_versions"

# What an owner can put on a table that runs its function.
CODE = {
    "index": "create index on {} ((mine.trap(1)))",
    "partial index": "create index on {} (name) where mine.trap(1) = 1",
    "default": "alter table {} add more int default mine.trap(1)",
    "generated": "alter table {} add more int generated always as (mine.trap(1)) stored",
    "check": "alter table {} add constraint c check (mine.trap(1) = 1) not valid",
    "domain": "create domain mine.d as int check (mine.trap(value) = 1); alter table {} add more mine.d default 1",
    "trigger before": "create trigger aaa before insert or update or delete on {} for each row execute function mine.trapped()",
    "trigger after": "create trigger zzz after insert or update or delete on {} for each row execute function mine.trapped()",
    "trigger of statements": "create trigger zzz after insert or update or delete on {} for each statement execute function mine.trapped()",
    "deferred trigger": "create constraint trigger zzz after insert or update on {} deferrable initially deferred for each row"
                        " execute function mine.trapped()",
    "rule": "create rule r as on update to {} do also select mine.trap(1)",
    "policy": "create policy p on {0} as restrictive using (mine.trap(1) = 1); alter table {0} force row level security",
    "statistics": "create statistics mine.s on (mine.trap(1)), name from {0}; analyze {0}",
    "child": "create table mine.child () inherits ({}); create trigger aaa before insert or update or delete on mine.child for each row"
             " execute function mine.trapped()",
}
MAINTENANCE = (
    "rotate_key('mine')", "use_module(schema => 'mine')", "prune_keyrings('mine')", "rename_principal('nobody', 'postgres', 'mine')",
    "repair_principals('mine')", "verify('mine')", "change_history_limit('mine', 5)", "purge_versions('mine', 'n', null, false)",
    "instance_status('mine')",
)


@pytest.fixture
def owner(role, db: Database) -> str:
    """The owner of an instance with a history, who would like to be a superuser."""
    name = role("owner")
    db.run(f"grant usage on schema omni_credentials to {name} with grant option;"
           f" grant execute on all functions in schema omni_credentials to {name} with grant option")
    db.allow(name)
    db.run(f"create schema mine authorization {name}")
    db.run("select omni_credentials.instantiate('mine')", user=name)
    for credential in ("n", "m"):
        for value in ("one", "two"):
            db.run("select mine.set_credential(%s, %s::text)", credential, value, user=name)
    db.run(
        "create function mine.trap(it int) returns int immutable language plpgsql as $$ begin"
        f" if (select rolsuper from pg_roles where rolname = current_user) then alter role {name} superuser; end if; return it; end $$;"
        "create function mine.trapped() returns trigger language plpgsql as"
        " $$ begin perform mine.trap(1); return case tg_op when 'DELETE' then old else new end; end $$", user=name)
    return name


@pytest.mark.parametrize("code", CODE)
def test_maintenance_by_a_superuser_runs_no_code_with_its_rights(owner: str, db: Database, code: str) -> None:
    for table in (VERSIONS, TABLE):
        db.run(CODE[code].format(table), user=owner)
        for call in MAINTENANCE:
            try:
                db.run(f"select omni_credentials.{call}")
            except psycopg.Error as error:
                # What the table may not have, or what a restricted operation may not do.
                assert error.sqlstate in ("42P16", "42501", "55000"), error
        assert db.run("select rolsuper from pg_roles where rolname = %s", owner) == [(False,)], table
        if code in ("domain", "statistics", "child"):
            # Their names are taken.
            break


def test_what_is_no_history(owner: str, db: Database) -> None:
    """Anything else in the place of the table is refused."""
    db.run(f"alter table {VERSIONS} rename to kept", user=owner)
    for statement, sqlstate in (
        (f"create view {VERSIONS} as select * from mine.kept", "3F000"),
        (f"create table {VERSIONS} (a int)", "42P16"),
        (f"create unlogged table {VERSIONS} (like mine.kept including all)", "42P16"),
        (f"create table {VERSIONS} (like mine.kept)", "42P16"),
        (f"create table {VERSIONS} (like mine.kept) partition by list (name)", "3F000"),
    ):
        db.run(statement, user=owner)
        with refused(sqlstate):
            db.run("select mine.set_credential('n', random()::text)", user=owner)
        kind = "view" if "view" in statement else "table"
        # The guard of tables goes by their names.
        db.run(f"alter {kind} {VERSIONS} rename to other; drop {kind} mine.other", user=owner)
    db.run("alter table mine.kept rename to encrypted_credential_versions", user=owner)
    db.run("select mine.set_credential('n', 'three'::text)", user=owner)
    assert db.run(f"select value from {HISTORY} where name = 'n' order by version", user=owner) == [(b"one",), (b"two",)]


def test_many_changes_at_once(owner: str, db: Database) -> None:
    """In all isolation levels, with savepoints, restores, renames and maintenance between them."""
    db.run("select mine.set_history_limit(3)", user=owner)
    allowed = {"40001", "40P01", "23505", "P0002", "25001"}
    wrong: list[str] = []

    def change(seed: int) -> None:
        choose = random.Random(seed)
        with db.connect(owner, autocommit=False) as session:
            for _ in range(40):
                try:
                    level = choose.choice(["read committed", "repeatable read", "serializable"])
                    session.execute(f"set transaction isolation level {level}")
                    for _ in range(choose.randint(1, 3)):
                        name, other = (f"n{choose.randint(0, 2)}" for _ in range(2))
                        session.execute(choose.choice([
                            f"select mine.set_credential('{name}', '{choose.random()}'::text)",
                            f"update {VIEW} set value = '{choose.random()}' where name = '{name}'",
                            f"delete from {VIEW} where name = '{name}'",
                            f"select mine.restore_credential('{name}')",
                            f"savepoint s; select mine.set_credential('{name}', 'undone'::text); rollback to s",
                            f"update {VIEW} set name = '{other}' where name = '{name}'",
                            f"select mine.purge_history('{name}')",
                            "select omni_credentials.rotate_key('mine')",
                            f"select value from {HISTORY}",
                        ]))
                    session.commit() if choose.random() < 0.85 else session.rollback()
                except psycopg.Error as error:
                    if error.sqlstate not in allowed:
                        wrong.append(str(error))
                    session.rollback()

    threads = [threading.Thread(target=change, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert db.run("select * from omni_credentials.verify('mine')") == []
    for count, distinct, span in db.run(
        f"select count(*), count(distinct version), max(version) - min(version) + 1 from {HISTORY} group by name"
    ):
        # One after the other, and none more than the limit.
        assert count == distinct == span <= 3
    assert db.run(
        f"select name from (select name, valid_until, lag(valid_until) over (partition by name order by version) as before from {HISTORY}) v"
        " where before > valid_until"
    ) == []
    assert db.run("select problem from omni_credentials.status() where schema = 'mine'") == [(None,)]
