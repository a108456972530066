"""The Python host: the package as it is shipped, and the sandbox that its module runs in."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import omni_credentials
import pytest
from command import KEY, PATIENCE, Folder
from conftest import PYTHON_HOST, VARIABLE
from omni_credentials import ModuleError, Refusal, Store
from omni_credentials._contract import OPEN
from omni_credentials.module import CONTRACT, Entry, Kek, Module, RawIdentity, Side
from python_files import CACHE, CHEAP, folder

ROOT = Path(__file__).parents[1]
MODULES = Path(os.environ["OMNI_CREDENTIALS_MODULES"])
DEFAULT = MODULES / "xchacha20poly1305.wasm"
STRIPE = RawIdentity(b"stripe", b"api_key", b"app", b'{"all": true}')
DIST = PYTHON_HOST.parent / "dist"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


def hostile(name: str, **options: float) -> Module:
    return Module.load(MODULES / "hostile" / f"{name}.wasm", cache=False, **options)


def open_something(module: Module) -> bytes:
    with module.unlock(b"", Kek(bytes(32))) as keyring:
        return keyring.open(STRIPE, None, b"")


# ---- The package


def test_the_wheel_is_what_is_tested() -> None:
    assert Path(omni_credentials.__file__).parent == PYTHON_HOST / "omni_credentials"
    [wheel] = DIST.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        prefix = "omni_credentials/"
        names = {name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)}
        for name in names:
            assert archive.read(f"omni_credentials/{name}") == (PYTHON_HOST / "omni_credentials" / name).read_bytes()
    sources = {str(it.relative_to(ROOT / "host-python/src/omni_credentials"))
               for it in (ROOT / "host-python/src/omni_credentials").rglob("*") if "__pycache__" not in it.parts}
    assert names == sources | {"modules/xchacha20poly1305.wasm"}
    [sdist] = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("modules/xchacha20poly1305.wasm") for name in archive.getnames())


def test_one_digest() -> None:
    """Byte for byte the module that Postgres and the command run."""
    digest = (MODULES / "xchacha20poly1305.wasm.sha256").read_text().split()[0]
    module = Module.load()
    assert module.digest == digest == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()
    assert module.imports == ["wasi:random/random@0.2.3#get-random-bytes"]
    assert module.describe().contract == CONTRACT


def test_versions() -> None:
    package = importlib.metadata.metadata("omni_credentials")
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert package["Version"] == workspace["package"]["version"]
    assert package["License-Expression"] == workspace["package"]["license"]
    major = workspace["dependencies"]["wasmtime"]["version"].removeprefix("=").split(".")[0]
    assert package.get_all("Requires-Dist") == [
        f"wasmtime<{int(major) + 1},>={major}.0.0",
        "keyring<26,>=25; extra == 'keyring'",
        'pydantic-settings<3,>=2.8; extra == \'settings\'',
    ]
    assert importlib.metadata.version("wasmtime").startswith(f"{major}.")


def test_types() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "host-python/pyproject.toml"),
         "--cache-dir", str(PYTHON_HOST.parent / "mypy"), str(ROOT / "host-python/src")],
        capture_output=True, text=True, check=False, cwd=ROOT / "host-python",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme(folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its snippets run, one after the other."""
    folder.set("stripe", "sk_live", "--kind", "api_key")
    monkeypatch.chdir(folder.path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "host-python/README.md").read_text(), re.S)
    assert len(snippets) == 4
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec", dont_inherit=True), names)
        if "key" in names:
            assert names.pop("key") == b"sk_live" and folder.get("smtp", "--kind", "password") == b"relay-password"
    assert names["value"] == b"relay-password"
    folder.run("get", "smtp", status=3)
    assert names["settings"].stripe_key.get_secret_value() == "sk_live"  # type: ignore[attr-defined]
    assert capsys.readouterr().out.splitlines() == [
        'smtp app {"all":true}',
        "wrong-master-secret check secret=, which has precedence over env_var=, which has precedence over its "
        "_FILE companion",
    ]


