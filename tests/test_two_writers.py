"""Two servers that replicate to each other, and both write: nothing is lost, whatever both do at the same time."""

from __future__ import annotations

import re

import pytest
from conftest import VARIABLE, refused
from file_stores import contents, in_threads, mirror
from node_pairs import KEYRINGS, NEW_VARIABLE, READ, VIEW, Node, Pair, pair, servers  # noqa: F401 # fixtures
from standbys import eventually


def test_both_make_the_first_keyring(pair: Pair) -> None:
    pair.apart()
    pair.here.put("a", "of here")
    pair.there.put("b", "of there")
    pair.together()
    pair.agree({"a": "of here", "b": "of there"})
    assert pair.here.run(KEYRINGS) == pair.there.run(KEYRINGS)
    assert len(pair.here.run(KEYRINGS)) == 2
    assert pair.here.run("select unlocks, keyrings, problem from omni_credentials.status()") == [(True, 2, None)]
    # Each changes and deletes what the other made, and both go on with one of the two keyrings.
    pair.here.put("b", "changed here")
    pair.there.run(f"delete from {VIEW} where name = 'a'")
    pair.agree({"b": "changed here"})
    # The history has both, wherever it was made.
    for node in pair.both:
        assert node.run("select name, convert_from(value, 'UTF8'), deleted from omni_credentials.credential_versions order by 1") == [
            ("a", "of here", True), ("b", "of there", False)]
    # A new key is one for both: what each could open is in one keyring.
    versions = "select substr(value, 11, 24) from omni_credentials.encrypted_credentials order by name"
    before = pair.here.run(versions)
    assert pair.here.run("select omni_credentials.rotate_key()") == [(1,)]
    assert pair.here.run(versions) == before, "a rotation makes no new version of a credential"
    pair.agree({"b": "changed here"})
    assert pair.here.run(KEYRINGS) == pair.there.run(KEYRINGS)
    assert len(pair.there.run(KEYRINGS)) == 1
    assert pair.there.run("select omni_credentials.restore_credential('a')") == [(1,)]
    pair.agree({"a": "of here", "b": "changed here"})


def test_at_once_while_replication_runs(pair: Pair) -> None:
    def write(node: Node, prefix: str) -> None:
        with node.db.connect() as session:
            for number in range(30):
                session.execute("select omni_credentials.set_credential(%s, %s)", (f"{prefix}{number:02}", f"v{number}"))

    in_threads(lambda: write(pair.here, "h"), lambda: write(pair.there, "t"))
    pair.agree({f"{prefix}{number:02}": f"v{number}" for prefix in "ht" for number in range(30)})


@pytest.mark.parametrize("there", ["rotate_key()", "use_module()"])
@pytest.mark.parametrize("here", ["rotate_key()", "use_module()"])
def test_both_change_keys(pair: Pair, here: str, there: str) -> None:
    """Each seals all values again, the other's as well: rows may differ in their seals afterwards, and all open."""
    pair.here.put("a", "1")
    pair.agree({"a": "1"})
    pair.there.put("b", "2")
    pair.agree({"a": "1", "b": "2"})
    pair.apart()
    pair.here.run(f"select omni_credentials.{here}")
    pair.here.put("c", "3")
    pair.there.run(f"select omni_credentials.{there}")
    pair.there.put("d", "4")
    pair.together()
    expected = {"a": "1", "b": "2", "c": "3", "d": "4"}
    pair.agree(expected)
    for node in pair.both:
        node.run("select omni_credentials.rotate_key()")
        pair.agree(expected)
    for node in pair.both:
        node.run("select omni_credentials.use_module()")
        pair.settled()
        node.run("select omni_credentials.prune_keyrings()")
        pair.agree(expected)
        assert len(node.run(KEYRINGS)) == 1


def test_a_keyring_that_is_pruned_too_early(pair: Pair) -> None:
    """What is sealed with it had not arrived where it was pruned. It stays where that is."""
    pair.here.put("a", "1")
    pair.agree({"a": "1"})
    pair.apart()
    pair.there.put("b", "2")
    pair.here.run("select omni_credentials.use_module()")
    pair.here.run("select omni_credentials.prune_keyrings()")
    log = pair.there.server.log.stat().st_size
    pair.together()
    assert pair.there.read() == {"a": "1", "b": "2"} and pair.there.sound()
    kept = re.search("kept keyring .* of schema omni_credentials that another server removed", pair.there.server.log.read_text()[log:])
    assert kept
    with refused("42704", "sealed with a key"):
        pair.here.read()
    # Sealed again where its key is, it opens on both.
    pair.there.run("select omni_credentials.rotate_key()")
    pair.agree({"a": "1", "b": "2"})
    assert pair.there.run("select omni_credentials.prune_keyrings()") == [(1,)]
    pair.agree({"a": "1", "b": "2"})


