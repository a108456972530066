"""Keys and master secrets: rotation, renamed and dropped roles, several copies, wrong secrets after a restart."""

from __future__ import annotations

from conftest import PASSWORD, VARIABLE, Database, master_key, refused
from foreign_keyrings import unguarded

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
KEYRINGS = "select * from omni_credentials.credentials_keyrings"


class TestMasterSecret:
    def test_rotation_touches_no_row(self, own_db: Database) -> None:
        server = own_db.server
        server.restart({VARIABLE: PASSWORD, "NEW_SECRET": "another secret, also long enough"})
        own_db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        before = own_db.run(f"select ctid, xmin, * from {TABLE}")
        old = own_db.connect()
        old.execute(f"select value from {VIEW}")
        own_db.run("select omni_credentials.rotate_master_secret('NEW_SECRET')")
        assert own_db.run(f"select ctid, xmin, * from {TABLE}") == before
        assert own_db.run("select environment_variable from omni_credentials.credentials_config") == [("NEW_SECRET",)]
        # Sessions from before and after, and then the new secret alone.
        assert old.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]
        assert own_db.run(f"select value from {VIEW}") == [(b"v",)]
        own_db.close()
        server.restart({"NEW_SECRET": "another secret, also long enough"})
        assert own_db.run(f"select value from {VIEW}") == [(b"v",)]
        server.restart({VARIABLE: PASSWORD})
        with refused("F0000", "NEW_SECRET is not set", hint="NEW_SECRET_FILE"):
            own_db.run(f"select value from {VIEW}")

    def test_rotation_to_what_is_not_there(self, db: Database) -> None:
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        before = db.run(KEYRINGS)
        for name, state in (("NOT_SET", "F0000"), ("", "22023"), ("A=B", "22023")):
            with refused(state):
                db.run("select omni_credentials.rotate_master_secret(%s)", name)
        assert db.run(KEYRINGS) == before
        assert db.run("select environment_variable from omni_credentials.credentials_config") == [(VARIABLE,)]

    def test_rotation_rolled_back(self, own_db: Database) -> None:
        own_db.server.restart({VARIABLE: PASSWORD, "NEW_SECRET": "another"})
        own_db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        session = own_db.connect(autocommit=False)
        session.execute("select omni_credentials.rotate_master_secret('NEW_SECRET')")
        session.execute("select omni_credentials.rotate_key()")
        assert session.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]
        session.rollback()
        session.execute(f"insert into {VIEW} (name, value) values ('m', 'w')")
        session.commit()
        own_db.close()
        own_db.server.restart({VARIABLE: PASSWORD})
        assert own_db.run(f"select name, value from {VIEW} order by 1") == [("m", b"w"), ("n", b"v")]

    def test_from_password_to_generated_key(self, own_db: Database) -> None:
        own_db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        ((key,),) = own_db.run("select omni_credentials.generate_master_key()")
        assert key.startswith("omck1_") and (key,) not in own_db.run("select omni_credentials.generate_master_key()")
        own_db.server.restart({VARIABLE: PASSWORD, "PRODUCTION": key})
        own_db.run("select omni_credentials.rotate_master_secret('PRODUCTION')")
        own_db.server.restart({"PRODUCTION": key})
        assert own_db.run(f"select value from {VIEW}") == [(b"v",)]

    def test_changed_after_a_restart(self, own_db: Database) -> None:
        """Refused before any write, by every way of writing, with the hint that mends it."""
        own_db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        before = own_db.run(f"select * from {TABLE}"), own_db.run(KEYRINGS)
        file = own_db.server.folder / "wrong"
        file.write_text("a wrong secret")
        own_db.server.account.own(file)
        for environment, state, hint in (
            ({VARIABLE: "a wrong secret"}, "28P01", f"the {VARIABLE} that was in use before"),
            ({VARIABLE: master_key(b"another")}, "28P01", f"the {VARIABLE} that was in use before"),
            ({f"{VARIABLE}_FILE": str(file)}, "28P01", f"the {VARIABLE} that was in use before"),
            ({f"{VARIABLE}_FILE": "/nowhere"}, "58P01", "readable"),
            ({}, "F0000", f"Set {VARIABLE}"),
        ):
            own_db.server.restart(environment)
            for statement in (
                f"select value from {VIEW}",
                f"insert into {VIEW} (name, value) values ('m', 'w')",
                f"update {VIEW} set value = 'w'",
                "select omni_credentials.set_credential('n', 'w')",
                "select omni_credentials.rotate_key()",
                f"select omni_credentials.rotate_master_secret('{VARIABLE}')",
                "select * from omni_credentials.verify()",
            ):
                with refused(state, VARIABLE, hint=hint):
                    own_db.run(statement)
            assert (own_db.run(f"select * from {TABLE}"), own_db.run(KEYRINGS)) == before
        own_db.server.restart({VARIABLE: PASSWORD})
        assert own_db.run(f"select value from {VIEW}") == [(b"v",)]

    def test_line_end_of_a_file(self, own_db: Database) -> None:
        own_db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        file = own_db.server.folder / "secret"
        for content, fits in ((PASSWORD, True), (PASSWORD + "\n", True), (PASSWORD + "\r\n", True), (PASSWORD + "\n\n", False)):
            file.write_bytes(content.encode())
            own_db.server.account.own(file)
            own_db.server.restart({f"{VARIABLE}_FILE": str(file)})
            if fits:
                assert own_db.run(f"select value from {VIEW}") == [(b"v",)]
            else:
                with refused("28P01"):
                    own_db.run(f"select value from {VIEW}")