def test_the_driver_of_the_matrix(folder: Folder) -> None:
    keyring = Module.load().create_keyring(KEY.encode())
    identity = {"name": "n", "kind": "k", "principal": "p", "scope": '{"a": 1}'}
    common = {"keyring": keyring.keyring.hex(), "kek": keyring.kek.secret.hex(), "identity": identity}
    file = {"file": str(folder.file), "secret": KEY.encode().hex(), "identity": identity}
    requests = [
        {"op": "suite"},
        {"op": "no-such"},
        {"op": "seal", "value": "6162"} | common,
        {"op": "open", "sealed": "00"} | common,
        {"op": "set", "value": "6162"} | file,
        {"op": "get"} | file,
        {"op": "set", "value": None} | file,
        {"op": "get"} | file,
        {"op": "canonical-scope", "scope": b'{"b": 1.0, "a": 2}'.hex()} | common,
    ]
    done = subprocess.run(
        [ROOT / "conformance/hosts/python_host.py", DEFAULT], input="\n".join(json.dumps(it) for it in requests),
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[:2] == [{"ok": 1}, {"unsupported": True}]
    with Module.load().unlock(keyring.keyring, keyring.kek) as keys:
        raw = RawIdentity(b"n", b"k", b"p", b'{"a":1.0}')
        assert keys.open(raw, None, bytes.fromhex(answers[2]["ok"])) == b"ab"
    assert answers[3] == {"refused": {"class": "unknown-version", "line": 0, "found": 0}}
    assert answers[4:8] == [
        {"ok": None}, {"ok": "6162"}, {"ok": None}, {"refused": {"class": "not-found", "line": 0, "found": 0}}
    ]
    assert bytes.fromhex(answers[8]["ok"]) == b'{"a":2,"b":1}'


# ---- Which module


def test_a_pinned_digest(folder: Folder) -> None:
    digest = Module.load().digest
    for module in (None, DEFAULT, DEFAULT.read_bytes(), Module.load()):
        with Store.open(folder.file, module=module, module_digest=digest.upper()) as store:
            assert store.module.digest == digest
        with pytest.raises(ModuleError, match=f"has digest {digest}, but {'0' * 64} is expected"):
            Store.open(folder.file, module=module, module_digest="0" * 64)


def test_what_is_no_module() -> None:
    core = b"\0asm\1\0\0\0"
    for wasm in (b"", b"nonsense", core, DEFAULT.read_bytes()[:-1]):
        with pytest.raises(ModuleError, match="not a WebAssembly component"):
            Module.load(wasm)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imports-a-clock", "imports clock#now, and only wasi:random/random may be imported"),
        ("imports-a-function", "imports run-command, "),
        ("imports-more-of-random", "imports wasi:random/random@0.2.3#get-random-u64, "),
        ("imports-random-of-wasi-0-4", "imports wasi:random/random@0.4.0#get-random-bytes, "),
        ("lacks-a-function", "encryption.keyring.key-of is missing"),
        ("lacks-an-interface", "primitives@1.0.0 is missing"),
        ("has-another-type", "encryption.keyring.key-of has other parameters or another result"),
        ("is-of-another-version", "module-info@1.0.0 is missing"),
    ],
)
def test_modules_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(ModuleError, match=re.escape(message)):
        hostile(name)


