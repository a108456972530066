"""Bytes by the megabyte into a module and out of it.

The wasmtime package passes a `list<u8>` as 32 to 48 bytes for each byte, and takes no more than 2.8 MB of them from a
call; a string it passes in one piece. In a component's memory both are an address and a length, and with the encoding
`latin1+utf16` each byte of a string is a character. So a module gets an adapter beside it: a component with the functions
of the contract that whole files pass through, but with strings in place of lists of bytes. It calls the module, and says
of the same bytes that they are a string. It sees sealed values only, and no key.

This file writes the adapter, from the declarations in `_contract.py`, and puts it and a module into one component.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import wasmtime

from ._contract import FUNCTIONS, TYPES, Function
from ._values import Bool, Borrow, Bytes, Enum, Integer, Latin1, ListOf, Option, Own, Record, Result, Type

# The instance with the adapter's functions, among the exports of what is made here.
INSTANCE = "bulk"


class LateImports(Exception):
    """The imports of a component are not at its start."""


def with_adapter(module: bytes) -> bytes:
    """A component that imports what the module imports, and exports the contract's interfaces and the adapter's
    functions. It is not valid if the module does not keep to the contract. Raises `LateImports`."""
    start, names = _imports(module)
    interfaces = list(dict.fromkeys([*TYPES, *(function.interface for function in FUNCTIONS)]))
    # Its instances are in this order: the imports, the module, the module's interfaces, the adapter.
    of_module = len(names)
    instances = {name: of_module + 1 + number for number, name in enumerate(interfaces)}
    of_adapter = of_module + 1 + len(interfaces)
    aliases = [_SORT_INSTANCE + b"\0" + _leb(of_module) + _text(name) for name in interfaces]
    exports = [b"\0" + _text(name) + _SORT_INSTANCE + _leb(at) + b"\0" for name, at in instances.items()]
    exports.append(b"\0" + _text(INSTANCE) + _SORT_INSTANCE + _leb(of_adapter) + b"\0")
    return b"".join(
        (
            _PREAMBLE,
            start,
            _section(_COMPONENT, module),
            _section(_COMPONENT, _adapter()),
            _section(_INSTANCE, _vector([_instantiate(0, [(name, at) for at, name in enumerate(names)])])),
            _section(_ALIAS, _vector(aliases)),
            _section(_INSTANCE, _vector([_instantiate(1, [(_short(name), instances[name]) for name in TYPES])])),
            _section(_EXPORT, _vector(exports)),
        )
    )


def name_of(function: Function) -> str:
    """What the adapter calls a function."""
    return function.name.rpartition("]")[2].replace(".", "-")


def with_strings(type_: Type) -> Type:
    """A type of the contract as the adapter has it."""
    match type_:
        case Bytes():
            return Latin1()
        case ListOf():
            return ListOf(with_strings(type_.element))
        case Record():
            return Record(type_.make, [(name, with_strings(field)) for name, field in type_.fields])
        case Option():
            return Option(with_strings(type_.payload))
        case Result():
            return Result(type_.ok and with_strings(type_.ok), type_.error, type_.raises)
        case _:
            return type_


# The functions of the contract that the adapter has, as it has them.
FORMS = {
    function: Function(
        INSTANCE,
        name_of(function),
        [(name, with_strings(type_)) for name, type_ in function.parameters],
        with_strings(function.result),
    )
    for function in FUNCTIONS
    if function.bulk
}


# The adapter's memory. All that a call needs is free again after it. Every address is even, as a string's has to be.
_RESULT, _HEAP = 64, 1024
_MEMORY = f"""
(core module $memory
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const {_HEAP}))
  (func (export "free") (param i32) (global.set $next (i32.const {_HEAP})))
  (func (export "realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $end i64) (local $have i64)
    ;; The last piece grows and shrinks in its place.
    (local.set $at (global.get $next))
    (if (i32.and (i32.ne (local.get $had) (i32.const 0))
          (i32.eq (i32.and (i32.add (i32.add (local.get $old) (local.get $had)) (i32.const 7)) (i32.const -8))
            (global.get $next)))
      (then (local.set $at (local.get $old))))
    (local.set $end (i64.and (i64.const -8)
      (i64.add (i64.const 7) (i64.add (i64.extend_i32_u (local.get $at)) (i64.extend_i32_u (local.get $size))))))
    (if (i64.gt_u (local.get $end) (i64.const 0xffff0000)) (then unreachable))
    (local.set $have (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
    (if (i64.gt_u (local.get $end) (local.get $have))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.wrap_i64 (i64.shr_u
          (i64.add (i64.sub (local.get $end) (local.get $have)) (i64.const 0xffff)) (i64.const 16)))))
        (then unreachable))))
    (if (i32.and (i32.ne (local.get $had) (i32.const 0)) (i32.ne (local.get $at) (local.get $old)))
      (then (memory.copy (local.get $at) (local.get $old)
        (select (local.get $had) (local.get $size) (i32.lt_u (local.get $had) (local.get $size))))))
    (global.set $next (i32.wrap_i64 (local.get $end)))
    (local.get $at)))
