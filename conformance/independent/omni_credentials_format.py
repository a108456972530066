"""A reader and writer of the formats of omni_credentials, from FORMAT.md and nothing else.

It shares no code with the crypto modules and calls none: the primitives are those of PyNaCl,
cryptography and argon2-cffi. It exists to show that FORMAT.md is enough, so it is written for
clarity, and it does not wipe secrets. Section numbers are those of FORMAT.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import struct
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings as sodium
from nacl.exceptions import CryptoError

LABEL = b"omni_credentials/v1/"


class Refused(Exception):
    """A refusal by its name; `found` and `line` where it has them."""

    def __init__(self, name: str, found: int = 0, line: int = 0):
        super().__init__(name)
        self.name, self.found, self.line = name, found, line


# ---------------------------------------------------------------------------- §1, §2

def lp(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part


def hkdf(key: bytes, info: bytes, salt: bytes = b"") -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


@dataclass(frozen=True)
class Suite:
    number: int
    name: str
    nonce: int

    def seal(self, key: bytes, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        if self.number == 1:
            return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)
        return AESGCMSIV(key).encrypt(nonce, plaintext, aad)

    def open(self, key: bytes, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
        try:
            if self.number == 1:
                return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
            return AESGCMSIV(key).decrypt(nonce, sealed, aad)
        except (CryptoError, InvalidTag) as error:
            raise Refused("not-authentic") from error


SUITES = {1: Suite(1, "xchacha20poly1305", 24), 2: Suite(2, "aes256gcmsiv", 12)}


class Reader:
    def __init__(self, data: bytes):
        self.rest = data

    def take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise Refused("malformed")
        head, self.rest = self.rest[:count], self.rest[count:]
        return head

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


def read_header(reader: Reader) -> Suite:
    """Version and suite, as keyrings, values and seals begin."""
    version = reader.number(1)
    if version != 1:
        raise Refused("unknown-version", version)
    number = reader.number(1)
    if number not in SUITES:
        raise Refused("unknown-suite", number)
    return SUITES[number]


# ---------------------------------------------------------------------------- §3

def kek(secret: bytes, keyring: bytes) -> bytes:
    if not 1 <= len(secret) <= 4096:
        raise Refused("invalid-master-secret")
    generated = parse_generated(secret) if secret.startswith(b"omck1_") else None
    stored = StoredKeyring(keyring)
    if (generated is None) != (stored.costs is not None):
        raise Refused("wrong-master-secret")
    if generated is not None:
        key = hkdf(generated, LABEL + b"kek", stored.salt)
    else:
        memory, passes, lanes = stored.costs
        key = hash_secret_raw(secret, stored.salt, passes, memory, lanes, 32, Type.ID, version=0x13)
    stored.check_kek(key)
    return key


def parse_generated(secret: bytes) -> bytes:
    if not re.fullmatch(rb"omck1_[A-Za-z0-9_-]{48}", secret):
        raise Refused("invalid-master-secret")
    raw = base64.urlsafe_b64decode(secret[6:])
    key, check = raw[:32], raw[32:]
    if not hmac.compare_digest(check, hashlib.sha256(b"omck1_" + key).digest()[:4]):
        raise Refused("invalid-master-secret")
    return key


# ---------------------------------------------------------------------------- §4

class StoredKeyring:
    """Steps 1 and 2 of the checks: what can be said without a KEK."""

    def __init__(self, data: bytes):
        reader = Reader(data)
        if reader.take(4) != b"OCKR":
            raise Refused("malformed")
        self.suite = read_header(reader)
        kdf = reader.number(1)
        self.costs = None
        if kdf == 1:
            self.costs = memory, passes, lanes = tuple(reader.number(4) for _ in range(3))
            if not (1 <= lanes <= 4 and 1 <= passes <= 16 and 8 * lanes <= memory <= 262_144):
                raise Refused("kdf-out-of-bounds")
        elif kdf != 2:
            raise Refused("malformed")
        self.salt, self.commitment = reader.take(16), reader.take(32)
        count = reader.number(2)
        if not 1 <= count <= 256:
            raise Refused("malformed")
        sizes = (8, 32, self.suite.nonce, 48)
        self.slots = [(reader.number(4), *(reader.take(size) for size in sizes)) for _ in range(count)]
        ids = [slot[1] for slot in self.slots]
        if ids != sorted(set(ids)) or any(slot[0] == 0 for slot in self.slots) or len(reader.rest) != 32:
            raise Refused("malformed")
        self.current = max(slot[:2] for slot in self.slots)[1]
        self.body, self.mac = data[:-32], data[-32:]

    def check_kek(self, key: bytes) -> None:
        if not hmac.compare_digest(hkdf(key, LABEL + b"kek-commitment"), self.commitment):
            raise Refused("wrong-master-secret")


class Keyring:
    def __init__(self, data: bytes, key: bytes):
        stored = StoredKeyring(data)
        self.suite, self.current, self.data = stored.suite, stored.current, data
        stored.check_kek(key)
        mac = hmac.digest(hkdf(key, LABEL + b"keyring-mac"), stored.body, "sha256")
        if not hmac.compare_digest(mac, stored.mac):
            raise Refused("keyring-tampered")
        number = bytes([self.suite.number])
        wrapping = hkdf(key, LABEL + b"slot" + number)
        self.keys = {}
        self.ranks = {slot[1]: slot[:2] for slot in stored.slots}
        for rank, key_id, commitment, nonce, wrapped in stored.slots:
            aad = lp(LABEL + b"slot") + lp(number + rank.to_bytes(4, "big") + key_id + commitment)
            try:
                data_key = self.suite.open(wrapping, nonce, aad, wrapped)
            except Refused as refused:
                raise Refused("keyring-tampered") from refused
            if not hmac.compare_digest(hkdf(data_key, LABEL + b"key-commitment" + key_id), commitment):
                raise Refused("keyring-tampered")
            self.keys[key_id] = data_key

    def key(self, label: bytes, key_id: bytes) -> bytes:
        if key_id not in self.keys:
            raise Refused("unknown-key")
        return hkdf(self.keys[key_id], LABEL + label + bytes([self.suite.number]) + key_id)

    # ------------------------------------------------------------------------ §5

    def seal(
        self, identity: Identity, value: bytes, expires: int | None = None, nonce: bytes | None = None
    ) -> Sealed:
        if len(value) > 1_048_576:
            raise Refused("value-too-large", len(value))
        header = bytes([1, self.suite.number]) + self.current
        padded = value + b"\x80"
        padded += bytes(-len(padded) % 32)
        nonce = nonce or os.urandom(self.suite.nonce)
        key = self.key(b"value", self.current)
        aad = value_aad(header, identity, expires)
        return Sealed(header + nonce + self.suite.seal(key, nonce, aad, padded), expires)

    def open(self, identity: Identity, sealed: Sealed) -> bytes:
        key_id, nonce, ciphertext = parse_value(sealed.data, self.suite)
        header = bytes([1, self.suite.number]) + key_id
        aad = value_aad(header, identity, sealed.expires)
        padded = self.suite.open(self.key(b"value", key_id), nonce, aad, ciphertext)
        value = padded.rstrip(b"\0")
        if not value.endswith(b"\x80") or len(padded) - len(value) >= 32:
            raise Refused("malformed")
        return value[:-1]

    def reseal(self, identity: Identity, sealed: Sealed) -> Sealed:
        """Under the current key with the nonce that it has: the same version."""
        value = self.open(identity, sealed)
        key_id, nonce, _ = parse_value(sealed.data, self.suite)
        return sealed if key_id == self.current else self.seal(identity, value, sealed.expires, nonce)


class Sealed(NamedTuple):
    """A sealed value, and the expiry that it is bound to."""

    data: bytes
    expires: int | None = None


def parse_value(sealed: bytes, suite: Suite) -> tuple[bytes, bytes, bytes]:
    reader = Reader(sealed)
    found = read_header(reader)
    if found != suite:
        raise Refused("unknown-suite", found.number)
    key_id, nonce = reader.take(8), reader.take(suite.nonce)
    length = len(reader.rest) - 16
    if not 32 <= length <= 1_048_608 or length % 32:
        raise Refused("malformed")
    return key_id, nonce, reader.rest


def value_aad(header: bytes, identity: Identity, expires: int | None) -> bytes:
    if expires is not None and expires > 253_402_300_799:
        raise Refused("invalid-expiry", expires)
    expiry = b"" if expires is None else expires.to_bytes(8, "big")
    return b"".join(map(lp, (LABEL + b"value", header, *identity.fields(), expiry)))


# ---------------------------------------------------------------------------- §6

@dataclass(frozen=True)
class Identity:
    name: str
    kind: str
    principal: str
    scope: str

    def fields(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The fields as they are bound: checked, the scope in canonical form."""
        texts = []
        for label, most in (("name", 512), ("kind", 63), ("principal", 255)):
            text = getattr(self, label).encode()
            if not 1 <= len(text) <= most or b"\0" in text:
                raise Refused(f"invalid-{label}")
            texts.append(text)
        return (*texts, canonical_scope(self.scope.encode()))


