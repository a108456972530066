"""What a hostile role tries, with no more than grant_access gave it, or with nothing at all."""

from __future__ import annotations

import pytest
from conftest import VARIABLE, Database, refused

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
OPEN = "omni_credentials.open_credential"
SEAL = "omni_credentials.seal_credential"


@pytest.fixture
def mallory(role) -> str:
    return role("mallory")


@pytest.fixture
def victim(role) -> str:
    return role("victim")


@pytest.fixture
def attacked(mallory: str, victim: str, db: Database) -> Database:
    """The victim has a credential; the attacker may do everything with its own."""
    for user in (mallory, victim):
        db.grant(user)
        db.run(f"insert into {VIEW} (name, value) values ('n', %b)", b"of " + user.encode(), user=user)
    db.run(f"grant create on database {db.name} to {mallory}")
    db.run("grant create on schema public to public")
    return db


def sealed_for(db: Database, user: str) -> bytes:
    """Sealed bytes as they leak by way of a backup or a file in a repository."""
    ((sealed,),) = db.run(f"select value from {TABLE} where principal = %s::regrole and name = 'n'", user)
    return sealed


class TestSearchPath:
    """Things named like ours, where a careless name would find them first."""

    CAPTURES = (
        "create {temp} table {s}encrypted_credentials (name text, value bytea, kind text, principal regrole, scope jsonb)",
        "create {temp} table {s}credentials_config (singleton boolean, environment_variable text, module bytea, a int, b int, c int)",
        "create {temp} table {s}credentials_keyrings (number integer, module bytea, keyring bytea, id uuid)",
        "create {temp} table {s}crypto_modules (digest bytea, wasm bytea)",
        "create {temp} view {s}credentials as select 1",
        "create type {s}credential_kind as enum ('x')",
        "create domain {s}regnamespace as pg_catalog.text",
        "create domain {s}regrole as pg_catalog.text",
        "create domain {s}text as pg_catalog.varchar",
        "create domain {s}jsonb as pg_catalog.text",
        "create function {s}pg_has_role(oid, pg_catalog.text) returns boolean language sql as 'select true'",
        "create function {s}quote_ident(name) returns pg_catalog.text language sql as $$select 'postgres'::pg_catalog.text$$",
        "create function {s}open_credential(oid, pg_catalog.text, anyenum, pg_catalog.regrole, pg_catalog.jsonb, bytea, pg_catalog.timestamptz)"
        " returns bytea language sql as $$select 'captured'::bytea$$",
        "create function {s}always(pg_catalog.text, pg_catalog.text) returns boolean language sql as 'select true'",
        "create operator {s}= (leftarg = pg_catalog.text, rightarg = pg_catalog.text, function = {s}always)",
        "create function {s}always(bytea, bytea) returns boolean language sql as 'select true'",
        "create operator {s}= (leftarg = bytea, rightarg = bytea, function = {s}always)",
        "create function {s}always(oid, oid) returns boolean language sql as 'select true'",
        "create operator {s}= (leftarg = oid, rightarg = oid, function = {s}always)",
    )

    @pytest.mark.parametrize("where", ["pg_temp", "an earlier schema"])
    def test_capture(self, attacked: Database, mallory: str, victim: str, where: str) -> None:
        session = attacked.connect(mallory)
        if where == "pg_temp":
            session.execute("set search_path = pg_temp, public, pg_catalog")
            fills = {"temp": "temporary", "s": "pg_temp."}
        else:
            session.execute("create schema evil")
            session.execute("set search_path = evil, public, pg_catalog")
            fills = {"temp": "", "s": "evil."}
        for capture in self.CAPTURES:
            session.execute(capture.format(**fills))
        expected = b"of " + mallory.encode()
        assert session.execute(f"select value from {VIEW}").fetchall() == [(expected,)]
        session.execute(f"update {VIEW} set value = 'changed'")
        session.execute(f"insert into {VIEW} (name, value) values ('m', 'v')")
        session.execute("select omni_credentials.set_credential('m'::pg_catalog.text, 'w'::bytea)")
        session.execute(f"delete from {VIEW} where name operator(pg_catalog.=) 'm'::pg_catalog.text")
        assert session.execute("select omni_credentials.verify()").fetchall() == []
        # A superuser in the same trap, as a trigger or a job of the attacker's could arrange.
        boss = attacked.connect()
        if where == "pg_temp":
            boss.execute("set search_path = pg_temp, public, pg_catalog")
            for capture in self.CAPTURES:
                boss.execute(capture.format(**fills))
        else:
            boss.execute("set search_path = evil, public, pg_catalog")
        boss.execute("select omni_credentials.grant_access(%s::pg_catalog.regrole, 'SELECT')", (victim,))
        boss.execute("select omni_credentials.revoke_access(%s::pg_catalog.regrole, 'DELETE')", (victim,))
        boss.execute("create schema copy")
        boss.execute("select omni_credentials.instantiate('copy')")
        boss.execute("insert into copy.credentials (name, value) values ('c', 'v')")
        boss.execute("select omni_credentials.rotate_key()")
        boss.execute("select omni_credentials.rotate_key('copy')")
        boss.execute(f"select omni_credentials.rename_principal('nobody', '{victim}')")
        path = boss.execute("show search_path").fetchone()
        assert path == (("pg_temp" if where == "pg_temp" else "evil") + ", public, pg_catalog",)
        assert attacked.run(f"select value from {VIEW}", user=victim) == [(b"of " + victim.encode(),)]
        assert attacked.run(f"select value from {VIEW}", user=mallory) == [(b"changed",)]
        assert attacked.run("select value from copy.credentials") == [(b"v",)]
        boss.close()


