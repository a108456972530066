"""The golden and hostile vectors, through a reader that was written from FORMAT.md alone.

When OMNI_CREDENTIALS_SEALED names a folder, what this reader sealed is left there for the core to
open (conformance/conformance/independent.rs does that).
"""

import json
import os
from pathlib import Path

import pytest
from omni_credentials_format import (
    SUITES,
    File,
    Identity,
    Keyring,
    Refused,
    Sealed,
    canonical_scope,
    kek,
    manifest,
    parse_file,
)
from omni_credentials_reconcile import Manifest, agreed, manifest_of, reconcile

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
SUITE_NAMES = [suite.name for suite in SUITES.values()]
unhex = bytes.fromhex


def golden(name):
    return json.loads((VECTORS / "golden" / f"{name}.json").read_text())


def identity(vector):
    return Identity(*(vector[name] for name in ("name", "kind", "principal", "scope")))


def expiry(sealed):
    return {} if sealed is None or sealed.expires is None else {"expires": sealed.expires}


def opened_by(ring, who, sealed):
    """The value in hexadecimal, or why it does not open."""
    try:
        return None if sealed is None else ring.open(who, sealed).hex()
    except Refused as refused:
        return refused.name


def keyrings(vectors):
    return {ring["name"]: Keyring(unhex(ring["keyring"]), unhex(ring["kek"])) for ring in vectors["keyrings"]}


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_keyrings(suite):
    vectors = golden(suite)["keyrings"]
    assert len(vectors) == 7
    for ring in vectors:
        assert kek(unhex(ring["secret"]), unhex(ring["keyring"])) == unhex(ring["kek"]), ring["name"]
        assert Keyring(unhex(ring["keyring"]), unhex(ring["kek"])).keys


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_values(suite):
    vectors = golden(suite)
    rings = keyrings(vectors)
    assert len(vectors["values"]) == 17
    for vector in vectors["values"]:
        ring, value = rings[vector["keyring"]], unhex(vector["value"])
        expires = vector.get("expires")
        assert ring.open(identity(vector), Sealed(unhex(vector["sealed"]), expires)) == value
        assert ring.open(identity(vector), ring.seal(identity(vector), value, expires)) == value


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_files(suite):
    vectors = golden(suite)
    rings = keyrings(vectors)
    assert len(vectors["files"]) == 5
    for vector in vectors["files"]:
        data = (VECTORS / "golden" / vector["file"]).read_bytes()
        ring = rings[vector["keyring"]]
        file = parse_file(data)
        file.verify(ring)
        assert file.generation == vector["generation"]
        opened = [
            {**vars(who), **expiry(sealed), "value": opened_by(ring, who, sealed)}
            for who, sealed in file.records.items()
        ]
        assert opened == vector["records"]
        # The same state has the same bytes, whichever host writes it.
        file.generation -= 1
        assert file.write(ring) == data


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_manifests(suite):
    """Those of the ancestors of the reconciliations: of the file they all start from, or not known."""
    base = parse_file((VECTORS / "golden" / f"{suite}-reconcile-base.credentials").read_bytes())
    ancestors = {vector["ancestor"] for vector in golden(suite)["reconciliations"]}
    assert ancestors == {"", manifest(base).hex()}


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_reseal(suite):
    """What a rotation wrote is what this reader makes of the same values."""
    ring = keyrings(golden(suite))["generated"]
    kek_bytes = unhex(next(it["kek"] for it in golden(suite)["keyrings"] if it["name"] == "generated"))
    base, rotated = (
        parse_file((VECTORS / "golden" / f"{suite}-reconcile-{name}.credentials").read_bytes())
        for name in ("base", "rotated")
    )
    new = Keyring(rotated.keyring, kek_bytes)
    assert new.current != ring.current
    assert {who: new.reseal(who, sealed) for who, sealed in base.records.items()} == rotated.records
    assert manifest(rotated)[29:] == manifest(base)[29:]


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_reconciliations(suite):
    vectors = golden(suite)
    rings = {ring["name"]: unhex(ring["kek"]) for ring in vectors["keyrings"]}
    assert len(vectors["reconciliations"]) >= 60
    for vector in vectors["reconciliations"]:
        case = f"{vector['name']}, complete {vector['ours_complete']}, prefer {vector['prefer']}"
        ancestor = unhex(vector["ancestor"])
        files, opened = [], []
        for side, ring in (("ours", "our_keyring"), ("theirs", "their_keyring")):
            file = parse_file((VECTORS / "golden" / vector[side]).read_bytes())
            files.append(file)
            opened.append(vector[ring] and Keyring(file.keyring, rings[vector[ring]]))
        ours, theirs = files
        for file, ring, other in ((ours, *opened), (theirs, *reversed(opened))):
            try:
                file.verify(ring or other)
            except Refused as refused:
                assert vector["result"] == {"Err": refused.name}, case
                break
        else:
            try:
                found = reconcile(
                    ancestor, ours, opened[0], theirs, opened[1], vector["ours_complete"], vector["prefer"]
                )
            except Refused as refused:
                assert vector["result"] == {"Err": refused.name}, case
                continue
            expected = vector["result"]["Ok"]
            records = {
                who.name: (opened_by(found.keyring, who, sealed), expiry(sealed))
                for who, sealed in found.file.records.items()
            }
            assert records == {
                it["name"]: (it["value"], {"expires": it["expires"]} if "expires" in it else {})
                for it in expected["records"]
            }, case
            assert [who.name for who in found.to_ours] == expected["to_ours"], case
            assert [who.name for who in found.to_theirs] == expected["to_theirs"], case
            assert [[who.name, reason] for who, reason in found.conflicts] == expected["conflicts"], case
            assert found.outcome == expected["wrapping"], case
            assert manifest_of(found).hex() == expected["manifest"], case
            now = agreed(ancestor, ours, theirs, theirs.generation)
            assert now.hex() == expected["agreed"], case
            changes = bytes.fromhex(expected["changes"])
            if ancestor:
                assert Manifest.parse(ancestor).changes_to(Manifest.parse(now)) == changes, case
                assert Manifest.parse(changes + ancestor).write() == now, case
            else:
                assert changes == b"", case