def canonical_scope(scope: bytes) -> bytes:
    if len(scope) > 16_384:
        raise Refused("scope-too-large", len(scope))
    try:
        text = scope.decode()
        value = json.JSONDecoder(
            parse_int=Number, parse_float=Number, parse_constant=no_constant, object_pairs_hook=Members
        ).decode(text)
        if text.startswith("\ufeff"):
            raise ValueError("byte order mark")
        canonical = write_json(value, 0).encode()
    except (ValueError, RecursionError) as error:
        raise Refused("invalid-scope") from error
    if len(canonical) > 2_048:
        raise Refused("scope-too-large", len(canonical))
    return canonical


class Number(str):
    """A number as it is written."""


class Members(list):
    """The members of an object, in order."""


def no_constant(name: str):
    raise ValueError(name)  # NaN and Infinity are no JSON


def write_json(value, depth: int) -> str:
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case Number():
            return canonical_number(value)
        case str():
            return write_string(value)
    if depth == 32:
        raise ValueError("too deep")
    if isinstance(value, Members):
        members = {}
        for key, item in value:
            members[key.encode()] = f"{write_string(key)}:{write_json(item, depth + 1)}"
        return "{" + ",".join(members[key] for key in sorted(members)) + "}"
    return "[" + ",".join(write_json(item, depth + 1) for item in value) + "]"


ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def write_string(text: str) -> str:
    text.encode()  # a lone surrogate is refused here
    if "\0" in text:
        raise ValueError("U+0000")
    return '"' + "".join(ESCAPES.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text) + '"'