# ---- The sandbox


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trap", "failed in encryption.keyring.open: wasm `unreachable` instruction executed"),
        ("trap-in-unlock", "failed in encryption.keyring.unlock: wasm `unreachable`"),
        ("trap-in-start", "failed in its instantiation: wasm `unreachable`"),
        ("trap-in-post-return", "unreachable"),
        ("trap-in-realloc", "unreachable"),
        ("divide-by-zero", "integer divide by zero"),
        ("out-of-bounds", "out of bounds memory access"),
        ("wrong-indirect-call", "indirect call type mismatch"),
        ("recursion", "call stack exhausted"),
        ("recursion-fat", "call stack exhausted"),
        ("memory-bomb", "unreachable"),
        ("memory-bomb-touched", "unreachable"),
        ("memory-at-start", "exceeds memory limits"),
        ("table-bomb", "unreachable"),
        ("entropy-bomb", "asked for 9223372036854775807 random bytes at once"),
        ("list-endless", "out of bounds"),
        ("list-outside", "out of bounds"),
        ("list-wrapping", "out of bounds"),
        ("list-too-long", "more in encryption.keyring.open than the wasmtime package can take"),
        ("result-outside", "out of bounds"),
        ("result-unaligned", "not aligned"),
        ("result-of-no-case", "discriminant 9 out of range"),
        ("error-of-no-case", "discriminant 200 out of range"),
        ("handle-made-up", "unknown handle index"),
        ("handle-dropped-before-return", "unknown handle index"),
    ],
)
def test_modules_that_fail(name: str, message: str) -> None:
    module = hostile(name)
    for _ in range(2):
        with pytest.raises(ModuleError, match=message) as caught:
            open_something(module)
        assert caught.value.code == "trap"


@pytest.mark.parametrize(
    "name",
    ["loop", "loop-in-start", "loop-in-realloc", "loop-in-post-return", "loop-filling-memory",
     "loop-asking-for-entropy"],
)
def test_loops_end(name: str) -> None:
    with pytest.raises(ModuleError, match=r"was stopped in .*: it took more than 0\.2 seconds"):
        open_something(hostile(name, timeout=0.2))


def test_other_exports_that_fail() -> None:
    with pytest.raises(ModuleError, match=r"module-info\.describe: invalid utf-8"):
        hostile("description-not-utf8").describe()
    with pytest.raises(ModuleError, match="a KEK of 5 bytes"):
        hostile("kek-too-short").derive_kek(b"", b"")
    for name in ("entries-endless", "entries-many"):
        with hostile(name).files() as files:
            document = files.create(b"")
            with pytest.raises(ModuleError):
                files.entries(document)
            with pytest.raises(ModuleError, match="an earlier call"):
                files.generation(document)


def test_a_keyring_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module.load()
    made = module.create_keyring(b"a password", CHEAP)
    with module.unlock(made.keyring, made.kek) as keyring:
        sealed = keyring.seal(STRIPE, None, b"value")
        first = keyring._sandbox
        with pytest.raises(Refusal):
            keyring.open(STRIPE, None, sealed[:-1])
        assert keyring.open(STRIPE, None, sealed) == b"value" and keyring._sandbox is first, "a refusal costs no sandbox"
        for packed in (b"", STRIPE.packed()[:-1], STRIPE.packed() + b"\0"):
            with pytest.raises(Refusal) as refusal:
                keyring._call(OPEN, packed, None, sealed, size=len(sealed))
            assert refusal.value.code == "invalid-argument"
        keyring.add_key()
        first.close()
        assert keyring.open(STRIPE, None, sealed) == b"value" and keyring._sandbox is not first
        assert keyring.to_bytes() != made.keyring and keyring.key_of(sealed) == "known", "the added key is remembered"


def test_memory_is_given_back() -> None:
    """A derivation takes 64 MiB and more; nothing of it is kept."""
    code = """
from omni_credentials.module import *
module = Module.load()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
module.create_keyring(b"x", Costs(65536, 1, 1))
before = resident()
for _ in range(3):
    module.create_keyring(b"x", Costs(262144, 1, 1))
print(resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PYTHON_HOST)}, capture_output=True, check=True
    )
    assert int(done.stdout) < 32 << 20


def test_a_person_can_interrupt_a_call() -> None:
    """Ctrl-C ends a call that would go on for an hour; the keyboard's exception is what comes out of it."""
    code = f"""
from omni_credentials.module import *
module = Module.load({str(MODULES / "hostile" / "loop.wasm")!r}, cache=False, timeout=3600.0)
try:
    print("running", flush=True)
    module.derive_kek(b"", b"")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(PYTHON_HOST)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[0] == "interrupted\n"
        assert process.returncode == 0


def test_no_signal_handler_and_no_thread_before_a_call() -> None:
    code = """
