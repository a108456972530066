"""The command with other programs: export, import and inject."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from command import Folder
from conftest import VARIABLE

ALL = {"all": True}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (path := tmp_path / "work").mkdir()
    folder = Folder(path)
    folder.run("init")
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Folder:
    (path := tmp_path / "other").mkdir()
    folder = Folder(path)
    folder.run("init")
    return folder


AWKWARD = {"plain": "sk_live", "empty": "", "lines": "a\nb\n", "quotes": "it's", "dollar": "$HOME `id` \\n \"x\"", "é": "ü"}


def fill(folder: Folder, values: dict[str, str]) -> None:
    for name, value in values.items():
        folder.run("set", name, *(["--exact"] if value else ["--empty"]), stdin=value.encode())


class TestExport:
    def test_a_shell_reads_it(self, folder: Folder) -> None:
        values = {key: value for key, value in AWKWARD.items() if key.isascii()}
        fill(folder, values)
        script = folder.run("export", "--format", "shell").text + "".join(
            f'printf %s "${name.upper()}"; printf "\\0"\n' for name in values
        )
        done = subprocess.run(["sh", "-eu"], input=script.encode(), capture_output=True, check=True)
        assert done.stdout.split(b"\0")[:-1] == [value.encode() for value in values.values()]

    def test_dotenv_is_what_all_readers_agree_on(self, folder: Folder) -> None:
        fill(folder, {"a": "sk_live", "b": "it's", "c-d": "x\ny"})
        assert folder.run("export", "--format", "dotenv").text == "A='sk_live'\nB=\"it's\"\nC_D='x\ny'\n"
        folder.set("e", "it's $5")
        refused = folder.run("export", "--format", "dotenv", status=12)
        assert refused.out == b"" and "readers of .env files differ" in refused.err and "$5" not in refused.err
        assert folder.run("export", "--format", "dotenv", "--only", "a").text == "A='sk_live'\n"

    def test_json_comes_back(self, folder: Folder, other: Folder) -> None:
        fill(folder, AWKWARD)
        folder.set("bytes", b"\x00\xff", "--kind", "certificate", "--principal", "web", "--scope", '{"n":1.5}')
        folder.set("due", "v", "--expires", "2027-01-15T08:00:00Z")
        text = folder.run("export", "--format", "json").out
        done = other.run("import", "--from", "json", "--json", stdin=text).json
        assert {it["result"] for it in done["credentials"]} == {"added"} and done["dry_run"] is False
        assert other.run("export", "--format", "json").out == text
        assert other.run("show", "--json").json["credentials"] != folder.run("show", "--json").json["credentials"]
        before = other.file.read_bytes()
        assert "0 added, 0 changed, 8 unchanged" in other.run("import", "--from", "json", stdin=text).err
        assert other.file.read_bytes() == before

    def test_a_secret_of_kubernetes(self, folder: Folder) -> None:
        fill(folder, {"no": "text", "tls.key": "a\nb"})
        text = folder.run("export", "--format", "k8s-secret", "--name", "app.prod").text
        assert text == (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: app.prod\ntype: Opaque\ndata:\n"
            '  "no": dGV4dA==\n  "tls.key": YQpi\n'
        )
        for wrong in ("UPPER", "a_b", "-a", ""):
            folder.run("export", "--format", "k8s-secret", f"--name={wrong}", status=12)
        folder.set("no", "other", "--kind", "token")
        assert "would both be one key" in folder.run("export", "--format", "k8s-secret", status=12).err
        folder.set("a b", "x")
        assert "cannot be a key" in folder.run("export", "--format", "k8s-secret", "--only", "a b", status=12).err

    def test_it_needs_the_secret(self, folder: Folder) -> None:
        folder.set("a", "hunter2")
        for form in ("json", "dotenv", "shell", "k8s-secret"):
            refused = folder.without_secret().run("export", "--format", form, status=7)
            assert refused.out == b""


class TestImport:
    def test_dotenv(self, folder: Folder) -> None:
        env = "# of the app\nSTRIPE_KEY=sk_live # live\nexport B=\"two words\"\nC='a\nb'\n"
        (folder.path / ".env").write_text(env)
        folder.set("STRIPE_KEY", "old")
        would = folder.run("import", "--from", "dotenv", ".env", "--dry-run").err
        assert "nothing was written: it would be 2 added, 1 changed, 0 unchanged" in would
        assert folder.get("STRIPE_KEY") == b"old"
        said = folder.run("import", "--from", "dotenv", ".env", "--kind", "api_key", "--principal", "web").err
        assert "3 added" in said and "sk_live" not in said
        assert folder.get("STRIPE_KEY", "--kind", "api_key") == b"sk_live"
        assert folder.get("C") == b"a\nb" and folder.get("B") == b"two words"
        assert folder.get("STRIPE_KEY", "--kind", "credential") == b"old", "nothing is deleted"
        assert (folder.path / ".env").read_text() == env

    @pytest.mark.parametrize("source", ["json", "sops-json"])
    def test_nested_json_as_of_sops(self, folder: Folder, source: str) -> None:
        text = json.dumps({"base": "x", "stripe": {"key": "sk", "live": {"n": 7}, "on": True}, "hosts": ["a", {"b": "c"}], "none": []})
        folder.run("import", "--from", source, stdin=text.encode())
        exported = {it["name"]: it["value"] for it in folder.run("export", "--format", "json").json}
        assert exported == {
            "base": "x", "stripe.key": "sk", "stripe.live.n": "7", "stripe.on": "true", "hosts.0": "a", "hosts.1.b": "c",
        }
        encrypted = json.dumps({"a": "ENC[AES256_GCM,...]", "sops": {"mac": "x"}})
        assert "it is still encrypted: sops decrypt" in folder.run(
            "import", "--from", source, stdin=encrypted.encode(), status=12
        ).err

    def test_the_yaml_of_rails(self, folder: Folder) -> None:
        text = (
            "# smtp:\n#   user_name: my-smtp-user\ndefault: &default\n  adapter: postgresql\n  password: 'p: #w'\n"
            "aws:\n  access_key_id: AKIA123\n  secret_access_key: \"a\\tb\"\nproduction:\n  <<: *default\n  password: own\n"
            "keys:\n  - one\n  - |\n    -----BEGIN KEY-----\n    x\nsecret_key_base: 0123456789abcdef\npin: 1234\n"
        )
        (folder.path / "credentials.yml").write_text(text)
        folder.set("pin", "1234")
        would = folder.run("import", "--from", "rails-yaml", "credentials.yml", "--dry-run").err
        assert "nothing was written: it would be 9 added, 0 changed, 1 unchanged" in would and "AKIA" not in would
        folder.run("import", "--from", "rails-yaml", stdin=text.encode())
        exported = {it["name"]: it["value"] for it in folder.run("export", "--format", "json").json}
        assert exported == {
            "default.adapter": "postgresql", "default.password": "p: #w", "aws.access_key_id": "AKIA123",
            "aws.secret_access_key": "a\tb", "production.adapter": "postgresql", "production.password": "own",
            "keys.0": "one", "keys.1": "-----BEGIN KEY-----\nx\n", "secret_key_base": "0123456789abcdef", "pin": "1234",
        }
        assert (folder.path / "credentials.yml").read_text() == text
        again = folder.run("import", "--from", "rails-yaml", "credentials.yml").err
        assert "0 added, 0 changed, 10 unchanged" in again

    @pytest.mark.parametrize(
        ("source", "text", "said"),
        [
            ("dotenv", "A=1\nhunter2\n", "line 2: there is no ="),
            ("dotenv", "A='hunter2", "line 1: the quote is not closed"),
            ("dotenv", "A=1\nB=hunter2$X", "line 2: readers differ"),
            ("dotenv", "A=hunter2\nA=hunter3", "occurs twice"),
            ("json", '{"a": "hunter2"', "line 1: it is not JSON"),
            ("json", '{"a": ["hunter2", null]}', '"a.1" is neither text nor a whole number'),
            ("json", '{"a": 1.10}', '"a" is neither text'),
            ("json", '[{"value": "hunter2"}]', "has no name"),
            ("json", '[{"name": "a", "value": 7}]', "is no text"),
            ("json", '[{"name": "a", "value": "v", "expires": "soon"}]', "expires: write a date"),
            ("json", '"hunter2"', "neither an object nor an array"),
            ("json", '{"": "hunter2"}', "the name is empty"),
            ("json", '{"a": {"b": "hunter2"}, "a.b": "hunter3"}', "occurs twice"),
            ("sops-json", '[{"name": "a", "value": "hunter2"}]', "it is no object, which sops prints"),
            ("sops-json", '"hunter2"', "it is no object, which sops prints"),
            ("sops-json", '{"a": 1.5}', '"a" is neither text'),
            ("rails-yaml", "a: hunter2\nb: [hunter2\n", "it is not YAML"),
            ("rails-yaml", "a: hunter2\na: hunter3\n", "occurs twice"),
            ("rails-yaml", "a: hunter2\nb:\n", '"b" is neither text'),
            ("rails-yaml", "a: hunter2\nb: 1.50\n", "put it between quotes"),
            ("rails-yaml", "a.b: hunter2\na: {b: hunter3}\n", "occurs twice"),
            ("rails-yaml", "- hunter2\n", "it is no mapping of names"),
            ("rails-yaml", "Missing 'config/master.key' to decrypt credentials\n", "it is no mapping of names"),
            ("rails-yaml", "aGk=--aGk=--aGk=\n", "it is still encrypted: bin/rails credentials:show"),
            ("rails-yaml", "# aws:\n", "there is nothing in it"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_is_written(self, folder: Folder, source: str, text: str, said: str) -> None:
        folder.set("kept", "v")
        before = folder.file.read_bytes()
        refused = folder.run("import", "--from", source, stdin=text.encode(), status=12)
        assert said in refused.err and "hunter" not in refused.err
        assert folder.file.read_bytes() == before
        folder.run("import", "--from", source, stdin=b"", status=7)

    def test_a_file_that_is_locked(self, folder: Folder) -> None:
        (folder.path / "credentials.omni.lock").write_text("x")
        folder.run("import", "--from", "dotenv", "--wait", "0", stdin=b"A=1", status=9)


class TestInject:
    def test_a_template_is_filled(self, folder: Folder) -> None:
        folder.set("db", "p{{ omni://x }}w")
        folder.set("key", b"\x00\xff", "--kind", "ssh")
        folder.set("key", "t", "--kind", "token")
        (folder.path / "t").write_text("a: {{ omni://db }}\n{{ other }} {{omni://key?kind=ssh}}\n")
        filled = b"a: p{{ omni://x }}w\n{{ other }} \x00\xff\n"
        assert folder.run("inject", "t").out == filled
        assert folder.run("inject", stdin=(folder.path / "t").read_bytes()).out == filled
        os.umask(0o022)
        folder.run("inject", "t", "--output", "out")
        assert (folder.path / "out").read_bytes() == filled
        assert stat.S_IMODE((folder.path / "out").stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("template", "status", "said"),
        [
            ("{{ omni://none }}", 3, "none"),
            ("{{ omni://key }}", 3, "key"),
            ("{{ omni://a", 12, "is not closed"),
            ("{{ omni://a?color=red }}", 12, "kind, principal and scope"),
        ],
    )
    def test_nothing_is_written_where_something_is_missing(
        self, folder: Folder, template: str, status: int, said: str
    ) -> None:
        for kind in ("ssh", "token"):
            folder.set("key", "v", "--kind", kind)
        folder.set("a", "hunter2")
        refused = folder.run("inject", "--output", "out", stdin=f"{{{{ omni://a }}}} {template}".encode(), status=status)
        assert said in refused.err and "hunter2" not in refused.err
        assert not (folder.path / "out").exists() and refused.out == b""

    def test_a_template_without_credentials_needs_no_secret(self, folder: Folder) -> None:
        assert VARIABLE not in (bare := folder.without_secret()).environment
        assert bare.run("inject", stdin=b"nothing").out == b"nothing"


@pytest.mark.parametrize(
    ("heading", "program", "prints", "said"),
    [
        ("dotenv", "app", "", "sk_live"),
        ("Rails", "bin/rails", "aws:\n  access_key_id: AKIA123\nhosts: [a]\n", "AKIA123"),
        ("sops", "sops", '{"aws": {"key": "x"}}', "aws.key"),
    ],
)
def test_the_page_of_other_stores(folder: Folder, heading: str, program: str, prints: str, said: str) -> None:
    """docs/coming-from.md, with stand-ins for the programs of others."""
    page = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text()
    (block,) = re.findall(rf"^## {heading}\n.*?```sh\n(.*?)```", page, re.S | re.M)
    (folder.path / ".env").write_text("STRIPE_KEY=sk_live\n")
    (path := folder.path / program).parent.mkdir(exist_ok=True)
    (folder.path / "prints").write_text(prints)
    path.write_text("#!/bin/sh\n" + ("cat prints\n" if prints else 'echo "$STRIPE_KEY"\n'))
    path.chmod(0o755)
    environment = folder.environment | {"PATH": f"{folder.path}:{folder.environment['PATH']}"}
    done = subprocess.run(["sh", "-eu", "-c", block], cwd=folder.path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and said in done.stdout, done.stderr
    assert "nothing was written" in done.stderr and " added" in done.stderr