def canonical_number(text: str) -> str:
    sign, integer, fraction, exponent = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?", text).groups()
    written = integer + (fraction or "")
    digits = written.strip("0")
    if not digits:
        return "0"
    leading = len(written) - len(written.lstrip("0"))
    e = len(integer) - leading + int(exponent or 0)
    n = len(digits)
    if e > 131_072 or n - e > 16_383:
        raise ValueError("out of range")
    if not -6 < e <= 21:
        return f"{sign}{digits[0]}{'.' + digits[1:] if n > 1 else ''}e{e - 1:+d}"
    if e <= 0:
        return f"{sign}0.{'0' * -e}{digits}"
    if e < n:
        return f"{sign}{digits[:e]}.{digits[e:]}"
    return sign + digits + "0" * (e - n)


# ---------------------------------------------------------------------------- §7

EPOCH = datetime(1970, 1, 1)


@dataclass
class File:
    keyring: bytes
    suite: Suite
    generation: int = 0
    # Identity (scope in canonical form) to sealed value, or None for a tombstone.
    records: dict[Identity, Sealed | None] = field(default_factory=dict)
    # When each tombstone was written; the next write's are not in it.
    deletions: dict[Identity, int] = field(default_factory=dict)
    deletions_since: int = 0
    body: bytes = b""
    seal: bytes = b""

    def verify(self, keyring: Keyring) -> None:
        key = keyring.key(b"file", self.seal[2:10])
        if not hmac.compare_digest(keyed_hash(key, self.body), self.seal[10:]):
            raise Refused("seal-mismatch")

    def write(self, keyring: Keyring) -> bytes:
        lines = ["omni-credentials 1", "keyring", *base64_lines(self.keyring, "  ")]
        for identity in sorted(self.records, key=Identity.fields):
            sealed = self.records[identity]
            name, kind, principal = map(write_string, (identity.name, identity.kind, identity.principal))
            lines += ["", f"{'deleted' if sealed is None else 'credential'} {name}"]
            lines += [f"  kind {kind}", f"  principal {principal}", f"  scope {identity.scope}"]
            if sealed is None:
                lines += [f"  generation {self.deletions.get(identity, self.generation + 1)}"]
                continue
            if sealed.expires is not None:
                lines += [f"  expires {write_time(sealed.expires)}"]
            lines += ["  value", *base64_lines(sealed.data, "    ")]
        lines += ["", "end", f"  records {len(self.records)}", f"  generation {self.generation + 1}"]
        lines += [f"  deletions-since {self.deletions_since}", ""]
        body = "\n".join(lines).encode()
        seal = bytes([1, keyring.suite.number]) + keyring.current
        seal += keyed_hash(keyring.key(b"file", keyring.current), body)
        return body + b"  seal " + base64.b64encode(seal) + b"\n"