class TestOracle:
    """Sealed bytes from elsewhere, and the two functions that handle them."""

    def test_open_credential_for_another_principal(self, attacked: Database, mallory: str, victim: str) -> None:
        stolen = sealed_for(attacked, victim)
        for principal in (victim, mallory):
            with refused("42501|XX001"):
                attacked.run(
                    f"""select {OPEN}('{TABLE}'::regclass, 'n', 'credential'::omni_credentials.credential_kind,
                        %s::regrole, '{{"all": true}}', %b)""",
                    principal,
                    stolen,
                    user=mallory,
                )

    def test_open_credential_where_nothing_was_granted(self, db: Database, mallory: str) -> None:
        with refused("42501", "permission denied"):
            db.run(f"select {OPEN}(0, 'n', null::omni_credentials.credential_kind, 0, '1', '')", user=mallory)

    def test_open_credential_with_any_relation(self, attacked: Database, mallory: str) -> None:
        """Each of these is no store of credentials, and saying so touches nothing."""
        attacked.run("create table public.mine (x int)", user=mallory)
        for relation in ("0", "1259", "'public.mine'::regclass", f"'{VIEW}'::regclass", "'omni_credentials.credentials_config'::regclass", "4294967295"):
            with refused("3F000", "not part of an instance", hint="instantiate"):
                attacked.run(
                    f"""select {OPEN}({relation}::oid, 'n', 'credential'::omni_credentials.credential_kind,
                        current_user::regrole, '1', 'x')""",
                    user=mallory,
                )

    def test_seal_credential_needs_the_right_to_write(self, role, attacked: Database) -> None:
        reader, writer = role("reader"), role("writer")
        attacked.grant(reader, "SELECT")
        seal = f"""select {SEAL}('{TABLE}'::regclass, 'n', 'credential'::omni_credentials.credential_kind,
                   current_user::regrole, '1', 'x')"""
        with refused("42501"):
            attacked.run(seal, user=reader)
        # Even where EXECUTE came from another copy.
        attacked.run("create schema other")
        attacked.run("select omni_credentials.instantiate('other')")
        attacked.grant(writer, "SELECT")
        attacked.grant(writer, "INSERT", "other")
        with refused("42501", "permission denied for credential"):
            attacked.run(seal, user=writer)

    def test_trigger_functions_cannot_be_borrowed(self, attacked: Database, mallory: str) -> None:
        attacked.run("create view public.v as select 'n'::text as name, ''::bytea as value", user=mallory)
        for function in ("credentials_write", "encrypted_credentials_check", "guard_drop"):
            with refused("42501|0A000|42P17"):
                attacked.run(f"select omni_credentials.{function}()", user=mallory)
        with refused("42501", "permission denied for function"):
            attacked.run(
                "create trigger t instead of update on public.v for each row "
                "execute function omni_credentials.credentials_write()",
                user=mallory,
            )