def test_a_pruned_keyring_goes_where_nothing_needs_it(pair: Pair) -> None:
    """Sessions that had it in hand seal with the one that took its place."""
    pair.here.put("a", "1")
    pair.agree({"a": "1"})
    session = pair.there.db.connect()
    assert session.execute(READ).fetchall() == [("a", "1")]
    pair.here.run("select omni_credentials.use_module()")
    pair.settled()
    pair.here.run("select omni_credentials.prune_keyrings()")
    pair.settled()
    assert len(pair.there.run(KEYRINGS)) == 1
    session.execute("select omni_credentials.set_credential('b', '2')")
    pair.agree({"a": "1", "b": "2"})


def test_another_master_secret(pair: Pair) -> None:
    """Each server has its own settings. One after the other is told, and neither is without its values for good."""
    pair.here.put("a", "1")
    pair.there.put("b", "2")
    pair.agree({"a": "1", "b": "2"})
    pair.here.run(f"select omni_credentials.rotate_master_secret('{NEW_VARIABLE}')")
    pair.settled()
    # What opens the values there stays until there is told. Nothing is sealed meanwhile.
    assert pair.there.read() == {"a": "1", "b": "2"}
    with refused("28P01"):
        pair.there.put("c", "3")
    assert pair.there.run("select unlocks from omni_credentials.status()") == [(False,)]
    pair.there.run(f"select omni_credentials.rotate_master_secret('{NEW_VARIABLE}')")
    pair.agree({"a": "1", "b": "2"})
    pair.here.run("select omni_credentials.rotate_key()")
    pair.agree({"a": "1", "b": "2"})
    assert len(pair.here.run(KEYRINGS)) == 1 and pair.here.run(KEYRINGS) == pair.there.run(KEYRINGS)
    # Both at once, one of them with a new key as well.
    pair.apart()
    pair.here.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
    pair.there.run("select omni_credentials.rotate_key()")
    pair.there.put("c", "3")
    pair.together()
    with refused("28P01"):
        pair.here.read()
    pair.there.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
    pair.agree({"a": "1", "b": "2", "c": "3"})
    pair.here.run("select omni_credentials.rotate_key()")
    pair.agree({"a": "1", "b": "2", "c": "3"})
    assert len(pair.here.run(KEYRINGS)) == 1


def test_a_secret_that_the_other_lacks(pair: Pair) -> None:
    """By mistake: what each sealed itself can still be read, and what is wrong is told."""
    pair.there.run(f"select omni_credentials.rotate_master_secret('{NEW_VARIABLE}')")
    pair.apart()
    pair.here.put("a", "1")
    pair.there.put("b", "2")
    pair.together()
    for node, name, value in ((pair.here, "a", "1"), (pair.there, "b", "2")):
        assert node.run(f"select convert_from(value, 'UTF8') from {VIEW} where name = %s", name) == [(value,)]
        with refused("28P01"):
            node.read()
        with refused("28P01"):
            node.put("c", "3")
        assert node.run("select unlocks from omni_credentials.status()") == [(False,)]
    pair.there.run(f"select omni_credentials.rotate_master_secret('{VARIABLE}')")
    pair.agree({"a": "1", "b": "2"})


def test_file_stores_of_both(pair: Pair) -> None:
    """A file carries one keyring, with the keys of both."""
    files = [node.server.data / "two.credentials" for node in pair.both]
    try:
        pair.apart()
        for node, file, name in zip(pair.both, files, "ab", strict=True):
            node.put(name, f"of {name}")
            mirror(node.db, file)
        pair.together()
        expected = {"a": b"of a", "b": b"of b"}
        for node, file in zip(pair.both, files, strict=True):
            node.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
            assert contents(node.server, file) == expected
        pair.agree({"a": "of a", "b": "of b"})
        # Both have made one keyring of two, at the same time. That ends.
        for round in range(4):
            for node, file in zip(pair.both, files, strict=True):
                node.put("c", f"{round}")
                pair.settled()
                node.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
                assert contents(node.server, file) == expected | {"c": f"{round}".encode()}
            pair.agree({"a": "of a", "b": "of b", "c": f"{round}"})
        before = pair.here.run(KEYRINGS)
        for node, file in zip(pair.both, files, strict=True):
            node.put("d", "last")
            pair.settled()
            node.run("select omni_credentials.credential_file_store_sync(%s)", str(file))
        assert pair.here.run(KEYRINGS) == before == pair.there.run(KEYRINGS)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def test_one_that_makes_no_keys(pair: Pair) -> None:
    pair.there.run("alter system set omni_credentials.create_keys = off")
    pair.there.run("select pg_reload_conf()")
    try:
        eventually(lambda: pair.there.run("select current_setting('omni_credentials.create_keys', true)") == [("off",)])
        with refused("55000", "makes no keys", hint="create_keys"):
            pair.there.put("b", "2")
        pair.here.put("a", "1")
        pair.settled()
        pair.there.put("b", "2")
        pair.agree({"a": "1", "b": "2"})
        assert len(pair.here.run(KEYRINGS)) == 1
    finally:
        pair.there.run("alter system reset omni_credentials.create_keys")
        pair.there.run("select pg_reload_conf()")

