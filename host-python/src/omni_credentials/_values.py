"""Values on their way into a component and out of it.

The wasmtime package converts them as well, but a list of bytes one byte at a time: 1 MiB takes more than two seconds.
Here a list is filled and emptied as a whole, with the structures of wasmtime's C API that the package declares. They
are those of one major version of wasmtime, which is why this package asks for just that one.

Every type says whether a component's own type is the one it stands for (`matches`), which is looked at when a component
is loaded; a value is written to (`lower`) and read from (`lift`) a slot that belongs to the caller, who deletes it with
all that hangs on it.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from ctypes import byref
from typing import Any

from wasmtime import _ffi as ffi, component as wit

# A `wasmtime_component_val_t`.
Slot = Any
SLOT = ffi.wasmtime_component_val_t
_SIZE = ctypes.sizeof(SLOT)
_KIND: int = SLOT.kind.offset
_VALUE: int = SLOT.of.offset


class Type(ABC):
    """A type of the contract."""

    @abstractmethod
    def matches(self, found: object) -> bool:
        """Whether this is what a component means by `found`."""

    @abstractmethod
    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        """Writes a value into a zeroed slot. `wipe` gets the places (address, length) of bytes that may be secret."""

    @abstractmethod
    def lift(self, slot: Slot) -> Any:
        """Reads a value."""


class Integer(Type):
    """An unsigned integer."""

    def __init__(self, bits: int) -> None:
        self._type, self._kind = {
            8: (wit.U8, ffi.WASMTIME_COMPONENT_U8),
            32: (wit.U32, ffi.WASMTIME_COMPONENT_U32),
            64: (wit.U64, ffi.WASMTIME_COMPONENT_U64),
        }[bits]
        self.name = f"u{bits}"
        self._below = 1 << bits

    def matches(self, found: object) -> bool:
        return isinstance(found, self._type)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        if not 0 <= value < self._below:
            raise OverflowError(f"{value} is no {self.name}")
        slot.kind = self._kind
        setattr(slot.of, self.name, value)

    def lift(self, slot: Slot) -> int:
        return int(getattr(slot.of, self.name))


class Bool(Type):
    """A truth value."""

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.Bool)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_BOOL
        slot.of.boolean = bool(value)

    def lift(self, slot: Slot) -> bool:
        return bool(slot.of.boolean)


class String(Type):
    """A string, which modules return and never take."""

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.String)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_STRING
        slot.of.string = ffi.str_to_capi(value)

    def lift(self, slot: Slot) -> str:
        return ffi.to_str(slot.of.string)


class Bytes(Type):
    """`list<u8>`."""

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.ListType) and isinstance(found.element, wit.U8)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        count = len(value)
        items = _new_list(slot, count)
        if count:
            memory = (ctypes.c_uint8 * (count * _SIZE)).from_address(items)
            view = memoryview(memory).cast("B")
            view[_KIND::_SIZE] = bytes((ffi.WASMTIME_COMPONENT_U8.value,)) * count
            view[_VALUE::_SIZE] = value
            wipe.append((items, count * _SIZE))

    def lift(self, slot: Slot) -> bytes:
        items = slot.of.list
        if not items.size:
            return b""
        length = items.size * _SIZE
        memory = (ctypes.c_uint8 * length).from_address(ctypes.addressof(items.data.contents))
        value = memoryview(memory).cast("B")[_VALUE::_SIZE].tobytes()
        # The slots go back to the allocator; a value or a key need not stay in them.
        ctypes.memset(memory, 0, length)
        return value


class Latin1(Type):
    """A string in which every character is a byte: in Python those bytes."""

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.String)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_STRING
        slot.of.string = ffi.str_to_capi(str(value, "latin-1"))

    def lift(self, slot: Slot) -> bytes:
        return ffi.to_str(slot.of.string).encode("latin-1")


class ListOf(Type):
    """A list of anything else."""

    def __init__(self, element: Type) -> None:
        self.element = element

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.ListType) and self.element.matches(found.element)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        _new_list(slot, len(value))
        items = slot.of.list.data
        for index, item in enumerate(value):
            self.element.lower(items[index], item, wipe)

    def lift(self, slot: Slot) -> list[Any]:
        items = slot.of.list
        data = items.data
        return [self.element.lift(data[index]) for index in range(items.size)]


class Record(Type):
    """A record: in Python a tuple with names, made by `make`."""

    def __init__(self, make: Callable[..., Any], fields: Sequence[tuple[str, Type]]) -> None:
        self.make = make
        self.fields = tuple(fields)

    def matches(self, found: object) -> bool:
        if not isinstance(found, wit.RecordType):
            return False
        fields = found.fields
        return len(fields) == len(self.fields) and all(
            name == found_name and type_.matches(found_type)
            for (name, type_), (found_name, found_type) in zip(self.fields, fields, strict=True)
        )

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        count = len(self.fields)
        record = slot.of.record
        ffi.wasmtime_component_valrecord_new_uninit(byref(record), count)
        ctypes.memset(record.data, 0, count * ctypes.sizeof(ffi.wasmtime_component_valrecord_entry))
        slot.kind = ffi.WASMTIME_COMPONENT_RECORD
        for index, ((name, type_), item) in enumerate(zip(self.fields, value, strict=True)):
            entry = record.data[index]
            entry.name = ffi.str_to_capi(name)
            type_.lower(entry.val, item, wipe)

    def lift(self, slot: Slot) -> Any:
        data = slot.of.record.data
        return self.make(*[type_.lift(data[index].val) for index, (_, type_) in enumerate(self.fields)])


class Enum(Type):
    """An enum: in Python its case, as a string."""

    def __init__(self, cases: Sequence[str]) -> None:
        self.cases = tuple(cases)

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.EnumType) and tuple(found.names) == self.cases

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_ENUM
        slot.of.enumeration = ffi.str_to_capi(value)

    def lift(self, slot: Slot) -> str:
        return ffi.to_str(slot.of.enumeration)


class Option(Type):
    """An option: in Python the value or none."""

    def __init__(self, payload: Type) -> None:
        self.payload = payload

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.OptionType) and self.payload.matches(found.payload)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_OPTION
        if value is not None:
            payload = SLOT()
            self.payload.lower(payload, value, wipe)
            slot.of.option = ffi.wasmtime_component_val_new(byref(payload))

    def lift(self, slot: Slot) -> Any:
        return self.payload.lift(slot.of.option.contents) if slot.of.option else None


class Nothing(Type):
    """What a function without a result returns."""

    def matches(self, found: object) -> bool:
        return found is None

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        raise NotImplementedError

    def lift(self, slot: Slot) -> None:
        return None


class Result(Type):
    """A result, which modules return: in Python the value, or what `raises` makes of the error, raised."""

    def __init__(self, ok: Type | None, error: Type, raises: Callable[[Any], Exception]) -> None:
        self.ok = ok
        self.error = error
        self.raises = raises

    def matches(self, found: object) -> bool:
        if not isinstance(found, wit.ResultType) or not self.error.matches(found.err):
            return False
        return found.ok is None if self.ok is None else self.ok.matches(found.ok)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        raise NotImplementedError

    def lift(self, slot: Slot) -> Any:
        result = slot.of.result
        if not result.is_ok:
            raise self.raises(self.error.lift(result.val.contents))
        return None if self.ok is None else self.ok.lift(result.val.contents)


class Own(Type):
    """A resource that is handed over."""

    def __init__(self, resource: str) -> None:
        self.resource = resource

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.OwnType)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        raise NotImplementedError

    def lift(self, slot: Slot) -> wit.ResourceAny:
        resource = ffi.take_pointer(slot.of, "resource")
        # It is ours now, and not deleted with the slot.
        slot.kind = ffi.WASMTIME_COMPONENT_BOOL
        return wit.ResourceAny._from_ptr(resource)


class Borrow(Type):
    """A resource that is lent for the time of a call."""

    def __init__(self, resource: str) -> None:
        self.resource = resource

    def matches(self, found: object) -> bool:
        return isinstance(found, wit.BorrowType)

    def lower(self, slot: Slot, value: Any, wipe: list[tuple[int, int]]) -> None:
        slot.kind = ffi.WASMTIME_COMPONENT_RESOURCE
        slot.of.resource = ffi.wasmtime_component_resource_any_clone(value.ptr())

    def lift(self, slot: Slot) -> Any:
        raise NotImplementedError


def wipe(places: Sequence[tuple[int, int]]) -> None:
    """Overwrites what `lower` wrote."""
    for address, length in places:
        ctypes.memset(address, 0, length)


def _new_list(slot: Slot, count: int) -> int:
    """Makes a list of zeroed slots and gives its address. A zeroed slot is a false truth value, good for deletion."""
    items = slot.of.list
    ffi.wasmtime_component_vallist_new_uninit(byref(items), count)
    address = ctypes.addressof(items.data.contents) if count else 0
    ctypes.memset(address, 0, count * _SIZE)
    slot.kind = ffi.WASMTIME_COMPONENT_LIST
    return address