def keyed_hash(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32, key=key).digest()


def base64_lines(data: bytes, indent: str) -> list[str]:
    text = base64.b64encode(data).decode()
    return [indent + text[i : i + 64] for i in range(0, len(text), 64)]


class Lines:
    """The lines of a file, each checked before it is looked at (§7, step 4)."""

    def __init__(self, text: str):
        self.text, self.at, self.number = text, 0, 0

    def peek(self) -> str:
        end = self.text.find("\n", self.at)
        line = self.text[self.at :] if end < 0 else self.text[self.at : end]
        if len(line.encode()) > 4_096:
            raise Refused("line-too-long", line=self.number + 1)
        if end < 0:
            raise Refused("truncated", line=self.number + 1)
        controls = re.findall(r"[\0-\x1f]", line)
        if controls:
            crlf = controls == ["\r"] and line.endswith("\r")
            raise Refused("carriage-return" if crlf else "not-text", line=self.number + 1)
        return line

    def next(self) -> str:
        line = self.peek()
        self.at += len(line) + 1
        self.number += 1
        return line

    def fail(self, name: str, found: int = 0) -> Refused:
        return Refused(name, found, self.number)

    def unexpected(self, line: str) -> Refused:
        return self.fail("conflict-markers" if line[:7] in MARKERS else "bad-syntax")

    def field(self, prefix: str) -> str:
        line = self.next()
        if not line.startswith(prefix):
            raise self.unexpected(line)
        return line[len(prefix) :]

    def expect(self, expected: str) -> None:
        line = self.next()
        if line != expected:
            raise self.unexpected(line)

    def located(self, check, *arguments):
        try:
            return check(*arguments)
        except Refused as refused:
            raise self.fail(refused.name, refused.found) from refused


MARKERS = {c * 7 for c in "<|=>"}


