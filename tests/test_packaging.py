"""What can be tried of the packages without root: their files and control data, install.sh, the formula, the digests.

packaging/test-deb.sh tries the Debian packages in a system of their own, as root.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import MASTER_KEY, VARIABLE, new_server
from packages import PACKAGING, TARGET, VERSION, run
from releases import ROOT

MAJOR = os.environ["OMNI_PG_MAJOR"]
DEBIAN = f"postgresql-{MAJOR}-omni-credentials"
RELEASED = {file.name for file in (ROOT / "host-pg" / "upgrade").glob("*.sql")}
# The update from the older extension of the same name is to our first version.
FROM_OLDER = {name for name in RELEASED if "--0.2.0--" in name} or {f"omni_credentials--0.2.0--{VERSION}.sql"}
EXTENSION = {"omni_credentials.control", f"omni_credentials--{VERSION}.sql"} | RELEASED | FROM_OLDER
MODULES = {f"{name}.wasm{suffix}" for name in ("aes256gcmsiv", "xchacha20poly1305") for suffix in ("", ".sha256")}


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def pack(folder: Path, *kinds: str) -> None:
    done = run(PACKAGING / "postgres.sh", *kinds, OMNI_PACKAGE_FOLDER=str(folder), OMNI_PACKAGE_QUICK="1")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """What packaging/postgres.sh makes where the tools for it are, in a folder that the server's account can read."""
    kinds = ["archive"]
    kinds += ["image"] if int(MAJOR) >= 18 else []
    kinds += ["debian"] if shutil.which("dpkg-shlibdeps") else []
    kinds += ["redhat"] if shutil.which("rpmbuild") else []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        os.chmod(path, 0o755)
        pack(Path(path), *kinds)
        yield Path(path)


class TestArchive:
    def test_the_same_bytes_every_time(self, made: Path, tmp_path: Path) -> None:
        name = f"omni_credentials-{VERSION}-pg{MAJOR}-linux-{platform.machine()}"
        pack(tmp_path, "archive")
        first, second = (folder / f"{name}.tar.gz" for folder in (made, tmp_path))
        assert first.read_bytes() == second.read_bytes()
        with tarfile.open(first) as archive:
            files = {member.name.removeprefix(f"{name}/") for member in archive if member.isfile()}
        expected = {f"share/extension/{file}" for file in EXTENSION} | {f"modules/{file}" for file in MODULES}
        assert files == expected | {"lib/omni_credentials.so", "LICENSE", "THIRD-PARTY", "README.md", "CHANGELOG.md"}


@pytest.mark.skipif(not shutil.which("dpkg-shlibdeps"), reason="dpkg-dev is not installed")
class TestDebian:
    @pytest.fixture
    def packages(self, made: Path) -> dict[str, Path]:
        return {file.name.split("_")[0]: file for file in made.glob("*.deb")}

    def test_control_data(self, packages: dict[str, Path]) -> None:
        package = packages[DEBIAN]
        fields = ("Version", "Depends", "Replaces")
        field = {name: output("dpkg-deb", "-f", package, name).strip() for name in fields}
        assert field["Version"] == f"{VERSION}-1"
        assert re.match(rf"postgresql-{MAJOR}, libc6 \(>= [\d.]+\)", field["Depends"])
        assert field["Replaces"] == f"postgresql-{MAJOR}-omnigres"
        # Nothing runs when it is installed or removed.
        with tempfile.TemporaryDirectory() as control:
            subprocess.run(["dpkg-deb", "-e", package, control], check=True)
            assert {file.name for file in Path(control).iterdir()} == {"control", "md5sums"}

    def test_files(self, packages: dict[str, Path], tmp_path: Path) -> None:
        subprocess.run(["dpkg-deb", "-x", packages[DEBIAN], tmp_path], check=True)
        share, documents = f"usr/share/postgresql/{MAJOR}", f"usr/share/doc/{DEBIAN}"
        expected = {f"{share}/extension/{file}" for file in EXTENSION}
        expected |= {f"{share}/omni_credentials/modules/{file}" for file in MODULES}
        names = ("copyright", "changelog.gz", "changelog.Debian.gz", "THIRD-PARTY.gz")
        expected |= {f"{documents}/{file}" for file in names}
        library = f"usr/lib/postgresql/{MAJOR}/lib/omni_credentials.so"
        files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
        assert files == expected | {library}
        assert not [file for file in tmp_path.rglob("*") if file.stat().st_mode & 0o022]

    def test_symbols_are_apart(self, packages: dict[str, Path], tmp_path: Path) -> None:
        for name in (DEBIAN, f"{DEBIAN}-dbgsym"):
            subprocess.run(["dpkg-deb", "-x", packages[name], tmp_path], check=True)
        library = tmp_path / f"usr/lib/postgresql/{MAJOR}/lib/omni_credentials.so"
        build_id = re.search(r"Build ID: (\w+)", output("readelf", "-n", library))[1]
        symbols = tmp_path / f"usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
        assert not re.search(r"\.symtab|\.debug_", output("readelf", "-SW", library))
        assert {".symtab", ".debug_line"} <= set(output("readelf", "-SW", symbols).split())


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not installed")
def test_redhat(made: Path) -> None:
    (package,) = made.glob(f"omni_credentials_{MAJOR}-{VERSION}-1.*.rpm")
    top = f"/usr/pgsql-{MAJOR}"
    files = set(output("rpm", "-qlp", package).split())
    expected = {f"{top}/share/extension/{file}" for file in EXTENSION}
    expected |= {f"{top}/share/omni_credentials/modules/{file}" for file in MODULES}
    assert expected | {f"{top}/lib/omni_credentials.so"} == {
        file for file in files if file.startswith(top) and Path(file).suffix
    }
    assert f"omnigres_{MAJOR}" in output("rpm", "-qp", "--conflicts", package).split()
    assert f"postgresql{MAJOR}-server" in output("rpm", "-qp", "--requires", package).split()
    assert output("rpm", "-qp", "--scripts", package) == ""


