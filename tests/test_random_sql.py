"""Random statements of an adversary (support/random_sql.py): any error, but no crash, no error that should not happen, and no
right that the adversary did not have.

OMNI_RANDOM_SECONDS=300 runs them for so long, in several sessions at once; without it, a fixed number runs with fixed seeds.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest
from conftest import MASTER_KEY, VARIABLE, Database, fresh_database, new_server
from random_sql import (
    TOOLS,
    Adversary,
    alter_columns,
    alter_table,
    call,
    call_ours,
    change,
    define,
    maintain,
    session,
)

SECRET = b"a value that the stranger must not see"
# What an instance goes through before it is made again.
TURNS = 40
# Postgres itself raises these as internal errors, about what two sessions do at once or about odd types.
OF_POSTGRES = re.compile(
    "tuple concurrently (updated|deleted)|cache lookup failed for|could not open relation with OID|attempted to (update|delete) invisible tuple"
    "|could not find (tuple|trigger|pg_)|relation \\d+ deleted while still in use"
)
# What we say of data that the adversary damaged.
OUR_WORDS = re.compile("the keyring of schema \\S+ was altered|cannot be read|the sealed value for credential")
# What an owner does, and how often in one run as against another: some only look at what the first change broke.
OWNERS = (alter_columns, alter_table, define, change, session, call, maintain)


class Run:
    """A database with an instance of an adversary."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.names = {
            "role": "mallory", "stranger": "stranger", "variable": VARIABLE, "file": str(db.server.data / "random.credentials"),
        }
        self.statements = 0
        self.odd: list[str] = []
        self.answers: Counter[str] = Counter()
        db.run("create role mallory login in role pg_read_server_files, pg_write_server_files")
        db.run("create role stranger login")
        # So that DISCARD ALL leaves them, and no one waits for a prepared transaction for ever.
        for role in ("mallory", "stranger", "postgres"):
            db.run(f"alter role {role} set lock_timeout = '300ms'")
            db.run(f"alter role {role} set statement_timeout = '5s'")
        db.run("create schema theirs authorization mallory")
        db.run(f"grant temporary, create on database {db.name} to mallory")
        db.allow("mallory")
        db.run("alter event trigger omni_credentials_guard_tables disable")
        self.made_again()
        self.functions = db.run(
            "select format('%s.%I', pronamespace::regnamespace, proname),"
            " array(select format_type(t, null) from unnest(proargtypes) t) from pg_proc"
            " where pronamespace = any (array['omni_credentials', 'mine']::regnamespace[])"
            " and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)"
            " and proname not in ('install_module', 'allow_variable', 'disallow_variable', 'pure', 'register_builtin_module',"
            " 'only_for_owner') order by 1, 2"
        )
        assert len(self.functions) > 20

    def made_again(self) -> None:
        """The instance as it is made, with a credential of the adversary and one of someone else."""
        with self.db.connect() as boss:
            boss.execute("set lock_timeout = '20s'; set statement_timeout = '60s'")
            for (prepared,) in boss.execute("select gid from pg_prepared_xacts").fetchall():
                boss.execute(f"rollback prepared '{prepared}'")
            for schema in ("mine", "elsewhere"):
                boss.execute(f"drop schema if exists {schema} cascade")
            boss.execute("drop schema theirs cascade; create schema theirs authorization mallory")
            boss.execute("create schema mine authorization mallory")
            # What the administrator of the instance took back.
            boss.execute("grant usage on schema omni_credentials to mallory, stranger")
            boss.execute("grant execute on all functions in schema omni_credentials to mallory, stranger")
            boss.execute("revoke execute on function omni_credentials.instantiate from stranger")
            boss.execute("grant stranger to mallory")
        with self.db.connect("mallory") as owner:
            owner.execute("select omni_credentials.instantiate('mine')")
            for statement in TOOLS.replace("{role}", "mallory").split(";\ncreate"):
                owner.execute(statement if statement.lstrip().startswith("create") else f"create{statement}")
            owner.execute("insert into mine.credentials (name, value) values ('a', %b), ('b', 'x')", (SECRET,))

    def one_of(self, kind: str, seed: int) -> tuple[psycopg.Connection, Callable[[], str]]:
        """A session, and what it says."""
        source = Adversary(seed, self.names, self.functions)
        if kind == "boss":
            return self.db.connect(), lambda: source(call_ours, maintain, maintain)
        if kind == "stranger":
            return self.db.connect("stranger"), lambda: source(change, call, session)
        mood = random.Random(seed)
        often = tuple(one for one in OWNERS for _ in range(mood.choice((0, 1, 1, 3, 9)))) or OWNERS
        return self.db.connect("mallory"), lambda: source(*often)

    def say(self, who: psycopg.Connection, statement: str) -> None:
        self.statements += 1
        try:
            if statement.startswith("copy"):
                with who.cursor().copy(statement) as copy:
                    for _ in copy:
                        pass
            else:
                who.execute(statement.encode())
            self.answers["done"] += 1
        except psycopg.Error as error:
            code = error.sqlstate or ""
            self.answers[code] += 1
            if who.broken and not code.startswith("57P"):
                self.odd.append(f"lost the connection: {statement}: {error}")
            elif code.startswith("XX") and not (OUR_WORDS if code == "XX001" else OF_POSTGRES).search(str(error)):
                self.odd.append(f"{code}: {statement}: {error}")
            elif code == "25P02":
                who.execute("rollback")

    def check(self) -> None:
        assert self.db.run("select rolname from pg_roles where rolsuper and rolname <> 'postgres'") == []
        assert not self.odd, "\n".join(self.odd)
        log = self.db.server.log.read_text(errors="replace")
        for word in ("terminated by signal", "PANIC", "was not closed", "resource leak", "still referenced", "leaked"):
            assert word not in log, log[log.index(word) - 2000 : log.index(word) + 500]


