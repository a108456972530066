"""The history and what is done to an instance: maintenance, dumps, file stores, replication."""

from __future__ import annotations

import subprocess

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from file_stores import contents, edit, in_step, mirrored, outsider
from foreign_keyrings import unguarded
from histories import HISTORY, TABLE, VERSIONS, VIEW, history, put
from standbys import eventually
from throwaway import Server


class TestMaintenance:
    @pytest.mark.parametrize("seal", ["rotate_key()", "use_module()"])
    def test_sealed_again(self, db: Database, seal: str) -> None:
        """No version of its own, and every version under the new key."""
        for value in ("one", "two", "three"):
            put(db, value)
        db.run(f"delete from {VIEW}")
        put(db, "four")
        before = db.run(f"select version, valid_from, valid_until, changed_by, deleted from {HISTORY} order by version")
        sealed = {value for (value,) in db.run(f"select value from {VERSIONS}")}
        notices: list[str] = []
        session = db.connect()
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        assert session.execute(f"select omni_credentials.{seal}").fetchall() == [(1,)]
        assert notices == ["sealed 3 versions in the history with the new key, too"]
        assert not sealed & {value for (value,) in db.run(f"select value from {VERSIONS}")}
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        assert db.run(f"select version, valid_from, valid_until, changed_by, deleted from {HISTORY} order by version") == before
        assert db.run("select count(*) from omni_credentials.verify()") == [(0,)]
        assert db.run("select omni_credentials.prune_keyrings()") == [(1 if seal.startswith("use") else 0,)]
        assert history(db) == [(1, b"one"), (2, b"two"), (3, b"three")]
        assert db.run("select problem from omni_credentials.status()") == [(None,)]

    def test_a_keyring_that_a_version_needs_stays(self, db: Database) -> None:
        put(db, "one")
        db.run(f"delete from {VIEW}")
        keyring = db.run("select * from omni_credentials.credentials_keyrings")
        for statement in ("delete from omni_credentials.credentials_keyrings", "truncate omni_credentials.credentials_keyrings"):
            with refused("2BP01", "cannot (delete|remove) keyring", hint="encrypted_credential_versions"):
                db.run(statement)
        # As after the loss of the keyring: no new one hides it.
        unguarded(db, "truncate omni_credentials.credentials_keyrings")
        with refused("55000", "holds sealed credentials but no keyring"):
            put(db, "two", "other")
        db.run("insert into omni_credentials.credentials_keyrings values (%s, %b, %b, %s)", *keyring[0])
        assert db.run("select omni_credentials.restore_credential('n')") == [(1,)]

    def test_a_table_that_is_somewhere_else(self, role, db: Database) -> None:
        """Without it, no keyring goes that its versions need, and status() says why changes fail."""
        other = role("other")
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for value in ("one", "two"):
            db.run("select mine.set_credential('n', %s::text)", value)
        db.run("select omni_credentials.use_module(schema => 'mine')")
        problem = "select problem from omni_credentials.status() where schema = 'mine'"
        for change, back in (
            ("rename to elsewhere", "alter table mine.elsewhere rename to encrypted_credential_versions"),
            (f"owner to {other}", "alter table mine.encrypted_credential_versions owner to postgres"),
        ):
            db.run(f"alter table mine.encrypted_credential_versions {change}")
            for statement in (
                "select mine.set_credential('n', 'three'::text)",
                "select omni_credentials.rotate_key('mine')",
                "select omni_credentials.use_module(schema => 'mine')",
                "select omni_credentials.prune_keyrings('mine')",
                "select omni_credentials.rename_principal('nobody', 'postgres', 'mine')",
                "select omni_credentials.repair_principals('mine')",
            ):
                with refused("55000", "schema mine has no table encrypted_credential_versions", hint="history_limit = 0"):
                    db.run(statement)
            ((told,),) = db.run(problem)
            assert "schema mine has no table encrypted_credential_versions" in told
            db.run(back)
            assert db.run(problem) == [(None,)]
        db.run("select omni_credentials.use_module(schema => 'mine')")
        assert db.run("select omni_credentials.prune_keyrings('mine')") == [(2,)]
        assert db.run("select value from mine.credential_versions") == [(b"one",)]

    def test_what_the_table_may_not_have_is_told(self, db: Database) -> None:
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for statement, undo, expected in (
            ("create index extra on mine.encrypted_credential_versions ((version + 1))", "drop index mine.extra", "index extra is not"),
            ("create rule r as on update to mine.encrypted_credential_versions do also nothing", "drop rule r on mine.encrypted_credential_versions",
             "it has rules"),
            ("alter table mine.encrypted_credential_versions replica identity nothing; drop index mine.encrypted_credential_versions_uniq",
             "", "it has lost its unique index"),
        ):
            db.run(statement)
            ((told,),) = db.run("select problem from omni_credentials.status() where schema = 'mine'")
            assert "mine.encrypted_credential_versions" in told and expected in told
            if undo:
                db.run(undo)

    def test_damaged_versions_are_found(self, app: str, db: Database) -> None:
        for value in ("one", "two"):
            put(db, value, user=app)
        for statement in (f"update {VERSIONS} set name = 'm'", f"update {VERSIONS} set value = 'plain'"):
            with refused("23514"):
                db.run(statement)
        db.run(f"set session_replication_role = replica; update {VERSIONS} set value = set_byte(value, 60, get_byte(value, 60) # 1)")
        for user in ("postgres", app):
            ((name, reason),) = db.run("select name, reason from omni_credentials.verify()", user=user)
            assert (name, reason.split(":")[0]) == ("n", "version 1 in the history")
        with refused("XX001", 'credential "n" cannot be read'):
            history(db, user=app)
        with refused("XX001", r'credential "n" \(version 1\) cannot be read'):
            db.run("select omni_credentials.rotate_key()")
        session = db.connect(**{"omni_credentials.on_unreadable": "null"})
        assert session.execute("select omni_credentials.rotate_key()").fetchall() == [(1,)]
        db.run("select omni_credentials.purge_history('n')")
        assert db.run("select count(*) from omni_credentials.verify()") == [(0,)]

    def test_a_renamed_principal(self, app: str, db: Database) -> None:
        put(db, "one", user=app)
        put(db, "two", user=app)
        db.run(f"alter role {app} rename to renamed")
        try:
            with refused("XX001"):
                history(db)
            assert db.run("select omni_credentials.rename_principal(%s, 'renamed')", app) == [(1,)]
            assert history(db, user="renamed") == [(1, b"one")]
            assert db.run(f"select principal::text from {HISTORY}") == [("renamed",)]
        finally:
            db.run(f"alter role renamed rename to {app}")

    def test_a_transaction_of_another_isolation(self, db: Database) -> None:
        for level in ("repeatable read", "serializable"):
            session = db.connect(autocommit=False)
            session.execute(f"set transaction isolation level {level}")
            put(session, f"one {level}", level)
            put(session, f"two {level}", level)
            session.commit()
            assert history(db, level) == [(1, f"one {level}".encode())]


