"""Credentials that are kept encrypted in a file, opened by the crypto module that Postgres and the command run as well.

    from omni_credentials import Store

    store = Store.open("credentials.omni")  # the master secret is in OMNI_CREDENTIALS_MASTER_PASSWORD
    key = store["stripe"].decode()

All that is secret happens inside a sandboxed WebAssembly component; this package knows neither formats nor
cryptography. `Store` is what applications use; `omni_credentials.module` has the contract's calls one by one. Every
error is a `CredentialsError`.
"""

from __future__ import annotations

from .errors import (
    AmbiguousCredential,
    CredentialNotFound,
    CredentialsError,
    DamagedFile,
    FileError,
    FileLocked,
    InvalidInput,
    MasterSecretConflict,
    MergeConflict,
    MissingInput,
    ModuleError,
    NeedsNewer,
    OlderFile,
    Refusal,
    SecretCommandError,
    UnreadableValue,
    WrongMasterSecret,
)
from .identity import Credential, Identity
from .module import Costs, Module
from .store import Store

__all__ = [
    "AmbiguousCredential",
    "Costs",
    "Credential",
    "CredentialNotFound",
    "CredentialsError",
    "DamagedFile",
    "FileError",
    "FileLocked",
    "Identity",
    "InvalidInput",
    "MasterSecretConflict",
    "MergeConflict",
    "MissingInput",
    "Module",
    "ModuleError",
    "NeedsNewer",
    "OlderFile",
    "Refusal",
    "SecretCommandError",
    "Store",
    "UnreadableValue",
    "WrongMasterSecret",
    "generate_master_key",
]


def generate_master_key(module: Module | None = None) -> str:
    """A new master secret of 32 random bytes, to be kept in a password manager. It costs no key derivation, and needs
    none: it cannot be guessed."""
    return (module or Module.load()).generate_master_key().decode()
