"""What other roles can shape before, during and after CREATE EXTENSION and instantiate(), and that none of it is believed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import MASTER_KEY, VARIABLE, Database, drop_database, fresh_database, new_server, refused
from throwaway import Server

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
# What an instance calls with the rights of its owner.
CALLED = (
    "instantiate", "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
    "encrypted_credentials_changed", "credentials_store_changed", "replace_config",
    "credentials_write", "open_credential", "seal_credential", "file_store_reload", "file_store_sync", "file_store_status",
    "verify", "rotate_key", "rotate_master_secret", "use_module",
)


@pytest.fixture
def tenant(role) -> str:
    return role("tenant")


@pytest.fixture
def secrets_server() -> Iterator[Server]:
    """A server whose environment has secrets for more than one."""
    server = new_server("variables")
    server.start({VARIABLE: MASTER_KEY, "TENANT_SECRET": "a password of the tenant", "OTHER_SECRET": "of somebody else"})
    yield server
    server.remove()


def may_create(db: Database, user: str) -> None:
    db.run(f"grant create on database {db.name} to {user}")


def may_own(db: Database, user: str) -> None:
    """All that docs/production.md asks for, but for the variable."""
    may_create(db, user)
    db.run(f"grant usage on schema omni_credentials to {user}")
    for function in CALLED:
        db.run(f"grant execute on function omni_credentials.{function} to {user}")


class TestSchemaOfSomeoneElse:
    def test_is_refused(self, tenant: str, empty_db: Database) -> None:
        may_create(empty_db, tenant)
        empty_db.run("create schema omni_credentials", user=tenant)
        with refused("42P06", f"belongs to role {tenant}", hint="Rename or drop"):
            empty_db.run("create extension omni_credentials")
        empty_db.run("drop schema omni_credentials", user=tenant)
        empty_db.run("create extension omni_credentials")

    @pytest.mark.parametrize(
        "planted",
        ["create table omni_credentials.t (x int)", "create function omni_credentials.f() returns int language sql as 'select 1'",
         "create type omni_credentials.e as enum ('x')", "create collation omni_credentials.c (locale = 'C')"],
    )
    def test_with_something_in_it_is_refused(self, tenant: str, empty_db: Database, planted: str) -> None:
        """Also where the schema itself is a superuser's."""
        empty_db.run("create schema omni_credentials")
        empty_db.run(f"grant all on schema omni_credentials to {tenant}")
        empty_db.run(planted, user=tenant)
        with refused("42P06", "not empty"):
            empty_db.run("create extension omni_credentials")

    def test_with_something_on_its_way_is_refused(self, tenant: str, empty_db: Database) -> None:
        """A function that a transaction creates and has not committed: no other session sees it before it is too late."""
        empty_db.run("create schema omni_credentials")
        empty_db.run(f"grant all on schema omni_credentials to {tenant}")
        planting = empty_db.connect(tenant, autocommit=False)
        planting.execute("create function omni_credentials.verify(text) returns void language sql as ''")
        with refused("42P06", "others than its owner may create objects"):
            empty_db.run("create extension omni_credentials")
        planting.commit()

    def test_an_empty_one_of_a_superuser_is_taken(self, tenant: str, empty_db: Database) -> None:
        """As a restore does, whoever the superuser is. Nobody keeps rights to it."""
        empty_db.run("create schema omni_credentials")
        empty_db.run(f"grant usage on schema omni_credentials to {tenant}, public")
        empty_db.run("create role another_superuser superuser")
        try:
            with empty_db.connect() as session:
                session.execute("set role another_superuser")
                session.execute("create extension omni_credentials")
            for right in ("usage", "create"):
                assert empty_db.run(f"select has_schema_privilege('{tenant}', 'omni_credentials', '{right}')") == [(False,)]
            with refused("42501"):
                empty_db.run("create table omni_credentials.t (x int)", user=tenant)
        finally:
            drop_database(empty_db)
            Database(empty_db.server, "postgres").run("drop role another_superuser")


