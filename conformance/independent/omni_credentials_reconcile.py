"""Reconciling two files, from FORMAT.md §8 and nothing else. See omni_credentials_format.py."""

from __future__ import annotations

import copy
import struct
from dataclasses import dataclass, field

from omni_credentials_format import (
    File,
    Identity,
    Keyring,
    Refused,
    Sealed,
    StoredKeyring,
    lp,
    manifest,
    parse_value,
    short,
)

NEXT = 1 << 64  # the generation of the next write


@dataclass
class Manifest:
    wrapping: bytes
    generation: int
    versions: dict[bytes, bytes]

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """With the changes that stand before it."""
        changes = []
        while data[:4] == b"OCMC":
            if data[4:5] != b"\x01":
                raise Refused("unknown-version")
            if len(data) < 37:
                raise Refused("malformed")
            generation, changed, gone = struct.unpack(">QII", data[21:37])
            end = 37 + 32 * changed
            entries = [data[at : at + 32] for at in range(37, min(end, len(data)), 32)]
            names = [data[at : at + 16] for at in range(end, min(end + 16 * gone, len(data)), 16)]
            if len(data) < end + 16 * gone:
                raise Refused("malformed")
            for each in ([entry[:16] for entry in entries], names):
                if each != sorted(set(each)):
                    raise Refused("malformed")
            changes.append((data[5:21], generation, entries, names))
            data = data[end + 16 * gone :]
        found = cls.parse_plain(data)
        for wrapping, generation, entries, names in changes:
            found.wrapping, found.generation = wrapping, generation
            found.versions.update((entry[:16], entry[16:]) for entry in entries)
            for name in names:
                found.versions.pop(name, None)
        return found

    @classmethod
    def parse_plain(cls, data: bytes) -> Manifest:
        if data[:4] != b"OCMF":
            raise Refused("malformed")
        if data[4:5] != b"\x01":
            raise Refused("unknown-version")
        entries = [data[at : at + 32] for at in range(29, len(data), 32)]
        names = [entry[:16] for entry in entries]
        if len(data) < 29 or names != sorted(set(names)) or any(len(entry) != 32 for entry in entries):
            raise Refused("malformed")
        versions = {entry[:16]: entry[16:] for entry in entries}
        return cls(data[5:21], struct.unpack(">Q", data[21:29])[0], versions)

    def write(self) -> bytes:
        entries = (name + version for name, version in sorted(self.versions.items()))
        return b"OCMF\x01" + self.wrapping + struct.pack(">Q", self.generation) + b"".join(entries)

    def changes_to(self, after: Manifest) -> bytes:
        if self == after:
            return b""
        changed = {name: version for name, version in after.versions.items() if self.versions.get(name) != version}
        gone = self.versions.keys() - after.versions.keys()
        counts = struct.pack(">QII", after.generation, len(changed), len(gone))
        entries = [name + version for name, version in sorted(changed.items())] + sorted(gone)
        return b"OCMC\x01" + after.wrapping + counts + b"".join(entries)


@dataclass
class Result:
    file: File
    keyring: Keyring
    outcome: str
    wrapping: bytes
    to_ours: list[Identity] = field(default_factory=list)
    to_theirs: list[Identity] = field(default_factory=list)
    conflicts: list[tuple[Identity, str]] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """What a side says of an identity: live, deleted, lacking, or lacking with a deletion that may be forgotten."""

    what: str
    sealed: Sealed | None = None
    changed: bool = False

    @property
    def lacks(self) -> bool:
        return self.what in ("lacking", "forgotten")


def wrapping_of(file: File) -> bytes:
    stored = StoredKeyring(file.keyring)
    return short(stored.salt + stored.commitment)


def name_of(identity: Identity) -> bytes:
    return short(b"".join(map(lp, identity.fields())))


def version_of(sealed: Sealed, file: File) -> bytes:
    return short(parse_value(sealed.data, file.suite)[1])


# ---------------------------------------------------------------------------- §8.2

def unite(
    before: bytes | None, ours: File, our_ring: Keyring | None, theirs: File, their_ring: Keyring | None, prefer: str
) -> tuple[Keyring, str, bytes]:
    """The keyring of both, whose wrapping it has, and that wrapping. A keyring that is not at hand is None."""
    mine, yours = wrapping_of(ours), wrapping_of(theirs)
    if mine == yours:
        outcome, ours_leads = "same", our_ring is not None
    elif before == mine:
        outcome, ours_leads = "theirs", False
    elif before == yours:
        outcome, ours_leads = "ours", True
    else:
        outcome, ours_leads = "conflict", prefer == "ours" or (prefer == "neither" and their_ring is None)
    lead, other = (our_ring, their_ring) if ours_leads else (their_ring, our_ring)
    if lead is None:
        raise Refused("wrong-master-secret")
    united = copy.copy(lead)
    united.keys, united.ranks = dict(lead.keys), dict(lead.ranks)
    if other is None:
        stored = StoredKeyring((theirs if ours_leads else ours).keyring)
        if any(slot[1] not in lead.keys for slot in stored.slots):
            raise Refused("unknown-key")
    else:
        united.keys |= other.keys
        united.ranks |= other.ranks
    united.current = max(united.ranks.values())[1]
    return united, outcome, mine if ours_leads else yours


# ---------------------------------------------------------------------------- §8.3

