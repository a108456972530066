#!/usr/bin/env python3
"""Prints the licences of the crates that packages contain. Usage: packaging/third-party.py PACKAGE[:FEATURES]…"""

from __future__ import annotations

import sys

from components import graph, third_party

found = []
for argument in sys.argv[1:]:
    package, _, features = argument.partition(":")
    found += graph(package, features=features or None).crates
# Each carries the default crypto module.
found += graph("omni-credentials-module-xchacha20poly1305", "module").crates
found += graph("omni-credentials-module-aes256gcmsiv", "module").crates
print(third_party(found), end="")