@pytest.mark.skipif(int(MAJOR) < 18, reason="Postgres finds extensions in other folders since 18")
class TestImage:
    """The folder that an extension image of CloudNativePG is built from."""

    @pytest.fixture
    def image(self, made: Path) -> Path:
        (image,) = made.glob(f"image-pg{MAJOR}-*")
        return image

    def test_the_dockerfile(self, image: Path) -> None:
        instructions = re.findall(r"^([A-Z]+) (.*)$", (image / "Dockerfile").read_text(), re.M)
        assert instructions[0] == ("FROM", "scratch")
        copied = [words.split() for name, words in instructions if name == "COPY"]
        assert sorted(copied) == [["lib", "/lib"], ["licenses", "/licenses"], ["share", "/share"]]
        assert {file.name for file in image.iterdir()} == {"Dockerfile", "lib", "licenses", "share"}
        assert {file.name for file in (image / "share" / "extension").iterdir()} == EXTENSION
        assert {file.name for file in (image / "licenses").iterdir()} == {"LICENSE", "THIRD-PARTY"}

    def test_as_the_operator_mounts_it(self, image: Path) -> None:
        server = new_server("image", {
            "extension_control_path": f"$system:{image}/share",
            "dynamic_library_path": f"$libdir:{image}/lib",
            "shared_preload_libraries": "omni_credentials",
        })
        try:
            server.start({VARIABLE: MASTER_KEY})
            script = "create extension omni_credentials; select omni_credentials.set_credential('a', 'b');" \
                     "select omni_credentials.get_credential('a');"
            done = subprocess.run(
                server.program("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"), input=script,
                env=server.client_environment(), capture_output=True, text=True, check=False,
            )
            assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["b"]), done.stderr
            mapped = (Path("/proc") / str(server.running()) / "maps").read_text()
            assert f"{image}/lib/omni_credentials.so" in mapped
        finally:
            server.remove()


def test_the_pages_and_the_example_name_the_same_image_and_secret() -> None:
    example = (ROOT / "docs" / "examples" / "cloudnative-pg.yaml").read_text()
    (image,) = re.findall(r"reference: (\S+)", example)
    secret, key = re.search(r"name: (\S+)\n\s+items:\n\s+- key: (\S+)", example).groups()
    for page in ("README.md", "docs/kubernetes.md"):
        text = (ROOT / page).read_text()
        assert image.endswith(f":{VERSION}-pg18") and f"docker build -t {image} image-pg18-amd64" in text
        assert f"kubectl create secret generic {secret} --from-file={key}=omni.key" in text


def test_binstall_finds_the_archive() -> None:
    manifest = tomllib.loads((ROOT / "host-cli" / "Cargo.toml").read_text())
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    values = {
        "repo": workspace["repository"], "version": VERSION, "target-arch": platform.machine(),
        "archive-suffix": ".tar.gz", "bin": manifest["bin"][0]["name"], "binary-ext": "",
    }
    filled = {
        name: re.sub(r"\{ ([\w-]+) \}", lambda found: values[found[1]], text)
        for name, text in manifest["package"]["metadata"]["binstall"].items()
    }
    name = f"omni-credentials-{VERSION}-linux-{platform.machine()}"
    # The same place that install.sh and the formula name.
    releases = "https://github.com/omnigres/omni_credentials/releases/download"
    assert filled["pkg-url"] == f"{releases}/v{VERSION}/{name}.tar.gz"
    assert filled["bin-dir"] == f"{name}/omni-credentials"
    for template in ("install.sh.in", "omni-credentials.rb.in"):
        assert "@HOMEPAGE@/releases/download/v@VERSION@" in (PACKAGING / "command" / template).read_text()


