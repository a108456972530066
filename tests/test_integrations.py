"""docs/integrations.md: what it says about direnv, mise, pre-commit and GitHub Actions, done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import KEY, PROGRAM, Folder
from conftest import VARIABLE, master_key
from python_files import CACHE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
HOOKS = ROOT / ".pre-commit-hooks.yaml"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
# A stand-in for what direnv gives an .envrc.
DIRENV = "watch_file() { :; }\n"


def blocks(heading: str, language: str) -> list[str]:
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A repository with a credentials file, under a key in a file."""
    (path := tmp_path / "work").mkdir()
    folder = Folder(path, {"XDG_CACHE_HOME": str(CACHE)})
    folder.git("init", "-q")
    folder.run("init")
    (path / "credentials.key").write_text(KEY)
    folder.set("stripe-key", "it's $5\nand more")
    return folder


def bash(folder: Folder, script: str) -> subprocess.CompletedProcess[str]:
    environment = folder.without_secret().environment
    return subprocess.run(["bash", "-c", script], cwd=folder.path, env=environment, capture_output=True, text=True, check=False)


class TestDirenv:
    def test_the_lines(self, folder: Folder) -> None:
        [envrc] = blocks("direnv", "bash")
        shown = 'printf %s "$STRIPE_KEY"; printf " %s" "${variables-unset}"'
        assert bash(folder, f"{DIRENV}{envrc}{shown}").stdout == "it's $5\nand more unset"
        folder.file.write_text("damaged")
        failed = bash(folder, f"{DIRENV}{envrc}echo reached")
        assert failed.returncode == 5 and failed.stdout == "" and "credentials.omni" in failed.stderr

    @pytest.mark.skipif(shutil.which("direnv") is None, reason="there is no direnv")
    def test_direnv_itself(self, folder: Folder) -> None:
        [envrc] = blocks("direnv", "bash")
        (folder.path / ".envrc").write_text(envrc)
        done = bash(folder, "direnv allow . && direnv exec . printenv STRIPE_KEY")
        assert done.stdout == "it's $5\nand more\n", done.stderr
        folder.file.write_text("damaged")
        done = bash(folder, "direnv exec . printenv STRIPE_KEY")
        assert done.returncode != 0 and done.stdout == "", done.stderr