class TestKeyrings:
    def test_sealed_values_without_a_keyring(self, db: Database) -> None:
        """Nothing mints a key where sealed values wait for theirs."""
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        saved = db.run(KEYRINGS)
        unguarded(db, "truncate omni_credentials.credentials_keyrings")
        with refused("55000", "holds sealed credentials but no keyring", hint="backup"):
            db.run(f"insert into {VIEW} (name, value) values ('m', 'w')")
        assert db.run(KEYRINGS) == []
        db.run("insert into omni_credentials.credentials_keyrings values (%s, %b, %b, %s)", *saved[0])
        assert db.run(f"select value from {VIEW}") == [(b"v",)]

    def test_altered_keyring(self, db: Database) -> None:
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        ((whole,),) = db.run("select keyring from omni_credentials.credentials_keyrings")
        for damage in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[: len(whole) // 2], b"", whole + b"x"):
            unguarded(db, "update omni_credentials.credentials_keyrings set keyring = %b", damage)
            with refused("XX001", "keyring of schema omni_credentials was altered", hint="backup"):
                db.run(f"select value from {VIEW}")
            with refused("XX001"):
                db.run(f"insert into {VIEW} (name, value) values ('m', 'w')")
        db.run("update omni_credentials.credentials_keyrings set keyring = %b", whole)
        assert db.run(f"select value from {VIEW}") == [(b"v",)]

    def test_rotation_again_and_again(self, db: Database) -> None:
        """Old keys stay for what was sealed with them elsewhere; the keyring has an end, and says so."""
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        session = db.connect()
        for _ in range(300):
            try:
                session.execute("select omni_credentials.rotate_key()")
            except Exception as error:
                assert getattr(error, "sqlstate", None) == "54000", error
                assert "full" in str(error)
                break
        assert session.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]
        session.execute(f"update {VIEW} set value = 'w'")
        assert db.run(f"select value from {VIEW}") == [(b"w",)]

    def test_empty_copy(self, db: Database) -> None:
        assert db.run("select omni_credentials.rotate_key()") == [(0,)]
        db.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
        assert db.run(KEYRINGS) == []