def state(
    file: File, identity: Identity, ancestor: Manifest | None, complete: bool, put_back: bool
) -> State:
    before = ancestor.versions.get(name_of(identity)) if ancestor else None
    if identity in file.records:
        sealed = file.records[identity]
        if sealed is not None:
            return State("live", sealed, before != version_of(sealed, file))
        if put_back and before is not None:
            return State("lacking")
        return State("deleted", changed=before is not None)
    if complete and before is not None:
        return State("deleted", changed=True)
    since = file.deletions_since
    unseen = before is not None and since > ancestor.generation if ancestor else since > 0
    return State("forgotten" if unseen and not complete else "lacking")


def decide(
    identity: Identity, a: State, b: State, known: bool, prefer: str, ring: Keyring, file: File
) -> tuple[State, str | None]:
    preferred = b if prefer == "theirs" else a
    if (a.what, b.what) in (("forgotten", "live"), ("live", "forgotten")):
        if prefer == "neither":
            return (a if a.what == "live" else b), "deletion-forgotten"
        return (preferred if preferred.what == "live" else State("deleted")), "deletion-forgotten"
    if a.lacks or b.lacks:
        return (b if a.lacks else a), None
    if a.what == b.what == "deleted":
        return a, None
    if a.what == b.what == "live":
        return decide_values(identity, a, b, known, preferred, ring, file)
    if not known:
        return preferred, "ancestor-unknown"
    if not a.changed or not b.changed:
        return (b if not a.changed else a), None
    return preferred, "ours-deleted" if a.what == "deleted" else "theirs-deleted"


def decide_values(
    identity: Identity, a: State, b: State, known: bool, preferred: State, ring: Keyring, file: File
) -> tuple[State, str | None]:
    if a.sealed == b.sealed:
        return a, None
    same = version_of(a.sealed, file) == version_of(b.sealed, file)
    if known and not same and not (a.changed and b.changed):
        return (b if not a.changed else a), None
    opened = []
    for side in (a, b):
        try:
            opened.append(ring.open(identity, side.sealed))
        except Refused:
            opened.append(None)
    if None not in opened and opened[0] == opened[1] and a.sealed.expires == b.sealed.expires:
        newest = [ring.ranks[parse_value(side.sealed.data, file.suite)[0]] for side in (a, b)]
        if newest[0] != newest[1]:
            return (a if newest[0] > newest[1] else b), None
        return min((a, b), key=lambda side: side.sealed), None
    if same and opened.count(None) == 1:
        return (a if opened[0] is not None else b), None
    return preferred, "unreadable" if same and opened == [None, None] else "both-changed"


def tombstone(ours: File, theirs: File, identity: Identity) -> int | None:
    """The generation of a deletion; None where both sides know and have forgotten it."""
    forgotten = max(ours.deletions_since, theirs.deletions_since)
    mine, yours = ours.deletions.get(identity), theirs.deletions.get(identity)
    if mine is not None and yours is not None:
        found = max(mine, yours)
    elif mine is None and yours is None:
        found = NEXT
    else:
        found, other = (mine, theirs) if mine is not None else (yours, ours)
        if other.records.get(identity) is not None and found <= max(other.generation, forgotten):
            found = NEXT
    return None if found <= forgotten else found


def reconcile(
    ancestor: bytes, ours: File, our_ring: Keyring | None, theirs: File, their_ring: Keyring | None,
    complete: bool, prefer: str,
) -> Result:
    known = Manifest.parse(ancestor) if ancestor else None
    ring, outcome, wrapping = unite(known and known.wrapping, ours, our_ring, theirs, their_ring, prefer)
    file = File(b"", ours.suite, max(ours.generation, theirs.generation))
    file.deletions_since = max(ours.deletions_since, theirs.deletions_since)
    result = Result(file, ring, outcome, wrapping)
    put_back = complete and prefer != "theirs" and known is not None and theirs.generation < known.generation
    for identity in sorted(ours.records.keys() | theirs.records.keys(), key=Identity.fields):
        a = state(ours, identity, known, complete, False)
        b = state(theirs, identity, known, False, put_back)
        winner, reason = decide(identity, a, b, known is not None, prefer, ring, ours)
        if reason:
            result.conflicts.append((identity, reason))
        if winner.lacks:
            continue
        if winner.what == "deleted":
            generation = tombstone(ours, theirs, identity)
            if generation is None:
                continue
            file.deletions[identity] = generation
        file.records[identity] = winner.sealed
        for side, news, is_complete in ((a, result.to_ours, complete), (b, result.to_theirs, False)):
            gone = side.what == "deleted" or (side.lacks and is_complete)
            if not (gone if winner.sealed is None else side.sealed == winner.sealed):
                news.append(identity)
    return result


def manifest_of(result: Result) -> bytes:
    live = {
        name_of(identity): version_of(sealed, result.file)
        for identity, sealed in result.file.records.items() if sealed is not None
    }
    return Manifest(result.wrapping, result.file.generation, live).write()


# ---------------------------------------------------------------------------- §8.5

def agreed(ancestor: bytes, ours: File, theirs: File, generation: int) -> bytes:
    versions = dict(Manifest.parse(ancestor).versions) if ancestor else {}
    for identity in ours.records.keys() | theirs.records.keys():
        mine, yours = ours.records.get(identity), theirs.records.get(identity)
        if mine is not None and mine == yours:
            versions[name_of(identity)] = version_of(mine, ours)
        elif mine is None and identity in theirs.records and yours is None:
            versions.pop(name_of(identity), None)
    return Manifest(Manifest.parse(manifest(theirs)).wrapping, generation, versions).write()
