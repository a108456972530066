"""Scopes are one where Postgres says so: equal under jsonb's `=`, and never otherwise (FORMAT.md, section 6.2)."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from conftest import Database

GOLDEN = json.loads((Path(__file__).parents[1] / "conformance" / "vectors" / "golden" / "scopes.json").read_text())
TABLE = "omni_credentials.encrypted_credentials"
ROUNDS = 150


def test_golden_forms_are_equal_where_postgres_says_so(empty_db: Database) -> None:
    session = empty_db.connect()
    forms = [(case["given"], case["canonical"]) for case in GOLDEN if holds(session, case["given"])]
    assert len(forms) > len(GOLDEN) * 0.9
    equal = 0
    for given, canonical in forms:
        assert session.execute("select %s::jsonb = %s::jsonb", (given, canonical)).fetchone() == (True,), given
        for other, its_canonical in forms:
            same = session.execute("select %s::jsonb = %s::jsonb", (given, other)).fetchone()[0]
            assert same == (canonical == its_canonical), (given, other)
            equal += same
    assert equal > len(forms), "some of them are two spellings of one value"


@pytest.mark.parametrize("seed", range(4))
def test_a_value_opens_under_equal_scopes_only(db: Database, seed: int) -> None:
    """A sealed value is moved to another spelling of its scope, or to a scope nearby. The table takes what opens."""
    chance = random.Random(seed)
    session = db.connect()
    outcomes = {True: 0, False: 0}
    for number in range(ROUNDS):
        value = anything(chance, 3)
        other = value if chance.random() < 0.5 else nearby(chance, value)
        before, after = spelled(chance, value), spelled(chance, other)
        name = f"n{number}"
        try:
            session.execute(
                "insert into omni_credentials.credentials (name, value, scope) values (%s, 'v', %s)", (name, before)
            )
            same = session.execute("select %s::jsonb = %s::jsonb", (before, after)).fetchone()[0]
        except psycopg.errors.ProgramLimitExceeded:
            continue  # more scope than the limits allow
        try:
            session.execute(f"update {TABLE} set scope = %s where name = %s", (after, name))
            opens = True
        except psycopg.errors.CheckViolation:
            opens = False
        assert opens == same, (before, after)
        outcomes[same] += 1
    assert min(outcomes.values()) > ROUNDS // 5, outcomes
    assert db.run("select * from omni_credentials.verify()") == []


def holds(session: psycopg.Connection, scope: str) -> bool:
    """Whether Postgres has room for it: its numbers end at 131,072 digits."""
    try:
        session.execute("select %s::jsonb", (scope,))
    except psycopg.errors.NumericValueOutOfRange:
        return False
    return True


# ---- JSON as it may be written


@dataclass(frozen=True)
class Number:
    """0.ddd… × 10^exponent."""

    negative: bool
    digits: str
    exponent: int


def anything(chance: random.Random, deep: int) -> object:
    kind = chance.choice(["number", "text", "word", "list", "object"] if deep else ["number", "text", "word"])
    if kind == "number":
        digits = "".join(chance.choices("0123456789", k=chance.choice([1, 1, 2, 5, 17, 40])))
        return Number(chance.random() < 0.3, digits, chance.choice([-20, -7, -1, 0, 1, 2, 15, 40]))
    if kind == "text":
        return "".join(chance.choices('ab"\\/\n\t\x7fé\u2028🔑', k=chance.randrange(6)))
    if kind == "word":
        return chance.choice([None, True, False])
    if kind == "list":
        return [anything(chance, deep - 1) for _ in range(chance.randrange(4))]
    return {anything_short(chance): anything(chance, deep - 1) for _ in range(chance.randrange(4))}


def anything_short(chance: random.Random) -> str:
    return "".join(chance.choices("ab\"é🔑", k=chance.randrange(3)))


def nearby(chance: random.Random, value: object) -> object:
    """A value that is easily taken for this one. It can be an equal one: whether it is, Postgres says."""
    match value:
        case Number(negative, digits, exponent):
            changed = {"negative": not negative, "digits": digits + chance.choice("019"), "exponent": exponent + 1}
            field = chance.choice(list(changed))
            return replace(value, **{field: changed[field]})
        case str():
            return chance.choice([value + " ", value[1:], value.upper(), None])
        case [first, *rest]:
            return chance.choice([[nearby(chance, first), *rest], rest, [value], [*rest, first]])
        case {**members} if members:
            key = chance.choice(list(members))
            without = {other: member for other, member in members.items() if other != key}
            changed = {**members, key: nearby(chance, members[key])}
            return chance.choice([without, changed, {**without, key + "a": members[key]}])
        case bool():
            return chance.choice([not value, str(value).lower(), None])
        case None:
            return chance.choice([False, "null", [], {}])
        case _:
            return chance.choice([None, [value]])


def spelled(chance: random.Random, value: object) -> str:
    """JSON text of a value, one of many."""
    space = chance.choice(["", "", " ", "\n"])
    match value:
        case Number(negative, digits, exponent):
            return "-" * negative + spelled_number(chance, digits, exponent)
        case str():
            return '"' + "".join(spelled_character(chance, character) for character in value) + '"'
        case list():
            return "[" + space + f"{space},".join(spelled(chance, item) for item in value) + "]"
        case dict():
            members = [(key, spelled(chance, member)) for key, member in value.items()]
            chance.shuffle(members)
            if members and chance.random() < 0.3:
                members.insert(0, (members[-1][0], "0"))  # the last of two equal keys counts
            return "{" + ",".join(f"{space}{spelled(chance, key)}{space}:{member}" for key, member in members) + "}"
        case _:
            return json.dumps(value)


def spelled_number(chance: random.Random, digits: str, exponent: int) -> str:
    point = chance.randint(-2, len(digits) + 2)
    digits += "0" * chance.choice([0, 0, 1, 3])
    whole, fraction = digits[: max(point, 0)].lstrip("0") or "0", "0" * max(-point, 0) + digits[max(point, 0) :]
    whole += "0" * max(point - len(digits), 0) if whole != "0" else ""
    text = whole + ("." + fraction if fraction else "")
    shift = exponent - point
    return text if shift == 0 else f"{text}{chance.choice('eE')}{chance.choice(['', '+']) if shift > 0 else ''}{shift}"


def spelled_character(chance: random.Random, character: str) -> str:
    if character in '"\\\n\t' or chance.random() < 0.2:
        units = character.encode("utf-16-be")
        pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
        escapes = "".join("\\u" + (pair if chance.random() < 0.5 else pair.upper()) for pair in pairs)
        return {'"': '\\"', "\\": "\\\\", "\n": "\\n", "/": "\\/"}.get(character, escapes)
    return character