class TestRenamedSchema:
    """The extension is known by its row in pg_extension. Another schema that takes the name is nothing."""

    LOOKALIKES = (
        "create schema omni_credentials",
        "create table omni_credentials.crypto_modules (digest bytea, wasm bytea, name text)",
        "create table omni_credentials.allowed_variables (role regrole, variable text)",
        "insert into omni_credentials.allowed_variables select oid, 'OMNI_CREDENTIALS_MASTER_PASSWORD' from pg_roles",
        "create table omni_credentials.added_policies (x int)",
        "create function omni_credentials.instantiate(regnamespace, text, int, int, int) returns void language sql as ''",
        "create function omni_credentials.instance_template() returns text language sql as $$select 'alter role current_user superuser'$$",
        "create function omni_credentials.{trap} returns {returns} language plpgsql as $$begin raise exception 'captured'; end$$",
    )
    TRAPS = {
        "privilege_list(regrole, text, regnamespace)": "text[]",
        "privileges_held(regrole, regnamespace)": "text[]",
        "current_policies()": "setof omni_credentials.added_policies",
        "watch_drops()": "void",
        "open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz)": "bytea",
        "seal_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz)": "bytea",
        "credentials_write()": "trigger",
    }

    def plant(self, db: Database, tenant: str) -> None:
        may_create(db, tenant)
        db.run("alter schema omni_credentials rename to moved")
        with db.connect(tenant) as session:
            for statement in self.LOOKALIKES[:-1]:
                session.execute(statement)
            for trap, returns in self.TRAPS.items():
                session.execute(self.LOOKALIKES[-1].format(trap=trap, returns=returns))

    def test_lookalikes_are_not_used(self, role, tenant: str, db: Database) -> None:
        app = role("app")
        self.plant(db, tenant)
        db.run("insert into moved.credentials (name, value) values ('n', 'v')")
        db.run("select moved.grant_access(%s::regrole, 'SELECT, INSERT')", app)
        db.run("insert into moved.credentials (name, value) values ('n', 'of the app')", user=app)
        assert db.run("select value from moved.credentials", user=app) == [(b"of the app",)]
        db.run("select moved.revoke_access(%s::regrole)", app)
        with refused("42501"):
            db.run("select value from moved.credentials", user=app)
        db.run("create schema other")
        db.run("select moved.instantiate('other')")
        db.run("insert into other.credentials (name, value) values ('n', 'v')")
        assert db.run("select value from other.credentials") == [(b"v",)]
        assert db.run("select moved.rotate_key()") == [(2,)]
        db.run("create policy p on moved.encrypted_credentials as restrictive using (kind <> 'otp')")
        db.run("alter policy p on moved.encrypted_credentials using (kind <> 'ssh')")
        db.run("drop policy p on moved.encrypted_credentials")
        with refused("2BP01", "holds credentials"):
            db.run("drop schema moved cascade")
        # And the other schema of that name is its owner's, to be dropped like any.
        db.run("drop schema omni_credentials cascade", user=tenant)
        assert db.run("select value from moved.credentials where principal = 'postgres'::regrole") == [(b"v",)]

    def test_a_fake_instance_with_a_fake_extension(self, tenant: str, db: Database) -> None:
        """The attack: a copy of the tenant's own, with its own component and the server's secret."""
        self.plant(db, tenant)
        function = "open_credential(oid, text, anyenum, regrole, jsonb, bytea, timestamptz)"
        db.run(f"grant usage on schema moved to {tenant}")
        db.run(f"grant execute on function moved.{function} to {tenant}")
        with db.connect(tenant) as session:
            session.execute("create schema fake")
            session.execute("create type fake.credential_kind as enum ('credential')")
            session.execute(
                "create table fake.encrypted_credentials (name text, value bytea, kind fake.credential_kind,"
                " principal regrole, scope jsonb)"
            )
            session.execute(
                "create table fake.credentials_config (singleton boolean, environment_variable text, module bytea, a int, b int, c int)"
            )
            session.execute("insert into fake.credentials_config values (true, %s)", (VARIABLE,))
            session.execute("create table fake.credentials_keyrings (number int, module bytea, keyring bytea, id uuid)")
            session.execute("insert into fake.credentials_keyrings values (1, decode(repeat('00', 32), 'hex'), 'x')")
            with refused("3F000", "not part of an instance"):
                session.execute(
                    "select moved.open_credential('fake.encrypted_credentials'::regclass, 'n',"
                    " 'credential'::fake.credential_kind, current_user::regrole, '1', 'x')"
                )

    def test_modules(self, tenant: str, db: Database) -> None:
        self.plant(db, tenant)
        ((digest,),) = db.run("select encode(digest, 'hex') from moved.crypto_modules")
        with refused("2BP01", "in use by the extension"):
            db.run("select moved.remove_module(%s)", digest)
        assert db.run("select count(*) from omni_credentials.crypto_modules") == [(0,)]


