"""docs/reference.md has every object as the catalog has it, and every object has a comment.

`pytest tests/test_catalog.py --accept` writes the reference again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Database

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
SCHEMA = "'omni_credentials'::regnamespace"
# Objects for the extension's own use; listed in a table of their own.
INTERNAL = """prorettype in ('trigger'::regtype, 'event_trigger'::regtype)
    or proname in ('adopt_finish', 'adopt_prepare', 'change_history_limit', 'current_policies', 'file_store_reload', 'file_store_status', 'file_store_sync', 'functions_of', 'instance_template', 'must_trust', 'only_for_owner', 'open_old_value', 'privilege_list', 'privileges_held', 'purge_versions', 'register_builtin_module', 'text_of_one', 'trusted_instance', 'versions_seen', 'watch_drops')"""


def functions(db: Database, condition: str) -> list[tuple[str, str, str, str]]:
    return db.run(
        "select proname, pg_get_function_arguments(oid), pg_get_function_result(oid), coalesce(obj_description(oid, 'pg_proc'), '')"
        f" from pg_proc where pronamespace = {SCHEMA} and ({condition}) order by 1, 2"
    )


def reference(db: Database) -> str:
    """The whole page."""
    text = [
        "# Reference\n",
        "Every object and setting of the extension. This page is generated from the catalog of a database with the extension, and\n"
        "a test compares the two. What the page lists for the schema `omni_credentials` as part of an instance also exists in\n"
        "every schema where you called `omni_credentials.instantiate`: the views and their tables, `credential_kind`,\n"
        "`get_credential`, `set_credential`, `restore_credential`, `purge_history`, `set_history_limit`, `expiring`,\n"
        "`credential_file_store_reload` and `credential_file_store_sync`.\n",
        "## Functions\n",
    ]
    for name, arguments, result, comment in functions(db, f"not ({INTERNAL})"):
        text.append(f"### {name}\n\n```sql\nomni_credentials.{name}({arguments})\nreturns {result}\n```\n\n{comment}\n")
    text.append("## View and tables\n")
    relations = db.run(
        "select oid, relname, case relkind when 'v' then 'view' else 'table' end, obj_description(oid, 'pg_class')"
        f" from pg_class where relnamespace = {SCHEMA} and relkind in ('r', 'v') order by relkind desc, relname"
    )
    for oid, name, kind, comment in relations:
        text.append(f"### {name}\n\n{kind.capitalize()}. {comment}\n\n| Column | Type | Default | |\n|---|---|---|---|")
        for row in db.run(
            "select attname, format_type(atttypid, atttypmod), coalesce(pg_get_expr(adbin, adrelid), ''),"
            " coalesce(col_description(attrelid, attnum), '') from pg_attribute"
            " left join pg_attrdef on adrelid = attrelid and adnum = attnum"
            " where attrelid = %s and attnum > 0 and not attisdropped order by attnum",
            oid,
        ):
            column, kind_of, default, about = (str(part).replace("|", "\\|") for part in row)
            text.append(f"| `{column}` | {kind_of} | {f'`{default}`' if default else ''} | {about} |")
        text.append("")
    text.append("## Type\n")
    for name, comment, labels in db.run(
        "select t.oid::regtype::text, obj_description(t.oid, 'pg_type'), (select string_agg('`' || enumlabel || '`', ', ' order by"
        f" enumsortorder) from pg_enum where enumtypid = t.oid) from pg_type t where typnamespace = {SCHEMA} and typtype = 'e'"
    ):
        text.append(f"### {name.split('.')[-1]}\n\n{comment} {labels}\n")
    text.append("## Policies\n")
    for name, relation, comment in db.run(
        "select polname, polrelid::regclass::text, obj_description(oid, 'pg_policy') from pg_policy order by 1"
    ):
        text.append(f"- `{name}` on `{relation}`: {comment}")
    text.append("\n## Settings\n\n| Setting | Default | Who | |\n|---|---|---|---|")
    with db.connect() as session:
        session.execute("load 'omni_credentials'")
        for row in session.execute(
            "select name, boot_val, context, short_desc || ' ' || coalesce(extra_desc, ''), coalesce(unit, '') from pg_settings"
            " where name like 'omni_credentials.%' order by 1"
        ):
            name, default, context, about, unit = row
            text.append(f"| `{name}` | {f'`{default}` {unit}'.strip() if default else ''} | {context} | {about.strip()} |")
    text.append("\n## For the extension's own use\n\nThe extension grants these to no role, and you never need to call them.\n")
    for name, arguments, _, comment in functions(db, INTERNAL):
        text.append(f"- `{name}({arguments})`: {comment}")
    for name, comment in db.run("select evtname, obj_description(oid, 'pg_event_trigger') from pg_event_trigger order by 1"):
        text.append(f"- event trigger `{name}`: {comment}")
    return "\n".join(text) + "\n"


def test_the_reference_is_what_the_catalog_says(db: Database, request: pytest.FixtureRequest) -> None:
    made = reference(db)
    if request.config.getoption("--accept"):
        PAGE.write_text(made)
    if db.server.installation.major >= 18:
        assert PAGE.read_text() == made


@pytest.mark.parametrize("schema", ["omni_credentials", "copy"])
def test_every_object_has_a_comment(db: Database, schema: str) -> None:
    if schema == "copy":
        db.run("create schema copy")
        db.run("select omni_credentials.instantiate('copy')")
    of_schema = f"'{schema}'::regnamespace"
    silent = db.run(
        f"""
        select 'function ' || oid::regprocedure from pg_proc
            where pronamespace = {of_schema} and obj_description(oid, 'pg_proc') is null
        union all
        select 'relation ' || oid::regclass from pg_class
            where relnamespace = {of_schema} and relkind in ('r', 'v') and obj_description(oid, 'pg_class') is null
        union all
        select 'column ' || attrelid::regclass || '.' || attname from pg_attribute join pg_class c on c.oid = attrelid
            where relnamespace = {of_schema} and relkind in ('r', 'v') and attnum > 0 and not attisdropped
              and col_description(attrelid, attnum) is null
        union all
        select 'index ' || indexrelid::regclass from pg_index join pg_class c on c.oid = indexrelid
            where relnamespace = {of_schema} and not indisprimary and obj_description(indexrelid, 'pg_class') is null
        union all
        select 'type ' || oid::regtype from pg_type
            where typnamespace = {of_schema} and typrelid = 0 and typelem = 0 and obj_description(oid, 'pg_type') is null
        union all
        select 'policy ' || polname from pg_policy join pg_class c on c.oid = polrelid
            where relnamespace = {of_schema} and obj_description(pg_policy.oid, 'pg_policy') is null
        union all
        select 'trigger ' || tgname || ' on ' || tgrelid::regclass from pg_trigger join pg_class c on c.oid = tgrelid
            where relnamespace = {of_schema} and not tgisinternal and obj_description(pg_trigger.oid, 'pg_trigger') is null
        union all
        select 'event trigger ' || evtname from pg_event_trigger where obj_description(oid, 'pg_event_trigger') is null
        union all
        select 'extension' from pg_extension where extname = 'omni_credentials' and obj_description(oid, 'pg_extension') is null
        """
    )
    assert silent == []


def test_what_psql_shows_reads_well(db: Database) -> None:
    """One line for each, with an end, and short enough for a terminal that is not too narrow."""
    comments = db.run(
        "select d.description from pg_description d join pg_depend p on (p.classid, p.objid) = (d.classoid, d.objoid)"
        " where p.deptype = 'e' and p.refobjid = (select oid from pg_extension where extname = 'omni_credentials')"
    )
    assert len(comments) > 40
    for (comment,) in comments:
        assert "\n" not in comment and comment.endswith(".") and len(comment) <= 320, comment


def test_control_file(db: Database) -> None:
    assert db.run(
        "select relocatable, superuser, trusted, schema from pg_available_extension_versions where name = 'omni_credentials' and installed"
    ) == [(False, True, False, "omni_credentials")]
