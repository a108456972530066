"""supabase/vault 0.3.1 beside ours on one server: native libsodium. `--vault` names a folder in which it was built:

    git clone https://github.com/supabase/vault && cd vault
    make PG_CONFIG=… with_llvm=no CFLAGS="-O2 -std=c99 -fPIC -Wno-error"    # wants libsodium's headers
"""

from __future__ import annotations

import shutil
from pathlib import Path

from throwaway import Server

KEY = "#!/bin/sh\necho 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"


class NotThere(Exception):
    """Why it is not measured."""


def settings(server: Server, folder: Path | None) -> dict[str, str]:
    """What a server that was not started yet needs to have both, preloaded."""
    if folder is None:
        raise NotThere("not measured: --vault names the folder in which it was built")
    if server.installation.major < 18:
        raise NotThere("not measured: only Postgres 18 finds extensions outside its own folders")
    library, control = folder / "supabase_vault.so", folder / "supabase_vault.control"
    if not (library.exists() and control.exists()):
        raise NotThere(f"not measured: {folder} has no supabase_vault.so and supabase_vault.control")
    home = server.folder / "vault"
    (home / "extension").mkdir(parents=True)
    for file in (library, control, *(folder / "sql").glob("*.sql")):
        shutil.copy(file, home if file == library else home / "extension")
    script = home / "key"
    script.write_text(KEY)
    script.chmod(0o755)
    server.account.own(home, *home.rglob("*"))
    stage = server.installation.stage
    return {
        "shared_preload_libraries": "omni_credentials,supabase_vault",
        "vault.getkey_script": str(script),
        "extension_control_path": f"{home}:{stage}/share:$system",
        "dynamic_library_path": f"{home}:{stage}/lib:$libdir",
    }