# Every object of the extension and of a copy whose ACL names a role other than its owner.
OPEN_TO_OTHERS = """
    with ours as (select oid from pg_namespace where nspname in ('omni_credentials', 'app')),
    acl as (
        select c.oid::regclass::text as object, c.relowner as owner, c.relacl as acl from pg_class c
            where relnamespace in (select oid from ours)
        union all select p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) from pg_proc p
            where pronamespace in (select oid from ours)
        union all select t.oid::regtype::text, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)) from pg_type t
            where typnamespace in (select oid from ours) and typelem = 0 and typrelid = 0
        union all select n.nspname, n.nspowner, n.nspacl from pg_namespace n where n.nspname = 'omni_credentials'
    )
    select object, a.grantee::regrole::text, a.privilege_type from acl, aclexplode(acl.acl) a where a.grantee <> acl.owner
"""
# Every object whose owner lacks a right to it.
CLOSED_TO_OWNER = """
    select c.oid::regclass::text from pg_class c where relnamespace in ('omni_credentials'::regnamespace, 'app'::regnamespace)
        and relkind in ('r', 'v') and not has_table_privilege(c.relowner, c.oid, 'select, insert, update, delete, truncate')
    union all
    select p.oid::regprocedure::text from pg_proc p where pronamespace in ('omni_credentials'::regnamespace, 'app'::regnamespace)
        and not has_function_privilege(p.proowner, p.oid, 'execute')
"""
KINDS = ("tables", "functions", "types", "sequences", "schemas")


class TestDefaultPrivileges:
    @pytest.fixture
    def owner(self, role) -> str:
        return role("owner")

    def test_the_default_copy_and_ordinary_ones(self, owner: str, tenant: str, empty_db: Database) -> None:
        """For the superuser, for an owner who is none, for all schemas and for one; and what they take from the owner."""
        db = empty_db
        may_create(db, owner)
        db.run("create schema app authorization " + owner)
        for kind in KINDS:
            for whose in ("postgres", owner):
                db.run(f"alter default privileges for role {whose} grant all on {kind} to {tenant} with grant option")
                db.run(f"alter default privileges for role {whose} grant all on {kind} to public")
                if kind != "schemas":
                    db.run(f"alter default privileges for role {owner} in schema app grant all on {kind} to {tenant}, public")
        for kind in ("tables", "functions"):
            for whose in ("postgres", owner):
                db.run(f"alter default privileges for role {whose} revoke all on {kind} from {whose}")
        db.run("create extension omni_credentials")
        may_own(db, owner)
        db.allow(owner)
        db.run("select omni_credentials.instantiate('app')", user=owner)
        for _ in range(2):
            open_to = [row for row in db.run(OPEN_TO_OTHERS) if row[1] != owner]
            assert open_to == []
            assert db.run(CLOSED_TO_OWNER) == []
            # Again with something in it, and after everything that writes.
            for schema, user in (("omni_credentials", "postgres"), ("app", owner)):
                db.run(f"select {schema}.set_credential('n', 'v')", user=user)
                assert db.run("select omni_credentials.rotate_key(%s::regnamespace)", schema, user=user) == [(1,)]
            db.run("create policy p on omni_credentials.encrypted_credentials using (false)")
            db.run("drop policy p on omni_credentials.encrypted_credentials")
        db.run(f"grant usage on schema app, omni_credentials to {tenant}")
        for schema in ("omni_credentials", "app"):
            for relation in ("credentials", "encrypted_credentials", "encrypted_credential_versions", "credentials_keyrings",
                             "credentials_config", "credentials_files"):
                for statement in (f"select * from {schema}.{relation}", f"delete from {schema}.{relation}"):
                    with refused("42501", "permission denied"):
                        db.run(statement, user=tenant)
        drop_database(db)

    def test_the_schema_that_create_extension_makes(self, tenant: str, empty_db: Database) -> None:
        empty_db.run(f"alter default privileges grant all on schemas to {tenant}")
        empty_db.run("create extension omni_credentials")
        with refused("42501", "permission denied for schema"):
            empty_db.run("create table omni_credentials.t (x int)", user=tenant)


