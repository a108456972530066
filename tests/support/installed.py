"""A server with a Postgres of its own that has the extension among its files, as an installed one has it."""

from __future__ import annotations

import shutil

from throwaway import Installation, Server


def with_extension(server: Server) -> None:
    """Copies the Postgres and the extension into the server's folder. No one else's files change with these."""
    stage, programs = server.installation.stage, server.installation.bin
    # The whole tree below target/pg: programs find their files and libraries relative to themselves.
    root = next((folder for folder in programs.parents if folder.parent.name == "pg"), programs.parent)
    shutil.copytree(root, server.folder / "postgres", symlinks=True)
    pg_config = server.folder / "postgres" / programs.relative_to(root) / "pg_config"
    # No stage below this folder: the server finds its extensions in its own Postgres.
    server.installation = Installation(pg_config, server.folder)
    shutil.copytree(stage / "lib", server.installation.ask("pkglibdir"), dirs_exist_ok=True)
    shutil.copytree(stage / "share" / "extension", f"{server.installation.ask('sharedir')}/extension", dirs_exist_ok=True)