class TestRoles:
    def test_renamed(self, role, db: Database) -> None:
        app = role("app")
        db.grant(app)
        db.run(f"insert into {VIEW} (name, value) values ('one', '1'), ('two', '2')", user=app)
        db.run(f"insert into {VIEW} (name, value) values ('boss', '3')")
        kept = db.run(f"select * from {TABLE} where name = 'boss'")
        db.run(f"alter role {app} rename to {app}_new")
        try:
            with refused("XX001", '"one"', hint="rename_principal"):
                db.run(f"select value from {VIEW} where name = 'one'", user=f"{app}_new")
            assert db.run(f"select omni_credentials.rename_principal('nobody', '{app}_new')") == [(0,)]
            assert db.run(f"select omni_credentials.rename_principal('{app}', '{app}_new')") == [(2,)]
            assert db.run(f"select value from {VIEW} order by 1", user=f"{app}_new") == [(b"1",), (b"2",)]
            assert db.run(f"select * from {TABLE} where name = 'boss'") == kept
            assert db.run(f"select omni_credentials.rename_principal('{app}', '{app}_new')") == [(0,)]
            assert db.run("select * from omni_credentials.verify()") == []
        finally:
            db.run(f"alter role {app}_new rename to {app}")

    def test_renamed_while_a_session_knows_it(self, role, db: Database) -> None:
        app = role("app")
        session = db.connect()
        session.execute(f"insert into {VIEW} (name, value, principal) values ('n', 'v', '{app}')")
        db.run(f"alter role {app} rename to {app}_new")
        try:
            with refused("XX001", '"n"'):
                session.execute(f"select value from {VIEW}")
            db.run(f"select omni_credentials.rename_principal('{app}', '{app}_new')")
            assert session.execute(f"select value from {VIEW}").fetchall() == [(b"v",)]
        finally:
            db.run(f"alter role {app}_new rename to {app}")

    def test_dropped(self, role, db: Database) -> None:
        heir = role("heir")
        db.grant(heir)
        db.run("create role leaver")
        db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', 'leaver'), ('m', 'w', 'leaver')")
        db.run("drop role leaver")
        with refused("42704", '"[nm]".*no longer exists', hint="rename_principal"):
            db.run(f"select value from {VIEW}")
        assert db.run(f"select name from {VIEW} order by 1") == [("m",), ("n",)]
        assert db.run(f"select name from {VIEW}", user=heir) == []
        # A new role of the same name is another role.
        db.run("create role leaver")
        with refused("42704"):
            db.run(f"select value from {VIEW}")
        db.run("drop role leaver")
        assert db.run(f"select omni_credentials.rename_principal('leaver', '{heir}')") == [(2,)]
        assert db.run(f"select name, value from {VIEW} order by 1", user=heir) == [("m", b"w"), ("n", b"v")]

    def test_writing_for_a_role_that_is_not_there(self, db: Database) -> None:
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')")
        for oid in (0, 4294967000):
            for statement in (
                f"insert into {VIEW} (name, value, principal) values ('m', 'v', {oid}::oid)",
                f"update {VIEW} set principal = {oid}::oid",
                f"select omni_credentials.set_credential('n', 'v', principal => {oid}::oid)",
            ):
                with refused("42704", f"no role with oid {oid}", hint="leave the principal out"):
                    db.run(statement)
        assert db.run(f"select name, value, principal::text from {VIEW}") == [("n", b"v", "postgres")]

    def test_deleting_what_was_a_dropped_roles(self, db: Database) -> None:
        """As the hint says."""
        db.run("create role gone")
        db.run(f"insert into {VIEW} (name, value, principal) values ('n', 'v', 'gone')")
        db.run("drop role gone")
        with refused("42704", '"n"', hint="to delete this one: set omni_credentials.on_unreadable = 'null'"):
            db.run(f"delete from {VIEW} where name = 'n'")
        with db.connect() as session:
            session.execute("set omni_credentials.on_unreadable = 'null'")
            assert session.execute(f"delete from {VIEW} where name = 'n'").rowcount == 1

    def test_rename_principal_is_for_the_owner(self, role, db: Database) -> None:
        app, thief = role("app"), role("thief")
        for user in (app, thief):
            db.grant(user)
        db.run(f"insert into {VIEW} (name, value) values ('n', 'v')", user=app)
        for function in ("rotate_key()", f"rotate_master_secret('{VARIABLE}')", f"rename_principal('{app}', '{thief}')"):
            db.run(f"grant execute on function omni_credentials.{function.split('(')[0]} to {thief}")
            with refused("42501", "must be owner of", hint="owner of the instance"):
                db.run(f"select omni_credentials.{function}", user=thief)
        assert db.run(f"select value from {VIEW}", user=app) == [(b"v",)]