AMBIENT = {
    "default_table_access_method": "heap2",
    "default_tablespace": "elsewhere",
    "standard_conforming_strings": "off",
    "check_function_bodies": "off",
    "search_path": "evil, pg_catalog",
    "row_security": "off",
    "session_replication_role": "replica",
    "default_transaction_isolation": "serializable",
    "bytea_output": "escape",
    "default_toast_compression": "pglz",
    "client_min_messages": "error",
    "quote_all_identifiers": "on",
    "intervalstyle": "sql_standard",
    "datestyle": "SQL, DMY",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "plpgsql.variable_conflict": "use_column",
    "plpgsql.extra_errors": "all",
}
# Everything that the catalogs say of the objects, without oids.
DEFINITIONS = """
    select 'relation', c.relname::text, concat_ws(' ', c.relkind, c.relpersistence, c.reltablespace, c.relreplident, c.relrowsecurity,
            c.relforcerowsecurity, am.amname, c.reloptions, c.relacl)
        from pg_class c left join pg_am am on am.oid = relam where relnamespace = '{schema}'::regnamespace
    union all
    select 'column', attrelid::regclass || '.' || attname, concat_ws(' ', atttypid::regtype, attnotnull, attstorage,
            attcompression, attcollation::regcollation, pg_get_expr(adbin, adrelid))
        from pg_attribute join pg_class c on c.oid = attrelid left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where relnamespace = '{schema}'::regnamespace and attnum > 0 and relkind <> 't'
    union all
    select 'view', viewname, definition from pg_views where schemaname = '{schema}'
    union all
    select 'index', indexname, indexdef from pg_indexes where schemaname = '{schema}'
    union all
    select 'trigger', tgname, concat(pg_get_triggerdef(t.oid), tgenabled)
        from pg_trigger t join pg_class c on c.oid = tgrelid where relnamespace = '{schema}'::regnamespace
    union all
    select 'policy', polname, pg_get_expr(polqual, polrelid) from pg_policy join pg_class c on c.oid = polrelid
        where relnamespace = '{schema}'::regnamespace
    union all
    select 'function', p.oid::regprocedure::text, concat(pg_get_functiondef(p.oid), p.proacl) from pg_proc p
        where pronamespace = '{schema}'::regnamespace
    union all
    select 'event trigger', evtname, concat(evtfoid::regprocedure, evtenabled, evttags) from pg_event_trigger
"""


@pytest.fixture(scope="module")
def usual(server: Server) -> Iterator[dict[str, list]]:
    """What the catalogs say of the default copy and of another, without any settings."""
    database = fresh_database(server)
    database.run("create schema app")
    database.run("select omni_credentials.instantiate('app')")
    yield {schema: sorted(map(str, database.run(DEFINITIONS.format(schema=schema)))) for schema in ("omni_credentials", "app")}
    drop_database(database)


class TestAmbientSettings:
    @pytest.mark.parametrize("setting", AMBIENT)
    def test_nothing_depends_on(self, empty_db: Database, usual: dict[str, list], setting: str) -> None:
        db, value = empty_db, AMBIENT[setting]
        with db.connect() as session:
            if setting == "default_table_access_method":
                session.execute("create access method heap2 type table handler heap_tableam_handler")
            if setting == "default_tablespace":
                session.execute("set allow_in_place_tablespaces = on")
                session.execute("drop tablespace if exists elsewhere")
                session.execute("create tablespace elsewhere location ''")
            if setting == "search_path":
                session.execute("create schema evil")
                session.execute("create domain evil.text as pg_catalog.int4")
                session.execute("create domain evil.regnamespace as pg_catalog.text")
            session.execute(f"set {setting} = {value}" if setting == "search_path" else f"set {setting} = '{value}'")
            session.execute("create schema app")
            session.execute("create extension omni_credentials")
            session.execute("select omni_credentials.instantiate('app')")
            # And they are what they were afterwards.
            assert session.execute("select current_setting(%s)", (setting,)).fetchone() == (value,)
            if setting != "session_replication_role":
                for schema in ("omni_credentials", "app"):
                    session.execute(f"insert into {schema}.credentials (name, value) values ('n', 'v')")
        for schema in ("omni_credentials", "app"):
            assert sorted(map(str, db.run(DEFINITIONS.format(schema=schema)))) == usual[schema]
            db.run(f"insert into {schema}.credentials (name, value) values ('m', 'v')")
            assert (b"v",) in db.run(f"select value from {schema}.credentials")
        drop_database(db)
        if setting == "default_tablespace":
            Database(db.server, "postgres").run("drop tablespace elsewhere")