def test_scopes():
    vectors = golden("scopes")
    assert len(vectors) > 40
    for vector in vectors:
        assert canonical_scope(vector["given"].encode()).decode() == vector["canonical"]


def attempt(area, data, manifest):
    ring, key = unhex(manifest["keyring"]), unhex(manifest["kek"])
    match area:
        case "keyring":
            Keyring(data, key)
        case "value":
            Keyring(ring, key).open(identity(manifest["identity"]), Sealed(data))
        case "secret":
            kek(data, ring)
        case "scope":
            canonical_scope(data)
        case "file":
            file = parse_file(data)
            file.verify(Keyring(file.keyring, key))


def hostile_cases():
    for suite in SUITE_NAMES:
        manifest = json.loads((VECTORS / "hostile" / suite / "manifest.json").read_text())
        for case in manifest["cases"]:
            yield pytest.param(suite, manifest, case, id=f"{suite}-{case['name']}")


@pytest.mark.parametrize(("suite", "manifest", "case"), list(hostile_cases()))
def test_hostile(suite, manifest, case):
    area = case["name"].split("_")[0]
    ending = "credentials" if area == "file" else "bin"
    data = (VECTORS / "hostile" / suite / f"{case['name']}.{ending}").read_bytes()
    if case["name"].endswith("_suite_other"):
        # This reader has both suites, so that another number is only another shape to it.
        with pytest.raises(Refused):
            attempt(area, data, manifest)
        return
    with pytest.raises(Refused) as refusal:
        attempt(area, data, manifest)
    found = refusal.value
    assert (found.name, found.line, found.found) == (case["class"], case["line"], case["found"])


@pytest.mark.parametrize("suite", SUITE_NAMES)
def test_leaves_what_it_sealed(suite, tmp_path):
    folder = Path(os.environ.get("OMNI_CREDENTIALS_SEALED", tmp_path))
    vectors = golden(suite)
    ring_vector = vectors["keyrings"][0]
    ring = keyrings(vectors)[ring_vector["name"]]
    file = File(unhex(ring_vector["keyring"]), ring.suite)
    for vector in vectors["values"]:
        who = identity(vector)
        who = Identity(who.name, who.kind, who.principal, canonical_scope(who.scope.encode()).decode())
        file.records[who] = ring.seal(who, unhex(vector["value"]), vector.get("expires"))
    file.records[Identity("deleted by another", "token", "app", "{}")] = None
    data = file.write(ring)
    parse_file(data).verify(ring)
    (folder / f"{suite}.credentials").write_bytes(data)
