"""The tutorial and the README work as they are written, statement by statement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from command import PROGRAM, Folder
from conftest import MASTER_KEY, PASSWORD, PYTHON_HOST, VARIABLE, Database, new_server

README = Path(__file__).parents[1] / "README.md"
TUTORIAL = README.parent / "docs" / "tutorial.md"


def test_tutorial() -> None:
    server = new_server("tutorial")
    try:
        server.start({VARIABLE: PASSWORD})
        blocks = re.findall(r"```sql\n(.*?)```", TUTORIAL.read_text(), re.S)
        assert len(blocks) == 7
        script = "".join(blocks).replace("/srv/app/", f"{server.data}/")
        if server.installation.major < 16:
            # psql before 16 has no \bind.
            script = re.sub(r"\$1, \$2, (.*?)\) \\bind (\S+) (\S+) \\g", r"'\2', '\3', \1);", script)
        done = subprocess.run(
            server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
            input=script, env=server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert "stripe|api_key|postgres|sk_test_4f9Zk2" in lines
        assert lines.count("stripe") == 1 and "sk_test_4f9Zk2" in lines
        mirrored = (server.data / "credentials.omni").read_text()
        assert 'credential "smtp"' in mirrored and 'credential "stripe"' in mirrored
        assert Database(server, "postgres").run(
            "select name, value, principal::text from omni_credentials.credentials order by 1"
        ) == [("smtp", b"relay-password", "app"), ("stripe", b"sk_test_4f9Zk2", "app")]
    finally:
        server.remove()


def test_the_page_of_expiry(db: Database, tmp_path: Path) -> None:
    page = (TUTORIAL.parent / "expiry.md").read_text()
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.S)
    done = subprocess.run(
        db.server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", db.name),
        input=sql, env=db.server.client_environment(), capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == r"\x746f6b656e2d32"
    folder = Folder(tmp_path)
    folder.run("init")
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.S))
    done = subprocess.run(
        ["sh", "-eu", "-c", shell], cwd=tmp_path, env=folder.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("expires 20") >= 2


def test_the_page_of_docker() -> None:
    """As the page says, but for the container: the command and the server are one account, in one folder."""
    page = (TUTORIAL.parent / "docker.md").read_text()
    (shell,), (sql,) = (re.findall(rf"```{language}\n(.*?)```", page, re.S) for language in ("sh", "sql"))
    server = new_server("docker")
    try:
        work = server.data.parent / "work"
        work.mkdir()
        os.chown(work, server.data.stat().st_uid, server.data.stat().st_gid)
        environment = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(work), "USER": "app", "STRIPE_KEY": "sk_1"}
        account = {"user": server.data.stat().st_uid, "group": server.data.stat().st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(["sh", "-eu", "-c", shell], cwd=work, env=environment, capture_output=True, text=True, check=False, **account)
        assert done.returncode == 0, done.stderr
        server.start({f"{VARIABLE}_FILE": str(work / "credentials" / "credentials.key")})
        db = Database(server, "postgres")
        done = subprocess.run(
            server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
            input=sql.replace("/srv/", f"{work}/"), env=server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0 and done.stdout.startswith("stripe|credential|app|"), done.stdout + done.stderr
        db.run("select omni_credentials.set_credential('mail', 'x')")
        folder = work / "credentials"
        listed = subprocess.run(["omni-credentials", "get", "mail"], cwd=folder, env=environment | {f"{VARIABLE}_FILE": "credentials.key"},
                                capture_output=True, text=True, check=False, **account)
        assert listed.stdout == "x", listed.stderr
        for command in (["git", "add", "."], ["git", "status", "--short"]):
            status = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, **account)
        assert status.stdout == "A  .gitattributes\nA  .gitignore\nA  credentials.omni\n"
    finally:
        server.remove()


def test_the_page_of_status() -> None:
    server = new_server("status")
    try:
        server.start({VARIABLE: MASTER_KEY})
        Database(server, "postgres").run("create extension omni_credentials")
        blocks = re.findall(r"```sql\n(.*?)```", (TUTORIAL.parent / "status.md").read_text(), re.S)
        done = subprocess.run(
            server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
            input="".join(blocks), env=server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["omni_credentials|0|0|0|"]
    finally:
        server.remove()


def test_the_columns_of_status_are_documented(db: Database) -> None:
    page = (TUTORIAL.parent / "status.md").read_text()
    documented = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `")))
    assert documented == db.run("select string_agg(key, ' ' order by n) from (select * from"
                                " json_object_keys((select to_json(s) from omni_credentials.status() s)) with ordinality as k(key, n)) k"
                                )[0][0].split()


def test_the_sql_of_the_readme() -> None:
    server = new_server("readme")
    try:
        server.start({VARIABLE: MASTER_KEY, "APP_SECRETS_MASTER_PASSWORD": PASSWORD})
        (block,) = re.findall(r"```sql\n(.*?)```", README.read_text(), re.S)
        script = "create role app;\n" + block.replace("/srv/app/", f"{server.data}/")
        done = subprocess.run(
            server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"),
            input=script, env=server.client_environment(), capture_output=True, text=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "sk_…" in done.stdout.splitlines()
        assert (server.data / "credentials.omni").exists()
    finally:
        server.remove()


def test_the_command_of_the_readme(tmp_path: Path) -> None:
    block = re.search(r"```sh\n(.*?)```", README.read_text(), re.S)[1]
    folder = Folder(tmp_path).without_secret()
    done = subprocess.run(
        ["sh", "-eu", "-c", block], cwd=tmp_path, env=folder.environment | {"STRIPE_KEY": "sk_live"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sk_live"


def test_the_readme_shows_what_the_packages_show() -> None:
    """Their own READMEs are run by their tests."""
    readme = README.read_text()
    for language, package in (("python", "host-python"), ("js", "host-node")):
        (shown,) = re.findall(rf"```{language}\n.*?```", readme, re.S)
        assert shown in (README.parent / package / "README.md").read_text()


def test_the_first_lines_without_building(tmp_path: Path) -> None:
    """What the README shows below "Install it without building" for the command, then for Python and Node in its folder."""
    folder = Folder(tmp_path).without_secret()
    readme = README.read_text()
    (block,) = re.findall(r"^The command, one static file.*?```\n(.*?)```", readme, re.M | re.S)
    lines = [line for line in block.splitlines() if not line.startswith(("tar ", "install "))]
    script = "\n".join(lines).replace("~/.local/bin/omni-credentials", str(PROGRAM))
    created = subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, env=folder.environment, capture_output=True, check=False)
    assert created.returncode == 0, created.stderr
    assert readme.count("\nexport OMNI_CREDENTIALS_MASTER_PASSWORD_FILE=credentials.key\n") == 2
    environment = folder.environment | {f"{VARIABLE}_FILE": "credentials.key", "PYTHONPATH": str(PYTHON_HOST)}
    (python,) = re.findall(r"^python -c '(.*)'$", readme, re.M)
    (node,) = re.findall(r"^node -e '(.*)'$", readme, re.M)
    modules = PYTHON_HOST.parents[1] / "node" / "installed" / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    for command, printed in (([sys.executable, "-c", python], "b'sk_test'\n"), ([shutil.which("node"), "-e", node], "sk_test\n")):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )
        assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_the_page_of_the_history(db: Database) -> None:
    page = (TUTORIAL.parent / "history.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    done = subprocess.run(
        db.server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", db.name),
        input="".join(blocks), env=db.server.client_environment(), capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0].startswith("stripe|1||") and lines[0].endswith("|postgres|f")
    # The previous value twice, the version that was restored, its value, what was deleted; then what was purged.
    assert lines[1:] == ["sk_live_1", "sk_live_1", "1", "sk_live_1", "3", "4", "0", "0"]