class TestCopies:
    def test_each_has_its_own_secret(self, own_db: Database) -> None:
        server = own_db.server
        server.restart({VARIABLE: PASSWORD, "BILLING_SECRET": "billing's own", "MAIL_SECRET": master_key(b"mail")})
        for schema, variable in (("billing", "BILLING_SECRET"), ("mail", "MAIL_SECRET")):
            own_db.run(f"create schema {schema}")
            own_db.run(f"select omni_credentials.instantiate('{schema}', '{variable}')")
        schemas = ("omni_credentials", "billing", "mail")
        session = own_db.connect()
        for schema in schemas:
            session.execute(f"insert into {schema}.credentials (name, value) values ('n', '{schema}')")
        read = " union all ".join(f"select value from {schema}.credentials" for schema in schemas)
        assert session.execute(read).fetchall() == [(schema.encode(),) for schema in schemas]
        own_db.close()
        # One is lost, the others go on.
        server.restart({VARIABLE: PASSWORD, "MAIL_SECRET": master_key(b"mail"), "BILLING_SECRET": "wrong"})
        assert own_db.run("select value from mail.credentials") == [(b"mail",)]
        assert own_db.run(f"select value from {VIEW}") == [(b"omni_credentials",)]
        with refused("28P01", "BILLING_SECRET.*schema billing"):
            own_db.run("select value from billing.credentials")

    def test_the_same_secret_gives_other_keys(self, db: Database) -> None:
        db.run("create schema other")
        db.run("select omni_credentials.instantiate('other')")
        for schema in ("omni_credentials", "other"):
            db.run(f"insert into {schema}.credentials (name, value) values ('n', 'v')")
        with refused("23514", "key that this instance's keyring does not hold"):
            db.run(f"update other.encrypted_credentials set value = (select value from {TABLE})")

    def test_key_derivation_costs(self, own_db: Database) -> None:
        own_db.run("create schema cheap")
        own_db.run("select omni_credentials.instantiate('cheap', kdf_memory_kib => 8192, kdf_passes => 1, kdf_lanes => 1)")
        own_db.run("insert into cheap.credentials (name, value) values ('n', 'v')")
        assert own_db.run("select value from cheap.credentials") == [(b"v",)]
        own_db.run("create schema broken")
        own_db.run("select omni_credentials.instantiate('broken', kdf_memory_kib => 1, kdf_passes => 1, kdf_lanes => 1)")
        with refused("22023", "costs are outside"):
            own_db.run("insert into broken.credentials (name, value) values ('n', 'v')")
        own_db.run("create schema partly")
        with refused("23514|22023"):
            own_db.run("select omni_credentials.instantiate('partly', kdf_passes => 1)")

    def test_instantiating_twice(self, db: Database) -> None:
        with refused("42710", "schema omni_credentials already has", hint="schema of its own"):
            db.run("select omni_credentials.instantiate()")
        with refused("22023", "not the name of an environment variable", hint="df"):
            db.run("select omni_credentials.instantiate('omni_credentials', '')")

    def test_by_a_role_that_may(self, role, db: Database) -> None:
        """A database owner who is no superuser can have copies of their own, once allowed to."""
        owner, app = role("owner"), role("app")
        db.run(f"grant create on database {db.name} to {owner}")
        db.run(f"grant usage on schema omni_credentials to {owner}")
        with refused("42501"):
            db.run("select omni_credentials.instantiate('public')", user=owner)
        db.run(f"grant execute on function omni_credentials.instantiate to {owner}")
        for function in ("encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
                         "encrypted_credentials_changed", "credentials_store_changed",
                         "replace_config", "credentials_write", "open_credential", "seal_credential",
                         "file_store_reload", "rotate_key", "rename_principal"):
            db.run(f"grant execute on function omni_credentials.{function} to {owner}")
        db.run("create schema mine", user=owner)
        db.allow(owner)
        db.run("select omni_credentials.instantiate('mine')", user=owner)
        db.run("insert into mine.credentials (name, value) values ('n', 'v')", user=owner)
        db.run(f"grant usage on schema mine to {app}", user=owner)
        assert db.run("select value from mine.credentials", user=owner) == [(b"v",)]
        assert db.run("select omni_credentials.rotate_key('mine')", user=owner) == [(1,)]
        with refused("42501", "must be owner"):
            db.run("select omni_credentials.rotate_key()", user=owner)
        # Taking the right back closes the copy, until it is given again.
        db.run(f"revoke execute on function omni_credentials.instantiate from {owner}")
        with refused("3F000", "not part of an instance", hint="may execute that function"):
            db.run("select value from mine.credentials", user=owner)
