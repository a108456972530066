"""The Python host: what is wrong with a file is the same class of failure as for the command; nothing is touched."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from command import KEY, Folder
from omni_credentials import (
    AmbiguousCredential,
    CredentialNotFound,
    CredentialsError,
    DamagedFile,
    FileError,
    FileLocked,
    Identity,
    InvalidInput,
    MasterSecretConflict,
    MergeConflict,
    MissingInput,
    ModuleError,
    NeedsNewer,
    Refusal,
    SecretCommandError,
    Store,
    UnreadableValue,
    WrongMasterSecret,
    errors,
)
from omni_credentials._lock import Lock
from python_files import folder

ROOT = Path(__file__).parents[1]
HOSTILE = ROOT / "conformance" / "vectors" / "hostile" / "xchacha20poly1305"
# The command's exit status for each class; docs/cli.md says what they mean.
STATUS: dict[type[CredentialsError], int] = {
    CredentialNotFound: 3,
    AmbiguousCredential: 3,
    FileError: 4,
    DamagedFile: 5,
    NeedsNewer: 6,
    MissingInput: 7,
    WrongMasterSecret: 8,
    FileLocked: 9,
    MergeConflict: 10,
    MasterSecretConflict: 10,
    InvalidInput: 12,
    ModuleError: 13,
    UnreadableValue: 14,
    SecretCommandError: 17,
}


def test_every_class_has_the_status_that_is_documented() -> None:
    classes = {it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, CredentialsError)}
    assert classes == {CredentialsError, Refusal, *STATUS}
    documentation = (ROOT / "host-python" / "README.md").read_text()
    rows = [line for line in documentation.splitlines() if line.startswith("| `")]
    documented = {}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        names = cells[0].replace("(a `KeyError`)", "").split("`")
        documented |= {name: int(cells[2]) for name in names if name[:1].isupper()}
    documented.pop("ValueError")
    assert documented == {kind.__name__: status for kind, status in STATUS.items()}


def test_names_of_refusals_are_those_of_the_contract() -> None:
    cases = (ROOT / "wit" / "types.wit").read_text().split("enum error {")[1].split("}")[0]
    lines = [line.strip() for line in cases.splitlines()]
    assert [line.rstrip(",") for line in lines if line and not line.startswith("//")] == list(errors.EXPLANATIONS)


def test_reasons_of_conflicts_are_those_of_the_contract() -> None:
    cases = (ROOT / "wit" / "file-store.wit").read_text().split("enum reason {")[1].split("}")[0]
    lines = [line.strip() for line in cases.splitlines()]
    assert [line.rstrip(",") for line in lines if line and not line.startswith("//")] == list(errors.CONFLICTS)


def test_messages_are_those_of_the_command() -> None:
    source = (ROOT / "host" / "src" / "error.rs").read_text()
    for code, (explanation, unit) in errors.EXPLANATIONS.items():
        found = f' found "{unit}"' if unit else ""
        assert f'"{code}" "{explanation}"{found},' in source, code


CASES = [it for it in json.loads((HOSTILE / "manifest.json").read_text())["cases"] if it["name"].startswith("file_")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hostile_files(folder: Folder, case: dict[str, object]) -> None:
    hostile = (HOSTILE / f"{case['name']}.credentials").read_bytes()
    folder.file.write_bytes(hostile)
    for change in (lambda: Store.open(folder.file), lambda: Store.open(folder.file).set("x", "y")):
        with pytest.raises(CredentialsError) as caught:
            change()
    error = caught.value
    said = folder.run("verify", status=STATUS[type(error)]).err
    if not isinstance(error, WrongMasterSecret):
        # Where the keyring is sound, the secret is another's; that comes before the seal.
        assert (error.code, error.line, error.found) == (case["class"], case["line"], case["found"])
    assert said.removeprefix("error: ").splitlines()[0].endswith(str(error).removeprefix(f"{folder.file}: "))
    assert error.hint and f"hint: {error.hint}" in error.__notes__
    assert folder.file.read_bytes() == hostile and folder.leftovers() == []


def test_errors_reach_other_processes(folder: Folder) -> None:
    (folder.path / "credentials.omni.lock").write_text("x")
    identity = Identity("n", "k", "p", "{}")
    failures = [
        lambda: Store.open(folder.path / "none"),
        lambda: Lock(str(folder.file), 0),
        lambda: Store.open(folder.file)["none"],
        lambda: _raise(MergeConflict("both", {identity: "both-changed"})),
        lambda: _raise(MasterSecretConflict("file")),
        lambda: _raise(AmbiguousCredential("two", [identity], hint="which")),
        lambda: _raise(UnreadableValue("it", identity, Refusal("not-authentic", 7, 0))),
    ]
    for failure in failures:
        with pytest.raises(CredentialsError) as caught:
            failure()
        copy = pickle.loads(pickle.dumps(caught.value))
        assert type(copy) is type(caught.value) and str(copy) == str(caught.value)
        assert vars(copy) == vars(caught.value) and copy.__notes__ == caught.value.__notes__


def _raise(error: CredentialsError) -> None:
    raise error


def test_an_altered_file_is_noticed(folder: Folder) -> None:
    folder.set("a", "1", "--kind", "api_key")
    sound = folder.file.read_text()
    folder.file.write_text(sound.replace('kind "api_key"', 'kind "api_kex"'))
    with pytest.raises(DamagedFile, match="seal does not match") as caught:
        Store.open(folder.file)
    assert caught.value.code == "seal-mismatch" and f"git checkout HEAD -- {folder.file}" in caught.value.hint
    folder.run("verify", status=5)


def test_a_file_that_is_damaged_meanwhile(folder: Folder) -> None:
    with Store.open(folder.file) as store:
        store["a"] = "1"
        folder.file.write_bytes(folder.file.read_bytes()[:-10])
        damaged = folder.file.read_bytes()
        for call in (store.save, store.reload, store.rotate_key, lambda: store.rotate_master_secret(KEY)):
            with pytest.raises(DamagedFile):
                call()
        assert folder.file.read_bytes() == damaged and folder.leftovers() == [] and store["a"] == b"1"


@pytest.mark.parametrize(
    ("fault", "name"),
    [("not-found", "none"), ("no-folder", "none/file"), ("is-directory", "."), ("not-regular", "pipe"),
     ("link-loop", "loop"), ("no-folder", "credentials.omni/file"), ("too-long", "long")],
)
def test_files_that_cannot_be_read(folder: Folder, fault: str, name: str) -> None:
    os.mkfifo(folder.path / "pipe")
    (folder.path / "loop").symlink_to("loop")
    with open(folder.path / "long", "wb") as long:
        long.truncate((64 << 20) + 1)
    path = folder.path / name
    with pytest.raises(FileError) as caught:
        Store.open(path)
    assert caught.value.fault == fault and caught.value.path == str(path)
    said = folder.run("list", "--file", str(path), status=4).err.splitlines()[0]
    assert said.removeprefix("error: ").removeprefix(f"{path}: ") == str(caught.value).removeprefix(f"{path}: ")


def test_another_suite_needs_its_module(folder: Folder) -> None:
    modules = Path(os.environ["OMNI_CREDENTIALS_MODULES"])
    other = folder.path / "other.omni"
    with Store.create(other, module=modules / "aes256gcmsiv.wasm") as store:
        store["a"] = "1"
        store.save()
    with pytest.raises(NeedsNewer, match=r"another cipher suite \(suite 2\)") as caught:
        Store.open(other)
    assert caught.value.found == 2 and "module=FILE" in caught.value.hint
    folder.run("get", "a", "--file", str(other), status=6)
    module = str(modules / "aes256gcmsiv.wasm")
    assert folder.run("get", "a", "--file", str(other), "--module", module).out == b"1"
    with Store.open(other, module=module) as again:
        assert again["a"] == b"1" and again.module.describe().suite.id == 2


def test_a_wrong_secret(folder: Folder) -> None:
    before = folder.file.read_bytes()
    with pytest.raises(WrongMasterSecret, match="not the one this keyring was made with") as caught:
        Store.open(folder.file, "a wrong one")
    assert caught.value.code == "wrong-master-secret" and "wrong one" not in str(caught.value) + str(caught.value.hint)
    with pytest.raises(WrongMasterSecret, match="damaged generated key"):
        Store.open(folder.file, KEY[:-1])
    assert folder.file.read_bytes() == before