class TestFakeCopy:
    """Tables that look like a copy, made by a role that may not instantiate."""

    def build(self, db: Database, user: str, variable: str) -> None:
        with db.connect(user) as session:
            session.execute("create schema fake")
            session.execute("create type fake.credential_kind as enum ('credential')")
            session.execute(
                "create table fake.encrypted_credentials (name text, value bytea, kind fake.credential_kind,"
                " principal regrole, scope jsonb)"
            )
            session.execute(
                "create table fake.credentials_config (singleton boolean, environment_variable text, module bytea,"
                " a int, b int, c int)"
            )
            session.execute("insert into fake.credentials_config values (true, %s)", (variable,))
            session.execute("create table fake.credentials_keyrings (number int, module bytea, keyring bytea, id uuid)")
            session.execute(
                "create view fake.credentials as select name, value, kind, principal, scope from fake.encrypted_credentials"
            )

    @pytest.mark.parametrize("variable", [VARIABLE, "PATH"])
    def test_is_refused(self, attacked: Database, mallory: str, variable: str) -> None:
        self.build(attacked, mallory, variable)
        kind = "'credential'::fake.credential_kind"
        for call in (
            f"{SEAL}('fake.encrypted_credentials'::regclass, 'n', {kind}, current_user::regrole, '1', 'x')",
            f"{OPEN}('fake.encrypted_credentials'::regclass, 'n', {kind}, current_user::regrole, '1', 'x')",
            "omni_credentials.verify('fake')",
        ):
            with refused("3F000", "not part of an instance"):
                attacked.run(f"select {call}", user=mallory)
        with refused("42501"):
            attacked.run("select omni_credentials.instantiate('fake')", user=mallory)

    def test_with_the_keyring_of_a_real_one(self, attacked: Database, mallory: str) -> None:
        """A stolen keyring and stolen rows, put where the attacker owns everything, open nothing."""
        self.build(attacked, mallory, VARIABLE)
        attacked.run("insert into fake.credentials_keyrings select * from omni_credentials.credentials_keyrings")
        attacked.run(
            f"insert into fake.encrypted_credentials select name, value, 'credential', principal, scope from {TABLE}"
        )
        with refused("3F000", "not part of an instance"):
            attacked.run(
                f"select {OPEN}(tableoid, name, kind, principal, scope, value) from fake.encrypted_credentials", user=mallory
            )

    def test_a_copy_given_away(self, attacked: Database, mallory: str) -> None:
        """Ownership is looked at again when it changes, in sessions that knew the copy, too."""
        attacked.run("create schema given")
        attacked.run("select omni_credentials.instantiate('given')")
        attacked.grant(mallory, schema="given")
        session = attacked.connect(mallory)
        session.execute("insert into given.credentials (name, value) values ('n', 'v')")
        attacked.run(f"alter table given.credentials_config owner to {mallory}")
        with refused("3F000", "not part of an instance"):
            session.execute("select value from given.credentials")

    def test_parts_replaced_by_the_owner_of_the_schema(self, attacked: Database, mallory: str) -> None:
        """The owner of a schema may drop what is in it, but what it puts there instead is not believed."""
        attacked.run("create schema theirs", user=mallory)
        attacked.run("select omni_credentials.instantiate('theirs')")
        attacked.run("insert into theirs.credentials (name, value) values ('n', 'v')")
        parts = "drop table theirs.credentials_config cascade"
        with refused("2BP01", "holds credentials", hint="truncate theirs.encrypted_credentials"):
            attacked.run(parts, user=mallory)
        attacked.run("alter event trigger omni_credentials_guard_tables disable")
        with attacked.connect(mallory) as session:
            session.execute(parts)
            session.execute(
                "create table theirs.credentials_config (singleton boolean, environment_variable text, module bytea,"
                " a int, b int, c int)"
            )
            session.execute("insert into theirs.credentials_config values (true, 'PATH')")
        # The view went with its table; it is as good as one that someone makes again.
        with refused("3F000", "not part of an instance"):
            attacked.run(f"select {OPEN}(tableoid, name, kind, principal, scope, value) from theirs.encrypted_credentials")