@pytest.fixture
def run() -> Iterator[Run]:
    server = new_server("random", {"log_min_messages": "warning", "max_prepared_transactions": "2"})
    server.start({VARIABLE: MASTER_KEY})
    database = fresh_database(server)
    yield Run(database)
    database.close()
    server.remove()


def test_fixed_seeds(run: Run) -> None:
    """One statement after another, so that what is said depends on the seed alone."""
    for seed in range(12):
        run.made_again()
        owner, boss, stranger = (run.one_of(kind, seed) for kind in ("owner", "boss", "stranger"))
        order = random.Random(seed)
        for _ in range(TURNS):
            who, says = order.choices((owner, boss, stranger), (6, 3, 1))[0]
            if not who.closed:
                run.say(who, says())
        for who, _ in (owner, boss, stranger):
            who.close()
    run.check()


@pytest.mark.skipif("OMNI_RANDOM_SECONDS" not in os.environ, reason="needs OMNI_RANDOM_SECONDS")
def test_for_a_while(run: Run) -> None:
    """Several sessions at once."""
    end = time.monotonic() + float(os.environ["OMNI_RANDOM_SECONDS"])
    first = int(os.environ.get("OMNI_RANDOM_SEED", time.time_ns() % 1_000_000))
    print(f"seeds from {first}")
    seed = first
    while time.monotonic() < end and not run.odd:
        run.made_again()

        def talk(kind: str, seed: int) -> None:
            who, says = run.one_of(kind, seed)
            for _ in range(TURNS):
                if who.closed:
                    break
                run.say(who, says())
            who.close()

        talkers = []
        for kind in ("owner", "owner", "boss", "stranger"):
            seed += 1
            talkers.append(threading.Thread(target=talk, args=(kind, seed)))
        for talker in talkers:
            talker.start()
        for talker in talkers:
            talker.join()
    print(f"{run.statements} statements, up to seed {seed}: {run.answers.most_common()}")
    run.check()