def parse_file(data: bytes) -> File:
    if len(data) > 67_108_864:
        raise Refused("file-too-large", len(data))
    check_first_line(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        at_end = error.reason == "unexpected end of data"
        raise Refused("truncated" if at_end else "not-text", line=data[: error.start].count(b"\n") + 1) from error
    lines = Lines(text)
    lines.next()
    lines.expect("keyring")
    keyring = read_base64(lines, "  ")
    stored = lines.located(StoredKeyring, keyring)
    file = File(keyring, stored.suite)
    read_records(lines, file)
    count = decimal(lines, "  records ")
    mismatch = lines.fail("count-mismatch", len(file.records))
    file.generation = decimal(lines, "  generation ")
    file.deletions_since = since = decimal(lines, "  deletions-since ")
    contradiction = None
    if since > file.generation or any(not since < it <= file.generation for it in file.deletions.values()):
        contradiction = lines.fail("not-canonical")
    file.body = text[: lines.at].encode()
    seal = lines.field("  seal ")
    if count != len(file.records):
        raise mismatch
    if contradiction:
        raise contradiction
    read_seal(lines, seal, file, stored.current)
    if lines.at < len(text):
        raise lines.unexpected(lines.next())
    return file


def check_first_line(data: bytes) -> None:
    first, newline, _ = data.partition(b"\n")
    if first[:7].decode("latin-1") in MARKERS:
        raise Refused("conflict-markers", line=1)
    if first and not newline and b"omni-credentials 1".startswith(first):
        raise Refused("truncated", line=1)
    match = re.fullmatch(rb"omni-credentials (0|[1-9][0-9]*)(\r?)", first)
    if not match or int(match[1]) >= 1 << 64:
        raise Refused("not-a-credentials-file", line=1)
    if int(match[1]) != 1:
        raise Refused("unknown-version", int(match[1]), 1)
    if match[2]:
        raise Refused("carriage-return", line=1)


def read_records(lines: Lines, file: File) -> None:
    last = None
    while True:
        lines.expect("")
        line = lines.next()
        if line == "end":
            return
        word, _, name = line.partition(" ")
        if word not in ("credential", "deleted") or not _:
            raise lines.unexpected(line)
        name = read_string(lines, name, 512, "invalid-name")
        kind = read_string(lines, lines.field("  kind "), 63, "invalid-kind")
        principal = read_string(lines, lines.field("  principal "), 255, "invalid-principal")
        scope = lines.field("  scope ")
        if lines.located(canonical_scope, scope.encode()) != scope.encode():
            raise lines.fail("not-canonical")
        sealed = None
        if word == "deleted":
            deletion = decimal(lines, "  generation ")
            if deletion == 0:
                raise lines.fail("bad-syntax")
        else:
            expires = None
            if lines.peek().startswith("  expires "):
                text = lines.field("  expires ")
                try:
                    expires = parse_time(text)
                except ValueError as error:
                    raise lines.fail("bad-syntax") from error
            lines.expect("  value")
            sealed = Sealed(read_base64(lines, "    "), expires)
            lines.located(parse_value, sealed.data, file.suite)
        identity = Identity(name, kind, principal, scope)
        order = identity.fields()
        if last is not None and order <= last:
            raise lines.fail("duplicate-record" if order == last else "unsorted")
        if len(file.records) == 100_000:
            raise lines.fail("too-many-records")
        last = order
        file.records[identity] = sealed
        if sealed is None:
            file.deletions[identity] = deletion


def write_time(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> int:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text, re.ASCII):
        raise ValueError("another form")
    seconds = (datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") - EPOCH) // timedelta(seconds=1)
    if seconds < 0 or write_time(seconds) != text:
        raise ValueError("no such second")
    return seconds


def read_string(lines: Lines, text: str, most: int, invalid: str) -> str:
    try:
        value = json.loads(text)
        if not isinstance(value, str):
            raise ValueError("no string")
        length = len(value.encode())
    except ValueError as error:
        raise lines.fail("bad-syntax") from error
    if not 1 <= length <= most or "\0" in value:
        raise lines.fail(invalid)
    if write_string(value) != text:
        raise lines.fail("not-canonical")
    return value


def read_base64(lines: Lines, indent: str) -> bytes:
    data, last = b"", False
    while lines.peek().startswith(indent):
        text = lines.next()[len(indent) :]
        if last or not 1 <= len(text.encode()) <= 64:
            raise lines.fail("not-canonical")
        piece = lines.located(decode_base64, text)
        data += piece
        last = len(piece) < 48
    if lines.peek()[:7] in MARKERS:
        raise lines.unexpected(lines.next())
    if not data:
        raise lines.fail("malformed")
    return data


def decode_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Refused("bad-syntax") from error
    if base64.b64encode(data).decode() != text:
        raise Refused("bad-syntax")  # unused bits
    return data


def decimal(lines: Lines, prefix: str) -> int:
    text = lines.field(prefix)
    if not re.fullmatch(r"0|[1-9][0-9]*", text, re.ASCII) or int(text) >= 1 << 64:
        raise lines.fail("bad-syntax")
    return int(text)


def read_seal(lines: Lines, text: str, file: File, current: bytes) -> None:
    file.seal = lines.located(decode_base64, text)
    reader = Reader(file.seal)
    suite = lines.located(read_header, reader)
    if suite != file.suite:
        raise lines.fail("unknown-suite", suite.number)
    if len(reader.rest) != 40:
        raise lines.fail("malformed")
    if reader.rest[:8] != current:
        raise lines.fail("not-canonical")


# ---------------------------------------------------------------------------- §8.1

def short(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def manifest(file: File) -> bytes:
    stored = StoredKeyring(file.keyring)
    entries = sorted(
        short(b"".join(map(lp, identity.fields()))) + short(parse_value(sealed.data, file.suite)[1])
        for identity, sealed in file.records.items()
        if sealed is not None
    )
    wrapping = short(stored.salt + stored.commitment)
    return b"OCMF\x01" + wrapping + struct.pack(">Q", file.generation) + b"".join(entries)
