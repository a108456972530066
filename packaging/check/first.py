"""A first program with the Python package: creates a file, writes, reads. Usage: first.py VERSION"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from omni_credentials import Store, generate_master_key

assert importlib.metadata.version("omni-credentials") == sys.argv[1]
file = Path("credentials.omni")
secret = generate_master_key()
store = Store.create(file, secret)
store.set("smtp", "relay-password", kind="password", principal="app")
store.save()
assert Store.open(file, secret)["smtp"] == b"relay-password"
assert b"relay-password" not in file.read_bytes()
print(f"omni_credentials {sys.argv[1]} works with Python {sys.version.split()[0]}")
