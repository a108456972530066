"""The history: values that were replaced or deleted, how they come back and how they go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Database, refused
from histories import HISTORY, TABLE, VERSIONS, VIEW, history, put


class TestKeeping:
    def test_what_is_replaced_and_deleted_is_kept(self, db: Database) -> None:
        put(db, "one")
        assert history(db) == []
        put(db, "two")
        db.run(f"update {VIEW} set value = 'three'")
        assert history(db) == [(1, b"one"), (2, b"two")]
        db.run(f"update {VIEW} set expires_at = '2030-01-01'")
        db.run(f"delete from {VIEW}")
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three"), (4, b"three")]
        rows = db.run(
            f"select version, kind::text, principal::text, scope, expires_at is null, valid_from, valid_until, changed_by, deleted"
            f" from {HISTORY} order by version"
        )
        assert [row[1:4] for row in rows] == [("credential", "postgres", {"all": True})] * 4
        assert [row[4] for row in rows] == [True, True, True, False]
        assert rows[0][5] is None
        # One follows the other.
        assert [row[5] for row in rows[1:]] == [row[6] for row in rows[:-1]]
        assert {row[7] for row in rows} == {"postgres"}
        assert [row[8] for row in rows] == [False, False, False, True]

    def test_after_a_deletion_the_next_value_has_no_known_start(self, db: Database) -> None:
        for value in ("one", "two"):
            put(db, value)
            db.run(f"delete from {VIEW}")
        assert db.run(f"select version, valid_from is null from {HISTORY} order by version") == [(1, True), (2, True)]

    def test_what_changes_nothing_makes_none(self, db: Database) -> None:
        put(db, "one")
        db.run(f"update {VIEW} set value = 'one'")
        db.run(f"update {VIEW} set value = value, expires_at = expires_at")
        db.run(f"update {TABLE} set value = value")
        db.run(f"update {VIEW} set value = 'two' where name = 'other'")
        assert history(db) == []

    def test_an_aborted_change_leaves_none(self, db: Database) -> None:
        put(db, "one")
        session = db.connect(autocommit=False)
        put(session, "two")
        session.rollback()
        session.execute("savepoint s")
        put(session, "two")
        session.execute("rollback to s")
        session.commit()
        assert history(db) == []

    def test_a_renamed_credential_keeps_its_past_under_the_old_name(self, db: Database) -> None:
        put(db, "one")
        db.run(f"update {VIEW} set name = 'new'")
        put(db, "two", "new")
        assert history(db) == [(1, b"one")]
        assert history(db, "new") == [(1, b"one")]

    def test_large_values(self, db: Database) -> None:
        large = b"\x01\x02\x03" * 300_000
        db.run(f"insert into {VIEW} (name, value) values ('n', %b)", large)
        db.run(f"update {VIEW} set value = 'small'")
        assert history(db) == [(1, large)]

    def test_long_names_fit_the_index(self, db: Database) -> None:
        name, scope = "n" * 512, '{"k": "' + "s" * 2000 + '"}'
        for value in ("one", "two"):
            db.run("select omni_credentials.set_credential(%s, %s::text, scope => %s::jsonb)", name, value, scope)
        assert history(db, name) == [(1, b"one")]

    def test_two_at_once_make_two_versions(self, db: Database) -> None:
        put(db, "start")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: put(db, f"value {n}"), range(40)))
        numbers = [version for version, _ in history(db)]
        assert numbers == list(range(31, 41))
        values = {value for _, value in history(db)} | {v for (v,) in db.run(f"select value from {VIEW}")}
        assert len(values) == 11

    def test_many_at_once_in_one_statement(self, db: Database) -> None:
        db.run(f"insert into {VIEW} (name, value) select 'n' || i, 'v' from generate_series(1, 100) i")
        db.run(f"update {VIEW} set value = 'w'")
        db.run(f"delete from {VIEW}")
        assert db.run(f"select count(*), count(distinct name), max(version) from {HISTORY}") == [(200, 100, 2)]

    def test_who_changed_it(self, role, db: Database) -> None:
        """The role of the session, also where a function changes it with the rights of its owner."""
        caller = role("caller")
        put(db, "one")
        db.run(
            "create function public.change() returns void language sql security definer"
            " as $$ select omni_credentials.set_credential('n', 'two'::text) $$"
        )
        db.run("select public.change()", user=caller)
        assert db.run(f"select changed_by from {HISTORY}") == [(caller,)]


class TestLimit:
    def test_the_oldest_go(self, db: Database) -> None:
        for n in range(1, 14):
            put(db, str(n))
        assert history(db) == [(n, str(n).encode()) for n in range(3, 13)]
        db.run("select omni_credentials.set_history_limit(2)")
        put(db, "14")
        assert history(db) == [(12, b"12"), (13, b"13")]
        db.run("select omni_credentials.set_history_limit(1)")
        put(db, "15")
        assert history(db) == [(14, b"14")]

    def test_off(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        db.run("select omni_credentials.set_history_limit(0)")
        put(db, "three")
        db.run(f"delete from {VIEW}")
        assert history(db) == [(1, b"one")]

    @pytest.mark.parametrize("versions", ["-1", "1001", "2147483647"])
    def test_out_of_range(self, db: Database, versions: str) -> None:
        with refused("22023", f"a history keeps 0 to 1000 versions of a credential, not {versions}", hint="10 is the default"):
            db.run(f"select omni_credentials.set_history_limit({versions})")
        with refused("23514"):
            db.run(f"update omni_credentials.credentials_config set history_limit = {versions}")
        with refused("22004"):
            db.run("select omni_credentials.set_history_limit(null)")

    def test_only_the_owner(self, app: str, db: Database) -> None:
        for call in ("set_history_limit(0)", "purge_history(everything => true)"):
            with refused("42501"):
                db.run(f"select omni_credentials.{call}", user=app)
        db.run(f"grant execute on all functions in schema omni_credentials to {app}")
        for call in ("set_history_limit(0)", "purge_history(everything => true)"):
            with refused("42501", "must be owner"):
                db.run(f"select omni_credentials.{call}", user=app)


class TestReading:
    def test_by_number_and_from_the_end(self, db: Database) -> None:
        for value in ("one", "two", "three"):
            put(db, value)
        get = "select omni_credentials.get_credential('n', version => %s)"
        assert [db.run(get, version) for version in (1, 2, -1, -2, 0, None)] == [
            [(value,)] for value in ("one", "two", "two", "one", "three", "three")
        ]
        for version in (3, -3, 99, 2**63 - 1, -(2**63)):
            with refused("P0002", f'there is no version {version} of credential "n" in the history', hint="credential_versions"):
                db.run(get, version)
        with refused("P0002", 'no version -1 of credential "other"'):
            db.run("select omni_credentials.get_credential('other', version => -1)")

    def test_all_the_ways_to_ask(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        for arguments in (
            "'n', version => -1",
            "'n', kind => 'credential', version => -1",
            "'n', kind => 'credential'::omni_credentials.credential_kind, version => -1",
            "'n', principal => 'postgres', version => -1",
            "'n', principal => 'postgres'::regrole, version => -1",
            "'n', principal => current_user, scope => '{\"all\": true}', version => 1",
            "'n', scope => '{\"all\": true}', version => -1",
        ):
            assert db.run(f"select omni_credentials.get_credential({arguments})") == [("one",)], arguments
            assert db.run(f"select omni_credentials.restore_credential({arguments})") == [(1,)], arguments
            db.run("select omni_credentials.purge_history(everything => true)")
            db.run(f"delete from {VIEW}")
            db.run("select omni_credentials.purge_history(everything => true)")
            put(db, "one")
            put(db, "two")

    def test_several(self, db: Database) -> None:
        for kind in ("token", "password"):
            for value in ("one", "two"):
                db.run(f"select omni_credentials.set_credential('n', '{value}'::text, kind => '{kind}')")
        for function in ("get_credential", "restore_credential"):
            with refused("21000|P0003", "several credentials"):
                db.run(f"select omni_credentials.{function}('n', version => -1)")
        assert db.run("select omni_credentials.get_credential('n', kind => 'token', version => -1)") == [("one",)]

    def test_scopes_that_are_equal_are_one(self, db: Database) -> None:
        """jsonb takes 1 and 1.0 for the same, and so does the index of the credentials."""
        db.run("select omni_credentials.set_credential('n', 'one'::text, scope => '{\"port\": 1}')")
        db.run(f"update {VIEW} set scope = '{{\"port\": 1.0}}', value = 'two'")
        db.run(f"update {VIEW} set value = 'three'")
        assert history(db) == [(1, b"one"), (2, b"two")]
        get = "select omni_credentials.get_credential('n', version => %s)"
        assert [db.run(get, version) for version in (-1, -2, 1)] == [[("two",)], [("one",)], [("one",)]]
        assert db.run("select omni_credentials.restore_credential('n', version => 1)") == [(1,)]
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]

    def test_names_alone_decrypt_nothing(self, own_db: Database) -> None:
        put(own_db, "one")
        put(own_db, "two")
        own_db.server.restart({})
        assert own_db.run(f"select name, version from {HISTORY}") == [("n", 1)]
        with refused("F0000", "master secret is missing"):
            own_db.run(f"select value from {HISTORY}")


class TestRestoring:
    def test_what_was_deleted(self, db: Database) -> None:
        db.run("select omni_credentials.set_credential('n', 'one'::text, expires_at => '2030-01-01')")
        db.run(f"delete from {VIEW}")
        assert db.run("select omni_credentials.restore_credential('n')") == [(1,)]
        assert db.run(f"select value, expires_at = '2030-01-01' from {VIEW}") == [(b"one", True)]
        assert history(db) == [(1, b"one")]

    def test_an_earlier_value(self, db: Database) -> None:
        for value in ("one", "two", "three"):
            put(db, value)
        assert db.run("select omni_credentials.restore_credential('n', version => 1)") == [(1,)]
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        # What it is already makes no version.
        db.run("select omni_credentials.restore_credential('n', version => 1)")
        assert len(history(db)) == 3
        db.run("select omni_credentials.restore_credential('n')")
        assert db.run("select omni_credentials.get_credential('n')") == [("three",)]
        assert history(db)[-1] == (4, b"one")

    def test_what_was_deleted_and_set_since(self, db: Database) -> None:
        put(db, "one")
        db.run(f"delete from {VIEW}")
        put(db, "two")
        db.run("select omni_credentials.restore_credential('n')")
        assert db.run("select omni_credentials.get_credential('n')") == [("one",)]
        assert history(db) == [(1, b"one"), (2, b"two")]

    @pytest.mark.parametrize("version", [7, 0, -2])
    def test_unknown(self, db: Database, version: int) -> None:
        put(db, "one")
        put(db, "two")
        with refused("P0002", f"there is no version {version} "):
            db.run("select omni_credentials.restore_credential('n', version => %s)", version)
        assert db.run("select omni_credentials.get_credential('n')") == [("two",)]

    def test_what_was_purged(self, db: Database) -> None:
        put(db, "one")
        put(db, "two")
        assert db.run("select omni_credentials.purge_history('n')") == [(1,)]
        with refused("P0002", "there is no version 1 "):
            db.run("select omni_credentials.restore_credential('n', version => 1)")


class TestPurging:
    def test_what_must_be_said(self, db: Database) -> None:
        for arguments in ("", "everything => false", "'n', everything => true", "older_than => '1 day', everything => true"):
            with refused("22023", "purge_history needs a name, an age or everything => true", hint="Say what"):
                db.run(f"select omni_credentials.purge_history({arguments})")
        with refused("22023", "must not be negative"):
            db.run("select omni_credentials.purge_history(older_than => '-1 second')")

    def test_by_name_age_and_all(self, db: Database) -> None:
        for name in ("a", "b", "c"):
            put(db, "one", name)
            put(db, "two", name)
        purge = "select omni_credentials.purge_history"
        assert db.run(f"{purge}('nothing')") == [(0,)]
        assert db.run(f"{purge}(older_than => '1 hour')") == [(0,)]
        assert db.run(f"{purge}('a', older_than => '1 hour')") == [(0,)]
        assert db.run(f"{purge}('a')") == [(1,)]
        db.run(f"set session_replication_role = replica; update {VERSIONS} set valid_until = now() - interval '2 days'"
               " where name = 'b'")
        assert db.run(f"{purge}('c', older_than => '1 day')") == [(0,)]
        assert db.run(f"{purge}(older_than => '1 day')") == [(1,)]
        assert db.run(f"{purge}(everything => true)") == [(1,)]
        assert db.run(f"select count(*) from {VERSIONS}") == [(0,)]
        assert db.run(f"select count(*) from {VIEW}") == [(3,)]