class TestDumps:
    def dump(self, db: Database, *options: str) -> str:
        return subprocess.run(
            db.server.program("pg_dump", *options, "-d", db.name), env=db.server.client_environment(),
            capture_output=True, text=True, check=True,
        ).stdout

    def restore(self, db: Database, script: str) -> None:
        done = subprocess.run(
            db.server.program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", db.name), input=script,
            env=db.server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("how", ["plain", "inserts", "data only", "data only, triggers disabled"])
    def test_they_carry_it(self, db: Database, how: str) -> None:
        db.run("create schema mine")
        db.run("select omni_credentials.instantiate('mine')")
        for schema in ("omni_credentials", "mine"):
            for value in ("one", "two"):
                db.run(f"select {schema}.set_credential('n', %s::text)", value)
            db.run(f"delete from {schema}.credentials")
            db.run(f"select {schema}.set_history_limit(7)")
        options = {"inserts": ["--inserts"]}.get(how, [])
        data_only = how.startswith("data only")
        if data_only:
            options = ["--data-only", *(["--disable-triggers"] if "disabled" in how else [])]
        script = self.dump(db, *options)
        target = fresh_database(db.server, extension=data_only)
        try:
            if data_only:
                target.run("create schema mine")
                target.run("select omni_credentials.instantiate('mine')")
            self.restore(target, script)
            for schema in ("omni_credentials", "mine"):
                read = f"select * from {schema}.credential_versions order by version"
                assert target.run(read) == db.run(read)
                assert target.run(f"select history_limit from {schema}.credentials_config") == [(7,)]
                assert target.run(f"select {schema}.restore_credential('n')") == [(2,)]
                assert target.run(f"select {schema}.get_credential('n')") == [("two",)]
        finally:
            drop_database(target)

    def test_onto_a_server_with_another_secret(self, db: Database, own_server: Server) -> None:
        """What is restored stays, readable or not."""
        put(db, "one")
        put(db, "two")
        script = self.dump(db)
        target = fresh_database(own_server, extension=False)
        self.restore(target, script)
        assert target.run(f"select count(*) from {VERSIONS}") == [(1,)]
        with refused("28P01"):
            target.run(f"select value from {HISTORY}")
        target.close()


class TestFileStores:
    RELOAD = "select name, action from omni_credentials.credential_file_store_reload(%s)"

    def test_what_a_file_brings_makes_versions(self, db: Database) -> None:
        file = mirrored(db, {"n": b"one", "gone": b"value"})
        edit(db.server, file, n=b"two", gone=None)
        assert sorted(db.run(self.RELOAD, str(file))) == [("gone", "removed"), ("n", "changed")]
        assert history(db) == [(1, b"one")]
        assert history(db, "gone") == [(1, b"value")]
        # And what is restored goes to the file.
        db.run("select omni_credentials.restore_credential('gone')")
        db.run("select omni_credentials.restore_credential('n')")
        assert contents(db.server, file) == {"n": b"one", "gone": b"value"}
        assert in_step(db)

    def test_a_file_that_was_only_sealed_again(self, db: Database) -> None:
        file = mirrored(db, {"n": b"one", "m": b"two"})
        before = db.run(f"select value from {TABLE}")
        with outsider(db.server, file) as other:
            other.run("select omni_credentials.rotate_key()")
        db.run(self.RELOAD, str(file))
        assert not set(before) & set(db.run(f"select value from {TABLE}"))
        assert db.run(f"select count(*) from {VERSIONS}") == [(0,)]


def test_a_subscriber_makes_no_versions_of_its_own(server: Server) -> None:
    publisher = new_server("publisher", {"wal_level": "logical", "max_wal_senders": "4", "max_replication_slots": "4"})
    publisher.start({VARIABLE: MASTER_KEY})
    target = fresh_database(server)
    try:
        source = fresh_database(publisher)
        put(source, "one")
        put(source, "two")
        source.run("create publication p for table " + ", ".join(
            f"omni_credentials.{table}" for table in
            ("encrypted_credentials", "encrypted_credential_versions", "credentials_keyrings")))
        target.run(f"create subscription s connection '{publisher.conninfo(source.name)}' publication p")
        read = f"select name, version, value, changed_by from {HISTORY} order by name, version"
        eventually(lambda: target.run(f"select (select count(*) from {VERSIONS}), (select count(*) from {TABLE})") == [(1, 1)])
        for n in range(12):
            put(source, f"value {n}")
        source.run("select omni_credentials.rotate_key()")
        source.run(f"delete from {VIEW}")
        source.run("select omni_credentials.set_credential('last', 'value'::text)")
        eventually(lambda: target.run(f"select name from {TABLE}") == [("last",)])
        assert len(source.run(read)) == 10
        assert target.run(read) == source.run(read)
        source.run("select omni_credentials.purge_history(older_than => '0')")
        eventually(lambda: target.run(f"select count(*) from {VERSIONS}") == [(0,)])
    finally:
        target.run("drop subscription if exists s")
        drop_database(target)
        publisher.remove()