def test_mise(folder: Folder) -> None:
    """As mise does it: it sources the script with the variables of mise.toml, and takes over the environment."""
    import tomllib

    [config], [script] = blocks("mise", "toml"), blocks("mise", "bash")
    environment = tomllib.loads(config.replace("{{config_root}}", str(folder.path)))["env"]
    (folder.path / "credentials.sh").write_text(script)
    assert environment.pop("_") == {"source": str(folder.path / "credentials.sh")}
    exports = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    assert bash(folder, f"{exports}. ./credentials.sh; printenv STRIPE_KEY").stdout == "it's $5\nand more\n"
    folder.file.write_text("damaged")
    assert bash(folder, f"{exports}. ./credentials.sh; echo reached").stdout == ""


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The repository that has the hooks. Its clone is kept for all tests."""
    (path := tmp_path_factory.mktemp("hooks") / "repository").mkdir()
    hooks = Folder(path)
    shutil.copy(HOOKS, path)
    hooks.git("init", "-q")
    hooks.git("add", ".")
    hooks.git("commit", "-qm", "hooks")
    return hooks


class TestPreCommit:
    """The hooks in the real pre-commit, which clones them from a repository as it does a user's."""

    @pytest.fixture
    def run(self, folder: Folder, hooks: Folder):
        revision = hooks.git("rev-parse", "HEAD").strip()
        config = yaml.safe_load(blocks("pre-commit", "yaml")[0])
        [repository] = config["repos"]
        assert repository["repo"] == "https://github.com/omnigres/omni_credentials"
        repository |= {"repo": str(hooks.path), "rev": revision}
        documented = {it["id"] for it in repository["hooks"]}
        defined = {it["id"] for it in yaml.safe_load(HOOKS.read_text())}
        assert documented < defined == set(re.findall(r"^\| `([^`]+)`", PAGE, re.M))
        (folder.path / ".gitignore").write_text("")

        def run(*ids: str, **environment: str) -> tuple[int, str]:
            repository["hooks"] = [{"id": it} for it in ids or sorted(documented)]
            (folder.path / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
            folder.git("add", "--all")
            done = subprocess.run(
                [sys.executable, "-m", "pre_commit", "run", "--color", "never"], cwd=folder.path,
                env=folder.environment | {"PRE_COMMIT_HOME": str(hooks.path.parent / "cache")} | environment,
                capture_output=True, text=True, check=False,
            )
            return done.returncode, done.stdout + done.stderr

        (folder.path / "credentials.key").unlink()
        return run

    def test_a_sound_repository(self, folder: Folder, run) -> None:
        (folder.path / ".env.example").write_text("STRIPE_KEY=\n")
        (folder.path / "a b.omni").write_bytes(folder.file.read_bytes())
        status, output = run()
        assert status == 0 and output.count("Passed") == 2, output
        status, output = run("omni-credentials-verify")
        assert status == 0 and "Passed" in output, output

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda text: "<<<<<<< ours\n" + text, "the markers of an unfinished merge"),
            (lambda text: "STRIPE_KEY=hunter2\n", "credentials.omni"),
            (lambda text: text[: len(text) // 2], "credentials.omni"),
            (lambda text: "", "credentials.omni"),
        ],
    )
    def test_what_is_not_a_sound_file(self, folder: Folder, run, change, said: str) -> None:
        # The first file is wrong and the last is right: one that is wrong is enough.
        (folder.path / "z.omni").write_bytes(folder.file.read_bytes())
        folder.file.write_text(change(folder.file.read_text()))
        for hook in ("omni-credentials-check", "omni-credentials-verify"):
            status, output = run(hook)
            assert status == 1 and said in output and "hunter2" not in output, output

    def test_verify_sees_what_the_secret_shows(self, folder: Folder, run) -> None:
        text = folder.file.read_text()
        folder.file.write_text(text.replace('"stripe-key"', '"stripe-kex"'))
        status, output = run("omni-credentials-check")
        assert status == 0, output
        status, output = run("omni-credentials-verify")
        assert status == 1 and "credentials.omni" in output, output
        folder.file.write_text(text)
        assert run("omni-credentials-verify", **{VARIABLE: master_key(b"another")})[0] == 1

    def test_a_key_is_not_committed(self, folder: Folder, run) -> None:
        (folder.path / "README").write_text(f"export {VARIABLE}={KEY}\n")
        status, output = run()
        assert status == 1 and "README" in output, output
        (folder.path / "README").write_text("generated keys start with omck1_\n")
        assert run()[0] == 0

    def test_plaintext_is_not_committed(self, folder: Folder, run) -> None:
        names = [".env", ".env.production", "app/.env", "credentials.key", "config/master.key"]
        for name in names:
            (path := folder.path / name).parent.mkdir(exist_ok=True)
            path.write_text("STRIPE_KEY=hunter2\n")
        status, output = run("omni-credentials-no-plaintext")
        assert status == 1 and "omni-credentials import" in output and "hunter2" not in output, output
        assert set(names) <= set(output.splitlines()), output


