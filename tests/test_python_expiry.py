"""The Python host: when credentials expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from command import Folder
from omni_credentials import InvalidInput, Store
from python_files import folder, store

SOON = datetime(2027, 1, 15, 8, tzinfo=UTC)


def test_it_is_kept_with_the_value(folder: Folder, store: Store) -> None:
    store.set("a", "1", expires=SOON + timedelta(microseconds=5))
    store.save()
    assert "  expires 2027-01-15T08:00:00Z\n" in folder.file.read_text()
    folder.set("b", "2", "--expires", "2028-02-29")
    assert store.reload()
    assert store.credential("a").expires == SOON and store["a"] == b"1"
    assert store.credential("b").expires == datetime(2028, 2, 29, tzinfo=UTC)
    store.set("a", "1", expires=SOON)
    assert store.changed == [], "the same value until the same second"
    store.rotate_key()
    assert store.credential("a").expires == SOON
    # Two hours east of it.
    store.set("b", "2", expires=SOON.astimezone(timezone(timedelta(hours=2))))
    store["a"] = "1"
    store.save()
    assert "expires" not in folder.run("show").text.splitlines()[1]
    assert store.credential("a").expires is None and store.credential("b").expires == SOON
    assert folder.get("b") == b"2"


def test_what_is_due(store: Store) -> None:
    for name, days in (("late", 100), ("soon", 10), ("past", -1)):
        store.set(name, "v", expires=timedelta(days=days))
    store["never"] = "v"
    assert [identity.name for _, identity in store.expiring(timedelta(days=30))] == ["past", "soon"]
    (at, _), = store.expiring(timedelta(0))
    assert timedelta(hours=23) < datetime.now(UTC) - at < timedelta(hours=25)


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        (datetime(2027, 1, 15), "no time zone"),
        (datetime(1969, 12, 31, tzinfo=UTC), "before 1970"),
        (timedelta(days=3_000_000), "after the year 9999"),
        (1_800_000_000, "a datetime or a timedelta"),
    ],
)
def test_what_it_cannot_be(store: Store, expires: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        store.set("a", "1", expires=expires)
    assert store.changed == []
