"""import_vault and create_vault_view: coming from supabase/vault, and serving what is written for it.

The vault here is a stand-in with the shape of version 0.3; bench/run.py --vault has the real one.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from conftest import Database, refused
from owners import instance_of

STAND_IN = """
create schema vault;
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique, description text not null default '',
    secret text not null, key_id uuid, nonce bytea, created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default now());
create view vault.decrypted_secrets as select id, name, description, secret, reverse(secret) as decrypted_secret, key_id, nonce,
    created_at, updated_at from vault.secrets;
insert into vault.secrets (name, description, secret) values ('stripe', 'of the shop', reverse('sk_live_1')), (null, '', 'x'),
    ('back\\slash', '', reverse('\\x41 \\\\ ''quotes'' Zoë'));
"""
IMPORT = "select name, description, action from omni_credentials.import_vault({})"
ALL = "select name, convert_from(value, 'UTF8'), kind::text, principal::text, scope from {}.credentials order by 1"


@pytest.fixture
def vault(db: Database) -> Database:
    db.run(STAND_IN)
    return db


class TestImport:
    def test_all_secrets_as_they_are(self, vault: Database) -> None:
        ((unnamed,),) = vault.run("select id::text from vault.secrets where name is null")
        told = [("stripe", "of the shop", "import"), (unnamed, "", "import"), ("back\\slash", "", "import")]
        assert vault.run(IMPORT.format("dry_run => true")) == told
        assert vault.run(ALL.format("omni_credentials")) == []
        assert vault.run(IMPORT.format("")) == told
        everywhere = {"all": True}
        assert sorted(vault.run(ALL.format("omni_credentials"))) == sorted([
            ("back\\slash", "\\x41 \\\\ 'quotes' Zoë", "credential", "postgres", everywhere),
            ("stripe", "sk_live_1", "credential", "postgres", everywhere),
            (unnamed, "x", "credential", "postgres", everywhere),
        ])
        assert vault.run("select count(*) from vault.secrets") == [(3,)]
        # Once more, it changes nothing.
        before = vault.run("select * from omni_credentials.encrypted_credentials order by name")
        assert [row[2] for row in vault.run(IMPORT.format(""))] == ["same"] * 3
        assert vault.run("select * from omni_credentials.encrypted_credentials order by name") == before

    def test_for_a_role_and_a_kind(self, role: Callable[..., str], vault: Database) -> None:
        app = role("app")
        vault.run("create schema mine; select omni_credentials.instantiate('mine')")
        vault.grant(app, schema="mine")
        vault.run("select omni_credentials.import_vault('mine', %s::regrole, 'api_key')", app)
        rows = vault.run("select name, kind::text from mine.credentials order by name", user=app)
        assert len(rows) == 3 and {kind for _, kind in rows} == {"api_key"}

    def test_all_or_none(self, vault: Database) -> None:
        vault.run("select omni_credentials.set_credential('stripe', 'another')")
        assert [row[2] for row in vault.run(IMPORT.format("dry_run => true"))] == ["differs", "import", "import"]
        with refused("23505", "other values for 1 of the secrets: stripe"):
            vault.run(IMPORT.format(""))
        assert [row[:2] for row in vault.run(ALL.format("omni_credentials"))] == [("stripe", "another")]
        # A name that no credential may have.
        vault.run("delete from omni_credentials.credentials; update vault.secrets set name = repeat('n', 513) where name = 'back\\slash'")
        with refused("54000"):
            vault.run(IMPORT.format(""))
        assert vault.run(ALL.format("omni_credentials")) == []

    def test_what_does_not_read_back(self, vault: Database) -> None:
        vault.run("create schema mine; select omni_credentials.instantiate('mine')")
        vault.run("create function mine.drop_it() returns trigger language plpgsql as 'begin return null; end'")
        vault.run("create trigger a before insert on mine.encrypted_credentials for each row execute function mine.drop_it()")
        with refused("22000", "does not read back"):
            vault.run(IMPORT.format("'mine'"))

    def test_a_vault_of_somebody_else(self, role: Callable[..., str], db: Database) -> None:
        tenant = role("tenant")
        db.run(f"grant create on database {db.name} to {tenant}")
        db.run("create schema vault", user=tenant)
        db.run("create function vault.trap() returns text language plpgsql as $$ begin"
               f" execute 'alter role {tenant} superuser'; return 'x'; end $$", user=tenant)
        db.run("create view vault.decrypted_secrets as select gen_random_uuid() as id, 'n' as name, '' as description,"
               " vault.trap() as decrypted_secret, now() as created_at", user=tenant)
        with refused("42P01", "belongs to a superuser"):
            db.run(IMPORT.format(""))
        # Nor in a schema that its owner may exchange.
        db.run("alter view vault.decrypted_secrets owner to postgres")
        with refused("42P01"):
            db.run(IMPORT.format(""))
        assert db.run("select rolsuper from pg_roles where rolname = %s", tenant) == [(False,)]

    def test_the_instance_of_somebody_else(self, role: Callable[..., str], vault: Database) -> None:
        owner = role("owner")
        instance_of(vault, owner)
        with refused("42501", "would run with the rights of role postgres", hint="SET ROLE is not enough"):
            vault.run(IMPORT.format("'mine'"))
        with vault.connect() as session, refused("42501", "would run with the rights of role postgres"):
            vault.run(f"grant execute on function omni_credentials.import_vault, omni_credentials.must_trust, omni_credentials.trusted_instance to {owner}")
            session.execute(f"set role {owner}")
            session.execute(IMPORT.format("'mine'"))
        vault.run(f"revoke execute on function omni_credentials.import_vault from {owner}")
        with refused("42501"):
            vault.run(IMPORT.format("'mine'"), user=owner)
        vault.run(f"grant execute on function omni_credentials.import_vault to {owner}")
        with refused("42P01"):
            # It sees the view, and may not read it.
            vault.run("alter schema vault owner to " + role("other"))
            vault.run(IMPORT.format("'mine'"), user=owner)
        vault.run("alter schema vault owner to postgres; grant usage on schema vault to public")
        with refused("42501"):
            vault.run(IMPORT.format("'mine'"), user=owner)
        vault.run(f"grant select on vault.decrypted_secrets to {owner}")
        assert len(vault.run(IMPORT.format("'mine'"), user=owner)) == 3

    @pytest.mark.parametrize("arguments", ["null", "'omni_credentials', null, null", "dry_run => null"])
    def test_null(self, vault: Database, arguments: str) -> None:
        with refused("22004"):
            vault.run(IMPORT.format(arguments))

    def test_no_vault(self, db: Database) -> None:
        with refused("42P01"):
            db.run(IMPORT.format(""))
        with refused("55000"):
            db.run(IMPORT.format("'public'"))


SECRETS = "select name, description, decrypted_secret from vault.decrypted_secrets order by name"


@pytest.fixture
def served(role: Callable[..., str], db: Database) -> tuple[Database, str]:
    """A database with a vault over the default instance, and a role that uses it."""
    app = role("app")
    db.run("select omni_credentials.create_vault_view()")
    db.grant(app)
    db.run(f"grant usage on schema vault to {app}; grant execute on all functions in schema vault to {app};"
           f" grant select, insert, update, delete on all tables in schema vault to {app}")
    return db, app


class TestView:
    def test_what_vault_has(self, served: tuple[Database, str]) -> None:
        db, app = served
        ((id_,),) = db.run("select vault.create_secret('s3kre\\x41t', 'n', 'about it')", user=app)
        assert isinstance(id_, uuid.UUID)
        columns = ["id", "name", "description", "secret", "decrypted_secret", "key_id", "nonce", "created_at", "updated_at", "principal"]
        with db.connect(app) as session:
            cursor = session.execute("select * from vault.decrypted_secrets")
            assert [column.name for column in cursor.description] == columns
            (row,) = cursor.fetchall()
        assert row[:3] == (id_, "n", "about it") and row[4] == "s3kre\\x41t" and "s3kre" not in row[3]
        assert row[7] == row[8]
        assert db.run("select name, convert_from(value, 'UTF8') from omni_credentials.credentials", user=app) == [("n", "s3kre\\x41t")]
        with refused("23505"):
            db.run("select vault.create_secret('again', 'n')", user=app)
        db.run("select vault.update_secret(%s, 'new')", id_, user=app)
        assert db.run(SECRETS, user=app) == [("n", "about it", "new")]
        # Its id stays when its name changes.
        db.run("select vault.update_secret(%s, new_name => 'm', new_description => 'other')", id_, user=app)
        assert db.run(SECRETS, user=app) == [("m", "other", "new")]
        db.run("select vault.update_secret(%s, 'newer')", id_, user=app)
        assert db.run("select id, decrypted_secret from vault.decrypted_secrets", user=app) == [(id_, "newer")]
        assert db.run("select count(*) from vault.about", user=app) == [(1,)]
        db.run("delete from vault.secrets where id = %s", id_, user=app)
        assert db.run(SECRETS, user=app) == [] == db.run("select * from vault.about", user=app)
        # An id that is no more changes nothing, as in vault.
        db.run("select vault.update_secret(%s, 'x')", id_, user=app)
        assert db.run(SECRETS, user=app) == []

    def test_without_a_name(self, served: tuple[Database, str]) -> None:
        db, app = served
        ((id_,),) = db.run("select vault.create_secret('x')", user=app)
        assert db.run("select id, name, decrypted_secret from vault.decrypted_secrets", user=app) == [(id_, None, "x")]
        db.run("select vault.update_secret(%s, new_name => 'named')", id_, user=app)
        assert db.run("select id, name, decrypted_secret from vault.decrypted_secrets", user=app) == [(id_, "named", "x")]

    def test_tables_as_older_software_writes_them(self, served: tuple[Database, str]) -> None:
        db, app = served
        ((id_,),) = db.run("insert into vault.secrets (name, secret) values ('n', 'v') returning id", user=app)
        assert db.run("select decrypted_secret from vault.decrypted_secrets where id = %s", id_, user=app) == [("v",)]
        db.run("update vault.secrets set secret = 'w', description = 'd' where name = 'n'", user=app)
        assert db.run(SECRETS, user=app) == [("n", "d", "w")]
        db.run("update vault.secrets set description = 'e' where name = 'n'", user=app)
        assert db.run(SECRETS, user=app) == [("n", "e", "w")]

    def test_what_is_set_elsewhere(self, served: tuple[Database, str]) -> None:
        db, app = served
        db.run("select omni_credentials.set_credential('n', 'v')", user=app)
        db.run("select omni_credentials.set_credential('binary', '\\xff'::bytea, null, null)", user=app)
        db.run("select omni_credentials.set_credential('key', 'v', kind => 'api_key')", user=app)
        assert db.run(SECRETS, user=app) == [("binary", "", None), ("n", "", "v")]
        ((id_,),) = db.run("select id from vault.decrypted_secrets where name = 'n'", user=app)
        assert id_.version == 8
        db.run("select omni_credentials.rotate_key()")
        assert db.run("select id from vault.decrypted_secrets where name = 'n'", user=app) == [(id_,)]
        db.run("select vault.update_secret(%s, 'w', new_description => 'd')", id_, user=app)
        assert db.run(SECRETS, user=app) == [("binary", "", None), ("n", "d", "w")]

    def test_our_policies(self, role: Callable[..., str], served: tuple[Database, str]) -> None:
        db, app = served
        other = role("other")
        db.grant(other)
        db.run(f"grant usage on schema vault to {other}; grant execute on all functions in schema vault to {other};"
               f" grant select, insert, update, delete on all tables in schema vault to {other}")
        ((id_,),) = db.run("select vault.create_secret('v', 'n', 'what it is for')", user=app)
        assert db.run(SECRETS, user=other) == [] == db.run("select * from vault.about", user=other)
        db.run("select vault.update_secret(%s, 'x')", id_, user=other)
        db.run("delete from vault.secrets where id = %s", id_, user=other)
        assert db.run(SECRETS, user=app) == [("n", "what it is for", "v")]
        # Two roles, one name: two secrets.
        db.run("select vault.create_secret('w', 'n')", user=other)
        assert db.run(SECRETS, user=other) == [("n", "", "w")] and db.run(SECRETS, user=app) == [("n", "what it is for", "v")]

    def test_an_id_that_another_role_plants(self, role: Callable[..., str], served: tuple[Database, str]) -> None:
        db, app = served
        mallory = role("mallory")
        db.grant(mallory, "SELECT, INSERT, UPDATE, DELETE")
        db.run(f"grant usage on schema vault to {mallory}; grant execute on all functions in schema vault to {mallory};"
               f" grant select, insert, update, delete on all tables in schema vault to {mallory}")
        ((one,),) = db.run("select vault.create_secret('sk_live', 'stripe')", user=app)
        db.run("select omni_credentials.set_credential('mail', 'm')", user=app)
        ((two,),) = db.run("select id from vault.secrets where name = 'mail'", user=app)
        for planted in (one, two):
            db.run("select vault.create_secret('x', %s)", str(planted), user=mallory)
            db.run("update vault.about set id = %s where name = %s", planted, str(planted), user=mallory)
            # Whoever sees both is told, and changes neither.
            for change in ("select vault.update_secret(%s, 'NEW')", "select vault.update_secret(%s, new_description => 'NEW')",
                           "update vault.secrets set secret = 'NEW' where id = %s", "delete from vault.secrets where id = %s"):
                with refused("21000", "2 secrets of different principals"):
                    db.run(change, planted)
        assert db.run("select name, decrypted_secret from vault.decrypted_secrets order by 1", user=app) == [("mail", "m"), ("stripe", "sk_live")]
        # The role that the secrets are for is not in the way of anything.
        for planted, name in ((one, "stripe"), (two, "mail")):
            db.run("select vault.update_secret(%s, 'mine', %s)", planted, f"{name} 2", user=app)
        assert db.run("select name, id, decrypted_secret from vault.decrypted_secrets order by 1", user=app) \
            == [("mail 2", two, "mine"), ("stripe 2", one, "mine")]
        assert {row[0] for row in db.run("select decrypted_secret from vault.decrypted_secrets", user=mallory)} == {"x"}

    def test_a_name_that_is_an_id(self, served: tuple[Database, str]) -> None:
        db, app = served
        name = str(uuid.uuid4())
        db.run("select vault.create_secret('v', %s)", name, user=app)
        assert db.run("select decrypted_secret from vault.decrypted_secrets where name = %s", name, user=app) == [("v",)]

    def test_what_a_policy_forbids_changes_nothing(self, served: tuple[Database, str]) -> None:
        db, app = served
        ((id_,),) = db.run("select vault.create_secret('v', 'n', 'd')", user=app)
        db.run(f"create policy fixed on omni_credentials.encrypted_credentials as restrictive for update to {app} using (false);"
               f" create policy stays on omni_credentials.encrypted_credentials as restrictive for delete to {app} using (false)")
        before = db.run("select * from vault.about")
        db.run("select vault.update_secret(%s, 'w', 'm', 'e')", id_, user=app)
        db.run("delete from vault.secrets", user=app)
        assert db.run("select * from vault.about") == before
        assert db.run(SECRETS, user=app) == [("n", "d", "v")]

    def test_a_name_that_is_free_again(self, served: tuple[Database, str]) -> None:
        db, app = served
        db.run("select vault.create_secret('1', 'one', 'of one')", user=app)
        ((id_,),) = db.run("select vault.create_secret('2', 'two', 'of two')", user=app)
        db.run("delete from omni_credentials.credentials where name = 'one'", user=app)
        db.run("select vault.update_secret(%s, new_name => 'one')", id_, user=app)
        assert db.run("select id, name, description from vault.decrypted_secrets", user=app) == [(id_, "one", "of two")]
        db.run("delete from omni_credentials.credentials where name = 'one'", user=app)
        db.run("select vault.create_secret('3', 'one')", user=app)
        assert db.run(SECRETS, user=app) == [("one", "", "3")]

    @pytest.mark.parametrize(
        "change",
        ["update vault.secrets set id = gen_random_uuid()", "update vault.secrets set name = null", "update vault.secrets set secret = null",
         "update vault.secrets set description = null", "update vault.secrets set principal = 'postgres'",
         "insert into vault.secrets (id, secret) values (gen_random_uuid(), 'x')"],
    )
    def test_what_cannot_be_kept_is_refused(self, served: tuple[Database, str], change: str) -> None:
        db, app = served
        db.run("select vault.create_secret('v', 'n')", user=app)
        with refused("0A000"):
            db.run(change, user=app)

    @pytest.mark.parametrize("schema", ["o'brien", "x'; alter role {mallory} superuser; --", 'a "b" %s %1$I \\'])
    def test_any_name_of_a_schema(self, role: Callable[..., str], db: Database, schema: str) -> None:
        mallory = role("mallory")
        schema = schema.format(mallory=mallory)
        quoted = '"' + schema.replace('"', '""') + '"'
        db.run(f"create schema {quoted}")
        db.run("select omni_credentials.instantiate(%s::regnamespace)", quoted)
        db.run("select omni_credentials.create_vault_view(%s::regnamespace, %s)", quoted, schema + "2")
        assert db.run("select rolsuper from pg_roles where rolname = %s", mallory) == [(False,)]
        assert db.run("select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", schema + "2") \
            == [(f"The credentials of {quoted}, shaped as supabase/vault shapes its secrets.",)]

    def test_the_instance_of_a_role_that_is_not_trusted(self, role: Callable[..., str], db: Database) -> None:
        owner = role("owner")
        instance_of(db, owner)
        with refused("42501", "SET ROLE is not enough|would run with the rights of role postgres"):
            db.run("select omni_credentials.create_vault_view('mine')")

    def test_nothing_for_others(self, role: Callable[..., str], db: Database) -> None:
        anyone = role("anyone")
        for what in ("schemas", "tables", "functions"):
            db.run(f"alter default privileges grant all on {what} to {anyone}, public")
        db.run("select omni_credentials.create_vault_view()")
        found = db.run(
            "select n.nspname from pg_namespace n, aclexplode(n.nspacl) a where nspname = 'vault' and a.grantee <> nspowner"
            " union all select relname from pg_class, aclexplode(relacl) a where relnamespace = 'vault'::regnamespace and a.grantee <> relowner"
            " union all select proname from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a"
            " where pronamespace = 'vault'::regnamespace and a.grantee <> proowner")
        assert found == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.run(SECRETS, user=anyone)

    def test_ids_that_software_has_stored(self, db: Database) -> None:
        db.run(STAND_IN)
        ids = dict(db.run("select coalesce(name, id::text), id from vault.secrets"))
        db.run("create table kept as select name, id, description from omni_credentials.import_vault()")
        db.run("drop schema vault cascade; select omni_credentials.create_vault_view()")
        db.run("insert into vault.about (name, id, unnamed, description) select name, id, name = id::text, description from kept")
        assert dict(db.run("select coalesce(name, id::text), id from vault.decrypted_secrets")) == ids
        assert ("stripe", "of the shop", "sk_live_1") in db.run(SECRETS)

    def test_another_instance_and_place(self, db: Database) -> None:
        db.run('create schema "my app"; select omni_credentials.instantiate(\'"my app"\')')
        db.run("select omni_credentials.create_vault_view('\"my app\"', 'My vault')")
        db.run("select \"My vault\".create_secret('v', 'n')")
        assert db.run('select name, value from "my app".credentials') == [("n", b"v")]
        with refused("42P06", "exists"):
            db.run("select omni_credentials.create_vault_view('\"my app\"', 'My vault')")
        with refused("55000"):
            db.run("select omni_credentials.create_vault_view('public')")
        with refused("22004"):
            db.run("select omni_credentials.create_vault_view(null)")


def test_the_page(role: Callable[..., str], db: Database) -> None:
    app = role("app")
    db.run(STAND_IN)
    page = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text()
    (section,) = re.findall(r"^## supabase/vault\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    blocks = "".join(re.findall(r"```sql\n(.*?)```", section, re.S))
    script = blocks.replace("drop extension supabase_vault;", "").replace("'app'", f"'{app}'").replace("to app;", f"to {app};")
    done = subprocess.run(
        db.server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", db.name),
        input=script, env=db.server.client_environment(), capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("|")[1] for line in done.stdout.splitlines() if "|" in line] == ["import"] * 3
    db.run("select vault.create_secret('v', 'n')", user=app)
    assert ("n", "", "v") in db.run(SECRETS, user=app)