class TestOwnerOfACopy:
    """A role that may instantiate owns the tables of its copies, and is no superuser: what it makes of them crashes no one
    and gives it no right that it does not have."""

    @pytest.fixture
    def owner(self, attacked: Database, mallory: str) -> str:
        attacked.run(f"grant usage on schema omni_credentials to {mallory}")
        for function in (
            "instantiate", "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
            "encrypted_credentials_changed", "credentials_store_changed",
            "replace_config", "credentials_write", "open_credential", "seal_credential", "file_store_reload",
            "verify", "prune_keyrings",
        ):
            attacked.run(f"grant execute on function omni_credentials.{function} to {mallory}")
        attacked.allow(mallory)
        attacked.run("create schema mine", user=mallory)
        attacked.run("select omni_credentials.instantiate('mine')", user=mallory)
        attacked.run("insert into mine.credentials (name, value) values ('n', 'v')", user=mallory)
        return mallory

    CHANGES = {
        "keyring": "alter table mine.credentials_keyrings alter keyring type bigint using 1234567",
        "number": "alter table mine.credentials_keyrings alter number type text using 'x'",
        "id": "alter table mine.credentials_keyrings alter id drop default, alter id type text using 'x'",
        "variable": "alter table mine.credentials_config alter environment_variable type bigint using 1234567",
        "costs": "alter table mine.credentials_config alter kdf_passes type text",
        "dropped": "alter table mine.credentials_keyrings drop keyring",
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_columns_of_other_types(self, attacked: Database, owner: str, change: str) -> None:
        # It refuses to drop columns where there are credentials; a superuser may switch it off.
        attacked.run("alter event trigger omni_credentials_guard_tables disable")
        session = attacked.connect(owner)
        assert session.execute("select value from mine.credentials").fetchall() == [(b"v",)]
        session.execute(change)
        for statement in ("select value from mine.credentials", "insert into mine.credentials (name, value) values ('m', 'v')"):
            with refused("3F000|42P16", "not part of an instance|does not have the shape"):
                session.execute(statement)

    @pytest.mark.parametrize("column", ["name", "value", "kind", "principal", "scope"])
    def test_a_table_of_other_types(self, attacked: Database, owner: str, column: str) -> None:
        session = attacked.connect(owner)
        session.execute("drop view mine.credentials")
        session.execute("drop trigger encrypted_credentials_check on mine.encrypted_credentials")
        session.execute("drop policy encrypted_credentials_principal on mine.encrypted_credentials")
        session.execute(f"alter table mine.encrypted_credentials alter {column} drop default")
        for (function,) in session.execute(
            "select oid::regprocedure::text from pg_proc where pronamespace = 'mine'::regnamespace and proname in ('expiring', 'get_credential', 'set_credential', 'restore_credential')"
        ).fetchall():
            session.execute(f"drop function if exists {function} cascade")
        session.execute(f"alter table mine.encrypted_credentials alter {column} type bigint using 1234567")
        for timing, table in (("before insert", "mine.encrypted_credentials"), ("before insert", "mine.other")):
            if table == "mine.other":
                session.execute("create table mine.other (like mine.encrypted_credentials)")
            session.execute(
                f"create trigger t {timing} on {table} for each row"
                " execute function omni_credentials.encrypted_credentials_check()"
            )
            with refused("3F000|42P16", "not part of an instance|does not have the shape"):
                session.execute(f"insert into {table} ({column}) values (1234567)")
        for call in ("verify('mine')", "prune_keyrings('mine')"):
            with refused("3F000|42P16", "not part of an instance|does not have the shape"):
                session.execute(f"select omni_credentials.{call}")

    def test_a_view_of_other_types(self, attacked: Database, owner: str) -> None:
        with attacked.connect(owner) as session:
            session.execute("drop view mine.credentials")
            session.execute("create view mine.credentials as select 1 as name, 2 as value, 3 as kind, 4 as principal, 5 as scope")
            session.execute(
                "create trigger w instead of insert or update on mine.credentials for each row"
                " execute function omni_credentials.credentials_write()"
            )
            for statement in ("insert into mine.credentials values (1, 2, 3, 4, 5)", "update mine.credentials set value = 7"):
                with refused("3F000|42P16", "not part of an instance|does not have the shape"):
                    session.execute(statement)

    def test_no_file_by_way_of_the_table(self, attacked: Database, owner: str) -> None:
        """A row that looks as if the extension had written it is no way around the roles for server files."""
        file = attacked.server.data / f"{attacked.name}.mine"
        row = "insert into mine.credentials_files (filename) values (%s)"
        with attacked.connect(owner, autocommit=False) as session:
            session.execute(row, (str(file),))
            database, table, writer = session.execute(
                "select d.oid::bigint, 'mine.credentials_files'::regclass::oid::bigint, f.xmin::text::bigint"
                " from pg_database d, mine.credentials_files f where d.datname = current_database()"
            ).fetchone()
            rotated = ((database << 16) | (database >> 16)) & 0xFFFFFFFF
            mark = int.from_bytes(((table ^ rotated) << 32 | writer).to_bytes(8, "big"), "big", signed=True)
            session.execute("delete from mine.credentials_files")
            session.execute("insert into mine.credentials_files (filename, written_as) values (%s, %s)", (str(file), mark))
        # The mark is not one that SQL can compute, so the row counts as one that a dump brought.
        attacked.run("insert into mine.credentials (name, value) values ('m', 'v')", user=owner)
        assert not file.exists()

    def test_a_registry_of_other_types(self, attacked: Database, owner: str) -> None:
        attacked.run("insert into mine.credentials_files (filename) values ('x')", user=owner)
        for change in ("filename type bigint using 1234567", "base drop default, alter base type bigint using 1",
                       "written_as type text using 'x'"):
            with attacked.connect(owner, autocommit=False) as session:
                session.execute(f"alter table mine.credentials_files alter {change}")
                session.execute("insert into mine.credentials (name, value) values ('m', 'v')")
                with refused("3F000|42P16", "not part of an instance|does not have the shape"):
                    session.execute("commit")


class TestMovedCiphertext:
    """A sealed value is believed for its own row only: another row, role, kind, scope or copy refuses it."""

    MOVES = {
        "name": "name = 'other'",
        "kind": "kind = 'token'",
        "scope": """scope = '{"all": false}'""",
    }

    @pytest.mark.parametrize("change", MOVES.values(), ids=MOVES.keys())
    def test_to_another_identity(self, attacked: Database, mallory: str, change: str) -> None:
        before = attacked.run(f"select * from {TABLE} order by principal")
        with refused("23514", 'credential "(n|other)"', hint="credentials view"):
            attacked.run(f"update {TABLE} set {change}", user=mallory)
        assert attacked.run(f"select * from {TABLE} order by principal") == before

    def test_to_another_role(self, attacked: Database, mallory: str, victim: str) -> None:
        stolen = sealed_for(attacked, victim)
        with refused("23514"):
            attacked.run(f"insert into {TABLE} (name, value) values ('loot', %b)", stolen, user=mallory)
        with refused("23514"):
            attacked.run(f"update {TABLE} set value = %b", stolen, user=mallory)
        # Not even for the owner, who is past the policies.
        with refused("23514"):
            attacked.run(f"update {TABLE} set principal = '{mallory}', name = 'loot' where principal = '{victim}'::regrole")

    def test_to_another_row(self, attacked: Database, mallory: str) -> None:
        attacked.run(f"insert into {VIEW} (name, value) values ('second', 'v')", user=mallory)
        with refused("23514"):
            attacked.run(
                f"update {TABLE} set value = (select value from {TABLE} where name = 'n') where name = 'second'", user=mallory
            )

    def test_to_another_copy(self, attacked: Database, mallory: str) -> None:
        attacked.run("create schema other")
        attacked.run("select omni_credentials.instantiate('other')")
        attacked.grant(mallory, schema="other")
        attacked.run("insert into other.credentials (name, value) values ('first', 'v')", user=mallory)
        with refused("23514", "key"):
            attacked.run(
                f"insert into other.encrypted_credentials (name, value) select name, value from {TABLE}", user=mallory
            )

    def test_past_the_trigger(self, attacked: Database, mallory: str, victim: str) -> None:
        """Moved with the trigger switched off, as on the disk: it does not open."""
        stolen = sealed_for(attacked, victim)
        with attacked.connect() as session:
            session.execute("set session_replication_role = replica")
            session.execute(f"update {TABLE} set value = %b where principal = %s::regrole", (stolen, mallory))
        with refused("XX001", "altered, or sealed for another"):
            attacked.run(f"select value from {VIEW}", user=mallory)


class TestProbing:
    """What exists for another principal does not show."""

    def test_uniqueness(self, attacked: Database, mallory: str, victim: str) -> None:
        answers = set()
        for name in ("n", "no such"):
            for way, statement in enumerate((
                f"insert into {VIEW} (name, value, principal) values ('{name}', 'v', '{victim}')",
                f"insert into {TABLE} (name, value, principal) values ('{name}', 'v', '{victim}')",
                f"select omni_credentials.set_credential('{name}', 'v', principal => '{victim}')",
                f"update {VIEW} set principal = '{victim}', name = '{name}'",
            )):
                with refused("42501|23514") as refusal:
                    attacked.run(statement, user=mallory)
                answers.add((way, str(refusal.error).replace(f'"{name}"', "?")))
        # The same answer, whether the victim has such a credential or not.
        assert len(answers) == 4, answers

    def test_functions_in_conditions_see_own_rows_only(self, attacked: Database, mallory: str) -> None:
        """A cheap function in WHERE, which the planner would like to call first."""
        with attacked.connect(mallory) as session:
            session.execute("create table public.seen (name text, principal regrole, value bytea)")
            session.execute(
                "create function public.spy(text, regrole, bytea) returns boolean language sql volatile cost 0.0001"
                " as 'insert into public.seen values ($1, $2, $3); select true'"
            )
            session.execute(f"select count(*) from {VIEW} where public.spy(name, principal, value)")
            session.execute(f"select count(*) from {TABLE} where public.spy(name, principal, value)")
            seen = session.execute("select distinct principal::text from public.seen").fetchall()
        assert seen == [(mallory,)]


def test_definer_function_over_the_view(attacked: Database, mallory: str, victim: str) -> None:
    """A function of the victim's gives what it says, as the victim; it gives its caller no more than that."""
    attacked.run(
        f"create function public.length() returns int security definer set search_path = pg_catalog, pg_temp"
        f" language sql as 'select octet_length(value) from {VIEW}'",
        user=victim,
    )
    assert attacked.run("select public.length()", user=mallory) == [(3 + len(victim),)]
    # And the attacker's function, called by the victim, sees what is the attacker's.
    attacked.run(
        f"create function public.names() returns setof text security definer set search_path = pg_catalog, pg_temp"
        f" language sql as 'select convert_from(value, ''utf8'') from {VIEW}'",
        user=mallory,
    )
    assert attacked.run("select public.names()", user=victim) == [("of " + mallory,)]


def test_view_over_the_view(attacked: Database, mallory: str, victim: str) -> None:
    """Somebody's view over credentials shows each caller their own."""
    attacked.run(f"create view public.mine as select name, value from {VIEW}", user=mallory)
    attacked.run("grant select on public.mine to public", user=mallory)
    assert attacked.run("select value from public.mine", user=victim) == [(b"of " + victim.encode(),)]
    assert attacked.run("select value from public.mine", user=mallory) == [(b"of " + mallory.encode(),)]


def test_row_security_off_is_an_error(attacked: Database, mallory: str) -> None:
    with attacked.connect(mallory) as session:
        session.execute("set row_security = off")
        with refused("42501", "row-level security"):
            session.execute(f"select value from {VIEW}")
        with refused("42501"):
            session.execute(f"insert into {VIEW} (name, value, principal) values ('x', 'y', 'postgres')")


def test_an_older_value_in_its_own_place(attacked: Database, mallory: str) -> None:
    """What SECURITY.md says of whoever may write the table: the one thing that can be put there is what was there."""
    older = sealed_for(attacked, mallory)
    attacked.run(f"update {VIEW} set value = 'newer'", user=mallory)
    attacked.run(f"update {TABLE} set value = %b", older, user=mallory)
    assert attacked.run(f"select value from {VIEW}", user=mallory) == [(b"of " + mallory.encode(),)]


class TestSettings:
    """A role cannot set what is the server's, not even before the library is loaded."""

    SERVERS = {"omni_credentials.allowed_modules": "00" * 32, "omni_credentials.cache_directory": "/tmp/evil"}

    def test_before_the_library_is_loaded(self, attacked: Database, mallory: str) -> None:
        session = attacked.connect(mallory, **self.SERVERS)
        assert session.execute(f"select value from {VIEW}").fetchall() == [(b"of " + mallory.encode(),)]
        assert session.execute("show omni_credentials.allowed_modules").fetchone() == ("",)
        assert attacked.run("select current_setting('omni_credentials.cache_directory', true)") in ([("",)], [(None,)])

    def test_afterwards(self, attacked: Database, mallory: str) -> None:
        session = attacked.connect(mallory)
        session.execute(f"select value from {VIEW}")
        for name, value in self.SERVERS.items():
            with refused("55P02|42501"):
                session.execute(f"set {name} = '{value}'")
        with refused("42602", "on_unreadible"):
            session.execute("set omni_credentials.on_unreadible = 'null'")


def test_rights_by_column(role, attacked: Database, mallory: str) -> None:
    """Names without values: SELECT on columns of the view, and on the table that its policy looks at."""
    clerk = role("clerk")
    attacked.run(f"insert into {VIEW} (name, value, principal) values ('own', 'secret', %s::regrole)", clerk)
    for right in (
        "usage on schema omni_credentials", f"select (name, kind) on {VIEW}", f"select on {TABLE}",
        "execute on function omni_credentials.open_credential",
    ):
        attacked.run(f"grant {right} to {clerk}")
    assert attacked.run(f"select name from {VIEW}", user=clerk) == [("own",)]
    with refused("42501", "permission denied for view credentials"):
        attacked.run(f"select value from {VIEW}", user=clerk)
    ((shown,),) = attacked.run(f"select {OPEN}(tableoid, name, kind, principal, scope, value) from {TABLE}", user=clerk)
    assert b"secret" not in shown
    attacked.run(f"drop owned by {clerk}")


def test_locking_rows_shows_and_locks_own_ones_only(attacked: Database, mallory: str, victim: str) -> None:
    holder = attacked.connect(mallory, autocommit=False)
    assert holder.execute(f"select value from {VIEW} for update").fetchall() == [(b"of " + mallory.encode(),)]
    attacked.run(f"update {VIEW} set value = 'not waiting'", user=victim)
    holder.rollback()


def test_a_view_over_the_view_writes_as_the_caller(attacked: Database, mallory: str, victim: str) -> None:
    attacked.run(f"create view public.mine as select * from {VIEW}", user=mallory)
    attacked.run("grant all on public.mine to public", user=mallory)
    attacked.run("insert into public.mine (name, value) values ('m', 'w')", user=victim)
    attacked.run("update public.mine set value = 'taken'", user=victim)
    rows = f"select distinct value, principal::text from {VIEW}"
    assert attacked.run(rows, user=victim) == [(b"taken", victim)]
    assert attacked.run(rows, user=mallory) == [(b"of " + mallory.encode(), mallory)]


def test_a_renamed_schema_is_the_same_copy(role, attacked: Database, mallory: str) -> None:
    attacked.run("create schema before")
    attacked.run("select omni_credentials.instantiate('before')")
    attacked.grant(mallory, schema="before")
    session = attacked.connect(mallory)
    session.execute("insert into before.credentials (name, value) values ('n', 'v')")
    attacked.run("alter schema before rename to after")
    session.execute("update after.credentials set value = 'w'")
    session.execute("select after.set_credential('n', 'x')")
    assert session.execute("select value from after.credentials").fetchall() == [(b"x",)]
    assert attacked.run("select omni_credentials.rotate_key('after')") == [(1,)]
    assert ("after",) in attacked.run("select schema::text from omni_credentials.instances")