import threading
from omni_credentials.module import Module
def handlers():
    masks = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("SigCgt", "SigIgn"))]
    # From 32 on they are the system library's own, for threads.
    return [int(mask, 16) & 0x7fffffff for mask in masks]
before = handlers()
module = Module.load(cache=False)
assert len(list(__import__("os").scandir("/proc/self/task"))) == 1, "a thread runs"
module.generate_master_key()
assert handlers() == before, "a signal is handled"
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PYTHON_HOST)}, check=True)


# ---- The cache of compiled modules


def test_compiled_modules_are_kept_privately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled: list[int] = []
    real = omni_credentials.module.wit.Component

    class Counting(real):  # type: ignore[misc, valid-type]
        def __init__(self, engine: object, wasm: bytes) -> None:
            compiled.append(len(wasm))
            super().__init__(engine, wasm)

    monkeypatch.setattr(omni_credentials.module.wit, "Component", Counting)

    def compiles() -> int:
        compiled.clear()
        assert Module.load(MODULES / "hostile" / "empty.wasm").describe().name == ""
        return len(compiled)

    assert compiles() == 1 and compiles() == 0
    folder = tmp_path / "omni-credentials"
    [artifact] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE(artifact.stat().st_mode) == 0o600
    sound = artifact.read_bytes()
    for unsound in (b"", sound[:-1], sound[:30], sound[:-1] + bytes([sound[-1] ^ 1]), b"x" * 1000):
        artifact.write_bytes(unsound)
        assert compiles() == 1 and artifact.read_bytes()[:50] == sound[:50] and compiles() == 0
    artifact.rename(folder / "moved")
    Module.load(MODULES / "hostile" / "trap.wasm")
    [other] = [path for path in folder.iterdir() if path.name != "moved"]
    (folder / "moved").rename(other)
    compiled.clear()
    Module.load(MODULES / "hostile" / "trap.wasm")
    assert len(compiled) == 1, "the artifact of another module"
    for path, mode in ((artifact, 0o620), (folder, 0o770)):
        assert compiles() <= 1 and compiles() == 0
        path.chmod(mode)
        assert compiles() == 1, "others could have written it"
        path.chmod(0o600 if path == artifact else 0o700)
    target = tmp_path / "elsewhere"
    folder.rename(target)
    folder.symlink_to(target)
    assert compiles() == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("HOME")
    assert compiles() == 1, "without a place for it, nothing is kept"