(core instance $memory (instantiate $memory))
"""
_OPTIONS = '(memory $memory "memory") (realloc (func $memory "realloc"))'


@functools.cache
def _adapter() -> bytes:
    return bytes(wasmtime.wat2wasm(_text_of_adapter()))


def _text_of_adapter() -> str:
    functions = [function for function in FUNCTIONS if function.bulk]
    lines = ["(component", *_uses(functions), _MEMORY]
    # Its own types: those of the module that have bytes in them.
    for types in TYPES.values():
        for name, type_ in types.items():
            if type_ is not None and _has_bytes(type_):
                lines.append(f"(type $a-{name} {_definition(type_, 's-')})")
                lines.append(f'(export $s-{name} "{name}" (type $a-{name}))')
    resources = [name for types in TYPES.values() for name, type_ in types.items() if type_ is None]
    lines += [f"(core func $drop-{name} (canon resource.drop ${name}))" for name in resources]
    given = [f'(export "drop-{name}" (func $drop-{name}))' for name in resources]
    glue = [f'(import "m" "drop-{name}" (func $drop-{name} (param i32)))' for name in resources]
    calls: list[str] = []
    for function in functions:
        name, short = name_of(function), _short(function.interface)
        lines.append(f'(alias export ${short} "{function.name}" (func $f-{name}))')
        lines.append(f"(core func $c-{name} (canon lower (func $f-{name}) {_OPTIONS}))")
        given.append(f'(export "{name}" (func $c-{name}))')
        flat = [core for _, type_ in function.parameters for core in _flat(type_)]
        glue.append(f'(import "m" "{name}" (func ${name} (param {" ".join([*flat, "i32"])})))')
        calls += _call(function, flat)
    lines += ["(core module $glue", *glue, *calls, ")", f"(core instance $given {' '.join(given)})"]
    lines.append('(core instance $glue (instantiate $glue (with "m" (instance $given))))')
    for function in functions:
        name = name_of(function)
        options = f'{_OPTIONS} string-encoding=latin1+utf16 (post-return (func $memory "free"))'
        lift = f'(canon lift (core func $glue "{name}") {options})'
        lines.append(f"(func $s-{name} {_signature(function, 's-')} {lift})")
        lines.append(f'(export "{name}" (func $s-{name}))')
    return "\n".join([*lines, ")"])


def _uses(functions: Sequence[Function]) -> Iterator[str]:
    """What the adapter imports: the module's interfaces, as far as it uses them."""
    known: list[str] = []
    for interface, types in TYPES.items():
        short = _short(interface)
        yield f'(import "{short}" (instance ${short}'
        yield from [f"(alias outer 1 ${name} (type ${name}))" for name in known]
        for name, type_ in types.items():
            if type_ is None:
                yield f'(export "{name}" (type ${name} (sub resource)))'
            else:
                yield f"(type $a-{name} {_definition(type_, '')})"
                yield f'(export "{name}" (type ${name} (eq $a-{name})))'
        for function in functions:
            if function.interface == interface:
                yield f'(export "{function.name}" (func {_signature(function, "")}))'
        yield "))"
        yield from [f'(alias export ${short} "{name}" (type ${name}))' for name in types]
        known += types


def _call(function: Function, flat: Sequence[str]) -> Iterator[str]:
    """The function in the middle: calls the module, and gives back what was lent."""
    yield f'(func (export "{name_of(function)}") (param {" ".join(flat)}) (result i32)'
    yield from [f"local.get {at}" for at in range(len(flat))]
    yield f"i32.const {_RESULT} call ${name_of(function)}"
    at = 0
    for _, type_ in function.parameters:
        if isinstance(type_, Borrow):
            yield f"local.get {at} call $drop-{type_.resource}"
        at += len(_flat(type_))
    yield f"i32.const {_RESULT})"