class TestAction:
    """The script of the action, with the variables that the runner would set."""

    @pytest.fixture
    def run(self, folder: Folder, tmp_path: Path):
        (folder.path / "a, b:%.omni").write_bytes(folder.file.read_bytes())
        folder.git("add", "--all")
        (temporary := tmp_path / "temporary").mkdir()

        def run(command: bool = True, path: str = "", **inputs: str) -> tuple[int, str]:
            [step] = ACTION["runs"]["steps"]
            given = {name: str(it["default"]) for name, it in ACTION["inputs"].items()} | {"secret": KEY} | inputs
            environment = {
                name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], value)
                for name, value in step["env"].items()
            }
            environment |= {
                "PATH": f"{path}{PROGRAM.parent if command else '/nonexistent'}:/usr/bin:/bin",
                "HOME": folder.environment["HOME"], "XDG_CACHE_HOME": str(CACHE), "GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(temporary),
            }
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=folder.path,
                env=environment, capture_output=True, text=True, check=False,
            )
            output = done.stdout + done.stderr
            assert KEY not in output
            return done.returncode, output

        return run

    def test_what_verifies(self, run) -> None:
        status, output = run()
        assert status == 0 and output.count("all 1 values open") == 2, output
        assert run(secret="")[0] == 0
        assert run(files="credentials.omni\n\n*b*.omni\n")[1].count("all 1 values open") == 2

    def test_what_does_not(self, folder: Folder, run) -> None:
        assert run(secret=master_key(b"another"))[0] == 1
        status, output = run(files="none.omni")
        assert status == 1 and output.startswith("::error::no file"), output
        folder.file.write_text("<<<<<<< ours\n" + folder.file.read_text())
        for secret in (KEY, ""):
            status, output = run(secret=secret)
            assert status == 1 and "::error file=credentials.omni::" in output, output
        (folder.path / "a, b:%.omni").write_text("x")
        assert "::error file=a%2C b%3A%25.omni::it does not verify: status 5\n" in run()[1]

    def test_a_name_is_no_command_to_the_runner(self, folder: Folder, run) -> None:
        (folder.path / "x\n::add-mask::.omni").write_text("x")
        folder.git("add", "--all")
        status, output = run()
        [(stopped, heeded)] = re.findall(r"::stop-commands::(\w{32})\n.*\n::\1::\n(.*)", output, re.S)
        assert output.startswith(f"::stop-commands::{stopped}\n") and status == 1
        assert heeded == "::error file=x%0A%3A%3Aadd-mask%3A%3A.omni::it does not verify: status 5\n"

    def test_what_expires(self, folder: Folder, run) -> None:
        assert run(expiring="30d")[0] == 0
        folder.set("due", "v", "--expires", "7d")
        status, output = run(expiring="30d")
        assert status == 1 and "::error file=credentials.omni::credentials are due: status 16" in output, output
        assert run()[0] == 0

    def test_the_command_is_fetched_and_its_provenance_checked(self, tmp_path: Path, run) -> None:
        """With a stand-in for gh, which has one archive."""
        (bin := tmp_path / "bin").mkdir()
        name = f"omni-credentials-1.0.0-linux-{os.uname().machine}"
        (tree := tmp_path / name).mkdir()
        shutil.copy(PROGRAM, tree)
        subprocess.run(["tar", "-czf", f"{bin}/{name}.tar.gz", "-C", tmp_path, name], check=True)
        (bin / "gh").write_text(
            f'#!/bin/sh\necho "$*" >>{bin}/calls\ncase $1 in\n'
            f'release) cp {bin}/{name}.tar.gz "$9" ;;\n'
            f"attestation) test ! -e {bin}/forged ;;\nesac\n"
        )
        (bin / "gh").chmod(0o755)
        status, output = run(command=False, path=f"{bin}:")
        assert status == 0 and output.count("all 1 values open") == 2, output
        release, attestation = (bin / "calls").read_text().splitlines()
        assert release.startswith("release download v1.0.0 --repo omnigres/omni_credentials ")
        assert attestation.startswith("attestation verify ") and attestation.endswith("--repo omnigres/omni_credentials")
        (bin / "forged").touch()
        assert run(command=False, path=f"{bin}:")[0] != 0

    def test_what_the_page_says(self) -> None:
        workflow = yaml.safe_load(blocks("GitHub Actions", "yaml")[0])
        [_, step] = workflow["jobs"]["credentials"]["steps"]
        version = subprocess.run([ROOT / "tools" / "version.sh"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        assert step["uses"] == f"omnigres/omni_credentials@v{version}" and ACTION["inputs"]["version"]["default"] == version
        assert step["with"].keys() < ACTION["inputs"].keys()