def test_low_level_records(folder: Folder) -> None:
    """The contract's reconcile, with a table's absence as deletion."""
    module = Module.load()
    made = module.create_keyring(KEY.encode())
    with module.unlock(made.keyring, made.kek) as keyring, module.files() as files:
        sealed = keyring.seal(STRIPE, None, b"1")
        handle = files.unlock(made.keyring, made.kek)
        theirs = files.create(made.keyring)
        files.put(theirs, [Entry(STRIPE, None, sealed, False)])
        ours = files.create(made.keyring)
        ancestor = files.manifest(theirs)
        assert files.matches(theirs, ancestor) and not files.matches(ours, ancestor)
        sides = Side(ours, handle), Side(theirs, handle)
        found = files.reconcile(ancestor, *sides, ours_complete=True)
        assert found.to_ours == [] and found.conflicts == [] and found.wrapping == "same"
        assert [(it.identity.name, it.deleted) for it in found.to_theirs] == [(b"stripe", True)]
        assert files.to_bytes(found.keyring) == files.keyring_bytes(found.document) == made.keyring
        found = files.reconcile(ancestor, *sides)
        assert found.to_theirs == [] and [it.sealed for it in found.to_ours] == [sealed]
        rows = b"".join(len(field).to_bytes(4, "big") + field for field in (*STRIPE, b"", keyring.seal(STRIPE, None, b"2")))
        table = files.table(theirs, rows)
        found = files.reconcile(b"", Side(table, handle), sides[1], ours_complete=True)
        assert [(it.identity.name, it.reason) for it in found.conflicts] == [(b"stripe", "both-changed")]
        assert files.agreed(ancestor, theirs, theirs, 0) == ancestor
        assert files.settled(files.manifest(ours), ancestor, theirs) == ancestor
        changes = files.agreed_changes(ancestor, theirs, theirs, 7)
        assert files.fold(changes + ancestor) == files.agreed(ancestor, theirs, theirs, 7) != ancestor
        assert files.matches(theirs, changes + ancestor)
        same = files.table_changes(theirs, b"".join(len(field).to_bytes(4, "big") + field for field in STRIPE), rows)
        assert [entry.sealed for entry in files.entries(same)] == [entry.sealed for entry in files.entries(table)]
        written = files.create(made.keyring)
        assert files.rewrite(written, handle, 8) == files.write(files.create(made.keyring), handle, 8)
        assert files.generation(written) == 9
        with pytest.raises(Refusal) as caught:
            files.reconcile(b"x", *sides)
        assert caught.value.code == "malformed"
        file = files.write(theirs, handle, 41)
        again = files.parse_unsealed(file)
        assert files.generation(again) == 42 and files.keyring_bytes(again) == made.keyring
        files.put(again, [Entry(STRIPE, None, b"", True)])
        deleted = files.parse(files.write(again, handle, 0))
        assert [entry.deleted for entry in files.entries(deleted)] == [True]
        files.forget_deletions(deleted)
        assert files.entries(deleted) == []
        files.drop(again)
    assert module.canonical(STRIPE._replace(scope=b'{"b": 1.0, "a": 2}')).scope == b'{"a":2,"b":1}'
    other = module.create_keyring(b"another", CHEAP)
    with module.unlock(other.keyring, other.kek) as keyring:
        assert keyring.key_of(sealed) == "unknown"
        with pytest.raises(Refusal):
            keyring.open(STRIPE, None, sealed)
        assert keyring.unite(made.keyring, made.kek) == 1 and keyring.open(STRIPE, None, sealed) == b"1"
        with pytest.raises(Refusal) as caught:
            keyring.unite(made.keyring, other.kek)
        assert caught.value.code == "wrong-master-secret"


def test_a_value_sealed_again_is_the_same_version() -> None:
    module = Module.load()
    made = module.create_keyring(KEY.encode())
    with module.unlock(made.keyring, made.kek) as keyring, module.files() as files:
        sealed = keyring.seal(STRIPE, None, b"1")
        assert keyring.reseal(STRIPE, None, sealed) == sealed and keyring.key_of(sealed) == "current"
        keyring.add_key()
        again = keyring.reseal(STRIPE, None, sealed)
        assert again != sealed and keyring.open(STRIPE, None, again) == b"1"
        assert (keyring.key_of(sealed), keyring.key_of(again)) == ("known", "current")
        document = files.create(keyring.to_bytes())
        files.put(document, [Entry(STRIPE, None, sealed, False)])
        before = files.manifest(document)
        files.put(document, [Entry(STRIPE, None, again, False)])
        assert files.manifest(document) == before
        handle = files.unlock(keyring.to_bytes(), made.kek)
        assert files.retire_keys(document, handle) == 1
        with pytest.raises(Refusal) as caught:
            keyring.reseal(STRIPE, None, sealed[:-1] + bytes([sealed[-1] ^ 1]))
        assert caught.value.code == "not-authentic"