class TestVariables:
    """Which role may use which variable of the server's environment is decided by a superuser."""

    @pytest.fixture
    def db(self, secrets_server: Server) -> Iterator[Database]:
        database = fresh_database(secrets_server)
        database.run("create role tenant login")
        may_own(database, "tenant")
        database.run("create schema mine authorization tenant")
        yield database
        drop_database(database)
        Database(secrets_server, "postgres").run("drop role tenant")

    def instance(self, db: Database) -> None:
        db.allow("tenant", "TENANT_SECRET")
        db.run("select omni_credentials.instantiate('mine', 'TENANT_SECRET')", user="tenant")
        db.run("insert into mine.credentials (name, value) values ('n', 'v')", user="tenant")

    def test_none_by_default(self, db: Database) -> None:
        for variable in (VARIABLE, "TENANT_SECRET", "NOT_SET", "PATH"):
            with refused("42501", f"role tenant may not use .*{variable}", hint=rf"allow_variable\('tenant', '{variable}'\)"):
                db.run("select omni_credentials.instantiate('mine', %s)", variable, user="tenant")
        db.allow("tenant", "TENANT_SECRET")
        for variable in (VARIABLE, "OTHER_SECRET", "TENANT_SECRET_FILE", "tenant_secret"):
            with refused("42501", "may not use"):
                db.run("select omni_credentials.instantiate('mine', %s)", variable, user="tenant")
        # The right of another role is not theirs.
        db.run("create role other")
        db.allow("other", VARIABLE)
        with refused("42501", "may not use"):
            db.run("select omni_credentials.instantiate('mine', %s)", VARIABLE, user="tenant")
        db.run("select omni_credentials.disallow_variable('other', %s)", VARIABLE)
        db.run("drop role other")

    def test_only_superusers_decide(self, db: Database) -> None:
        for function in ("allow_variable", "disallow_variable"):
            db.run(f"grant execute on function omni_credentials.{function} to tenant")
            with refused("42501", "permission denied to allow environment variables", hint="Must be superuser"):
                db.run(f"select omni_credentials.{function}('tenant', 'TENANT_SECRET')", user="tenant")
        for statement in ("insert into {} values ('tenant', 'X')", "select * from {}", "truncate {}"):
            with refused("42501", "permission denied for table"):
                db.run(statement.format("omni_credentials.allowed_variables"), user="tenant")
        with refused("22023", "not the name of an environment variable"):
            db.allow("tenant", "A=B")
        with refused("22023", "role 4294967295 does not exist"):
            db.run("select omni_credentials.allow_variable(4294967295::oid::regrole, 'X')")
        with refused("22004", "argument role"):
            db.run("select omni_credentials.allow_variable(null, 'X')")

    def test_rotation_to_another_variable(self, db: Database) -> None:
        self.instance(db)
        for user in ("tenant", "postgres"):
            with refused("42501", "role tenant may not use .*OTHER_SECRET"):
                db.run("select omni_credentials.rotate_master_secret('OTHER_SECRET', 'mine')", user=user)
        db.allow("tenant", "OTHER_SECRET")
        db.run("select omni_credentials.rotate_master_secret('OTHER_SECRET', 'mine')", user="tenant")
        assert db.run("select value from mine.credentials", user="tenant") == [(b"v",)]

    def test_an_owner_writes_the_setting(self, db: Database) -> None:
        """With a keyring of the default copy, which has leaked, under the variable that it is for."""
        self.instance(db)
        db.run(f"insert into {VIEW} (name, value, principal) values ('loot', 'secret', 'tenant')")
        session = db.connect("tenant")
        session.execute("select value from mine.credentials")
        db.run("create table public.leaked as select * from omni_credentials.credentials_keyrings")
        db.run(f"create table public.rows as select name, value, scope from {TABLE}")
        db.run("grant select on public.leaked, public.rows to tenant")
        session.execute("update mine.credentials_config set environment_variable = %s", (VARIABLE,))
        session.execute("insert into mine.credentials_keyrings (number, module, keyring) select 9, module, keyring from public.leaked")
        with refused("42501", "role tenant may not use"):
            session.execute(
                "select omni_credentials.open_credential('mine.encrypted_credentials'::regclass, name,"
                " 'credential'::mine.credential_kind, 'tenant', scope, value) from public.rows"
            )
        for statement in (
            "select value from mine.credentials", "insert into mine.credentials (name, value) values ('m', 'v')",
            "select omni_credentials.rotate_key('mine')", "select omni_credentials.use_module('mine')",
            "select * from omni_credentials.verify('mine')", "select mine.set_credential('m', 'v')",
        ):
            with refused("42501", "role tenant may not use"):
                session.execute(statement)
        with refused("42501", "role tenant may not use"):
            db.run("select value from mine.credentials")

    def test_a_right_taken_back_closes_sessions(self, db: Database) -> None:
        self.instance(db)
        session = db.connect("tenant")
        read = "select value from mine.credentials"
        assert session.execute(read).fetchall() == [(b"v",)]
        db.run("select omni_credentials.disallow_variable('tenant', 'TENANT_SECRET')")
        with refused("42501", "may not use"):
            session.execute(read)
        db.allow("tenant", "TENANT_SECRET")
        assert session.execute(read).fetchall() == [(b"v",)]
        db.run("revoke execute on function omni_credentials.instantiate from tenant")
        with refused("3F000"):
            session.execute(read)
        db.run("grant execute on function omni_credentials.instantiate to tenant")
        assert session.execute(read).fetchall() == [(b"v",)]

    def test_every_owner_counts(self, db: Database) -> None:
        self.instance(db)
        db.run("create role other")
        try:
            db.run("grant execute on function omni_credentials.instantiate to other")
            db.run("alter table mine.credentials_keyrings owner to other")
            with refused("42501", "role other may not use"):
                db.run("select value from mine.credentials", user="tenant")
            db.run("alter table mine.credentials_keyrings owner to tenant")
            # An owner who was a superuser, and is none any more.
            db.run("alter table mine.credentials_config owner to other")
            db.run("alter role other superuser")
            session = db.connect("tenant")
            assert session.execute("select value from mine.credentials").fetchall() == [(b"v",)]
            db.run("alter role other nosuperuser")
            with refused("42501", "role other may not use"):
                session.execute("select value from mine.credentials")
        finally:
            db.run("reassign owned by other to tenant")
            db.run("drop owned by other")
            db.run("drop role other")

    @pytest.mark.parametrize("costs", ["8, 1, 1", "19455, 2, 1", "19456, 1, 1", "8192, 100, 4"])
    def test_costs_have_a_floor(self, db: Database, costs: str) -> None:
        db.allow("tenant", "TENANT_SECRET")
        with refused("22023", "below 19456 KiB, 2 passes and 1 lane", hint="Only superusers"):
            db.run(f"select omni_credentials.instantiate('mine', 'TENANT_SECRET', {costs})", user="tenant")
        # Or later, where the owner writes them: before the first keyring, for another one, and for another secret.
        memory, passes, lanes = costs.split(", ")
        cheap = f"update mine.credentials_config set kdf_memory_kib = {memory}, kdf_passes = {passes}, kdf_lanes = {lanes}"
        db.run("select omni_credentials.instantiate('mine', 'TENANT_SECRET')", user="tenant")
        db.run(cheap, user="tenant")
        with refused("22023", "below"):
            db.run("insert into mine.credentials (name, value) values ('n', 'v')", user="tenant")
        db.run("update mine.credentials_config set kdf_memory_kib = 19456, kdf_passes = 2, kdf_lanes = 1", user="tenant")
        db.run("insert into mine.credentials (name, value) values ('n', 'v')", user="tenant")
        db.run(cheap, user="tenant")
        for statement in ("use_module('mine')", "rotate_master_secret('TENANT_SECRET', 'mine')"):
            for user in ("tenant", "postgres"):
                with refused("22023", "below"):
                    db.run(f"select omni_credentials.{statement}", user=user)
        # What is sealed still opens.
        assert db.run("select value from mine.credentials", user="tenant") == [(b"v",)]

    def test_superusers_use_any(self, db: Database) -> None:
        db.run("create schema theirs")
        db.run("select omni_credentials.instantiate('theirs', 'OTHER_SECRET', 64, 1, 1)")
        db.run("insert into theirs.credentials (name, value) values ('n', 'v')")
        assert db.run("select value from theirs.credentials") == [(b"v",)]
