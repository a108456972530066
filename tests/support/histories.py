"""What the tests of the history share: its names, and putting and reading versions."""

from __future__ import annotations

import psycopg
from conftest import Database

VIEW = "omni_credentials.credentials"
TABLE = "omni_credentials.encrypted_credentials"
VERSIONS = "omni_credentials.encrypted_credential_versions"
HISTORY = "omni_credentials.credential_versions"
SEEN = (
    "select v.name, v.version from omni_credentials.versions_seen('omni_credentials.encrypted_credentials'::regclass,"
    " null, null::omni_credentials.credential_kind, null, null, null) as v (name text, value bytea,"
    " kind omni_credentials.credential_kind, principal regrole, scope jsonb, expires_at timestamptz, version bigint,"
    " valid_from timestamptz, valid_until timestamptz, changed_by name, deleted boolean)"
)


def put(db: Database | psycopg.Connection, value: str, name: str = "n", user: str | None = None) -> None:
    statement = "select omni_credentials.set_credential(%s, %s::text)"
    if isinstance(db, Database):
        db.run(statement, name, value, **({"user": user} if user else {}))
    else:
        db.execute(statement, (name, value))


def history(db: Database, name: str = "n", **user: str) -> list[tuple[int, bytes]]:
    return db.run(f"select version, value from {HISTORY} where name = %s order by version", name, **user)