class TestInstallScript:
    """install.sh fetches the command's archive, and trusts nothing but the digest that it carries."""

    NAME = f"omni-credentials-{VERSION}-linux-{platform.machine()}"

    @pytest.fixture
    def release(self, tmp_path: Path) -> Path:
        """What a release has: an archive like that of ./just package, and the script that names its digest."""
        tree = tmp_path / "tree" / self.NAME
        (tree / "completions").mkdir(parents=True)
        (tree / "man").mkdir()
        shutil.copy(TARGET / "release" / "omni-credentials", tree)
        for name in ("omni-credentials.bash", "_omni-credentials", "omni-credentials.fish"):
            (tree / "completions" / name).write_text("# completions\n")
        (tree / "man" / "omni-credentials.1").write_text(".TH\n")
        release = tmp_path / "release"
        release.mkdir()
        with tarfile.open(release / f"{self.NAME}.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(tree, self.NAME)
        done = run(PACKAGING / "finish.sh", str(release))
        assert done.returncode == 0, done.stderr
        return release

    def install(self, release: Path, home: Path) -> subprocess.CompletedProcess[str]:
        return run("sh", str(release / "install.sh"), HOME=str(home), OMNI_CREDENTIALS_RELEASE=release.as_uri())

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_installs(self, release: Path, tmp_path: Path) -> None:
        for _ in range(2):
            done = self.install(release, tmp_path / "home")
            assert done.returncode == 0, done.stderr
        program = tmp_path / "home" / ".local" / "bin" / "omni-credentials"
        assert run(program, "--version").stdout == f"omni-credentials {VERSION}\n"
        assert (tmp_path / "home/.local/share/man/man1/omni-credentials.1").exists()
        assert "add it there" in done.stdout

    def test_installs_what_wget_fetches(self, release: Path, tmp_path: Path) -> None:
        """On a machine without curl, from a web server."""
        tools = tmp_path / "tools"
        tools.mkdir()
        needed = "sh uname mktemp rm wget sha256sum cut tar gzip mkdir dirname cp chmod mv"
        for name in needed.split():
            if not (program := shutil.which(name)):
                pytest.skip(f"{name} is not installed")
            (tools / name).symlink_to(program)
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(release))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
            threading.Thread(target=web.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{web.server_port}"
            done = run(
                "sh", str(release / "install.sh"), HOME=str(tmp_path / "home"), OMNI_CREDENTIALS_RELEASE=address,
                PATH=str(tools), no_proxy="*",
            )
            web.shutdown()
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "home/.local/bin/omni-credentials").stat().st_mode & 0o111

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_refuses_another_file(self, release: Path, tmp_path: Path) -> None:
        archive = release / f"{self.NAME}.tar.gz"
        archive.write_bytes(archive.read_bytes() + b"\0")
        done = self.install(release, tmp_path / "home")
        assert done.returncode == 1
        assert "is not the file that was released" in done.stderr
        assert not (tmp_path / "home").exists()

    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    def test_nothing_to_fetch(self, release: Path, tmp_path: Path) -> None:
        (release / f"{self.NAME}.tar.gz").unlink()
        done = self.install(release, tmp_path / "home")
        assert (done.returncode, done.stderr.count("cannot be fetched")) == (1, 1)
        assert not (tmp_path / "home").exists()

    def test_another_machine(self, release: Path, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (uname := tmp_path / "bin" / "uname").write_text("#!/bin/sh\necho Plan9\n")
        uname.chmod(0o755)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = run("sh", str(release / "install.sh"), HOME=str(tmp_path), PATH=path)
        assert done.returncode == 1
        assert done.stderr == f"install: there is no build of version {VERSION} for Plan9 on Plan9\n"

    def test_digests(self, release: Path) -> None:
        """SHA256SUMS and the Homebrew formula name the same file."""
        digest = hashlib.sha256((release / f"{self.NAME}.tar.gz").read_bytes()).hexdigest()
        done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=release, check=False)
        assert done.returncode == 0
        formula = (release / "omni-credentials.rb").read_text()
        assert f'sha256 "{digest}"' in formula
        if ruby := shutil.which("ruby"):
            assert output(ruby, "-c", release / "omni-credentials.rb") == "Syntax OK\n"
        assert not re.search(r"@[A-Z0-9_]+@", formula + (release / "install.sh").read_text())


def test_what_packs_renews_the_digests() -> None:
    """Whatever order the recipes run in, SHA256SUMS has what is in the folder."""
    recipes = re.split(r"^(?=[a-z])", (ROOT / "justfile").read_text(), flags=re.M)
    packing = [recipe for recipe in recipes if re.search(r"packaging/(postgres|command|pgxn|sbom)\.sh", recipe)]
    assert [recipe.split(":")[0] for recipe in packing] == ["package", "package-sources"]
    for recipe in packing:
        steps = re.findall(r"^    @(packaging/\S+)", recipe, re.M)
        assert steps[-1] == "packaging/finish.sh"
