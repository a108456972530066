"""Instances of roles that are no superusers, with the fewest rights that work: docs/production.md gives more at once."""

from __future__ import annotations

from conftest import Database

# What the objects of an instance call, and what its owner does with it.
CALLED = (
    "instantiate", "encrypted_credentials_check", "encrypted_credentials_keep", "encrypted_credential_versions_check",
    "encrypted_credentials_changed", "credentials_store_changed",
    "replace_config", "credentials_write", "open_credential", "seal_credential", "file_store_reload", "file_store_sync",
    "file_store_status",
)
MAINTENANCE = (
    "verify", "rotate_key", "use_module", "rotate_master_secret", "rename_principal", "prune_keyrings",
)


def instance_of(database: Database, owner: str, schema: str = "mine") -> None:
    """Gives a role the rights to have an instance, and makes one in a schema of its own."""
    database.run(f"grant usage on schema omni_credentials to {owner}")
    for function in CALLED + MAINTENANCE:
        database.run(f"grant execute on function omni_credentials.{function} to {owner}")
    database.allow(owner)
    database.run(f"create schema {schema} authorization {owner}")
    database.run(f"select omni_credentials.instantiate('{schema}')", user=owner)