def _signature(function: Function, prefix: str) -> str:
    """The parameters and the result of a function. Types with bytes in them have this prefix, which is that of strings if
    it is not empty."""
    parameters = [f'(param "{name}" {_reference(type_, prefix)})' for name, type_ in function.parameters]
    return f"{' '.join(parameters)} (result {_reference(function.result, prefix)})"


def _definition(type_: Type, prefix: str) -> str:
    """What a type with a name is."""
    match type_:
        case Enum():
            return f"(enum {' '.join(_quoted(case) for case in type_.cases)})"
        case Record():
            fields = [f'(field "{name}" {_reference(field, prefix)})' for name, field in type_.fields]
            return f"(record {' '.join(fields)})"
        case _:
            raise TypeError(f"{type_} needs no name")


def _reference(type_: Type, prefix: str) -> str:
    """A type where it is used."""
    for types in TYPES.values():
        for name, named in types.items():
            if named is type_:
                return f"${prefix if _has_bytes(type_) else ''}{name}"
    match type_:
        case Integer():
            return type_.name
        case Bool():
            return "bool"
        case Bytes():
            return "string" if prefix else "(list u8)"
        case ListOf():
            return f"(list {_reference(type_.element, prefix)})"
        case Option():
            return f"(option {_reference(type_.payload, prefix)})"
        case Result():
            ok = _reference(type_.ok, prefix) if type_.ok else ""
            return f"(result {ok} (error {_reference(type_.error, prefix)}))"
        case Own():
            return f"(own ${type_.resource})"
        case Borrow():
            return f"(borrow ${type_.resource})"
        case _:
            raise TypeError(f"{type_} is not known")


def _has_bytes(type_: Type) -> bool:
    match type_:
        case Bytes():
            return True
        case ListOf():
            return _has_bytes(type_.element)
        case Record():
            return any(_has_bytes(field) for _, field in type_.fields)
        case _:
            return False


def _flat(type_: Type) -> list[str]:
    """What a parameter is for a core module."""
    match type_:
        case Bytes() | ListOf():
            return ["i32", "i32"]
        case Integer(name="u64"):
            return ["i64"]
        case Integer() | Bool() | Enum() | Borrow():
            return ["i32"]
        case _:
            raise TypeError(f"{type_} is no parameter of a function with bulk")


def _short(interface: str) -> str:
    return interface.removeprefix("omni:credentials/").partition("@")[0]


def _quoted(text: str) -> str:
    return f'"{text}"'


# The binary format of components, as far as it is needed: https://github.com/WebAssembly/component-model, Binary.md.
_PREAMBLE = b"\0asm\x0d\0\x01\0"
_CUSTOM, _COMPONENT, _INSTANCE, _ALIAS, _TYPE, _IMPORT, _EXPORT = 0, 4, 5, 6, 7, 10, 11
_SORT_INSTANCE = b"\x05"


def _imports(module: bytes) -> tuple[bytes, list[str]]:
    """The sections at the start of a component up to its last import, and the names of the instances that it imports."""
    names: list[str] = []
    end = len(_PREAMBLE)
    if module[: len(_PREAMBLE)] != _PREAMBLE:
        raise LateImports
    at, is_start = end, True
    try:
        while at < len(module):
            kind = module[at]
            size, body = _number(module, at + 1)
            if kind == _IMPORT:
                if not is_start:
                    raise LateImports
                names += _imported(module[body : body + size])
                end = body + size
            is_start = is_start and kind in (_CUSTOM, _ALIAS, _TYPE, _IMPORT)
            at = body + size
    except IndexError:
        raise LateImports from None
    return module[len(_PREAMBLE) : end], names


def _imported(section: bytes) -> Iterator[str]:
    count, at = _number(section, 0)
    for _ in range(count):
        if section[at] not in (0, 1):
            raise LateImports
        length, at = _number(section, at + 1)
        name = section[at : at + length].decode("utf-8", "replace")
        at += length
        if section[at : at + 1] != _SORT_INSTANCE:
            raise LateImports
        _, at = _number(section, at + 1)
        yield name


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return value, at + 1
        at, shift = at + 1, shift + 7


def _leb(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _text(text: str) -> bytes:
    data = text.encode()
    return _leb(len(data)) + data


def _vector(items: Sequence[bytes]) -> bytes:
    return _leb(len(items)) + b"".join(items)


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _leb(len(body)) + body


def _instantiate(component: int, arguments: Sequence[tuple[str, int]]) -> bytes:
    given = [_text(name) + _SORT_INSTANCE + _leb(at) for name, at in arguments]
    return b"\0" + _leb(component) + _vector(given)
