"""Sandboxes: a store with an instance of a module in it, and the limits it has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from ctypes import byref
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

import wasmtime
from wasmtime import _ffi as ffi, component as wit

from ._aside import aside
from ._bulk import FORMS
from ._contract import CONTRACT, FUNCTIONS, Function
from ._engine import Interest, Watch, engine
from ._fork import Guarded, Level
from ._values import SLOT, wipe
from .errors import ModuleError, Refusal

T = TypeVar("T")

# Most random bytes a module gets in one request; it needs 32 at a time.
_MAX_RANDOM = 64 << 10

# How many bytes the wasmtime package can take from a module in one call, as a list: each is a value of 48 bytes, and all of
# them together have at most 128 MiB. Its C API has no call that raises this limit.
_MAX_LIST = (128 << 20) // 48
# The hint for more than the wasmtime package can pass.
_LONG = "use the command omni-credentials, which works on files of up to 64 MiB"


class Kind(Enum):
    """Which sort of sandbox, by the linear memory that it may have, in bytes."""

    # Lives as long as its keyring. Small, for the process keeps what it once had.
    ROW = 8 << 20
    # For one derivation, one file or one large value, and dropped at once.
    WORK = 1 << 30


class Loaded:
    """A component that was looked over and can be instantiated."""

    def __init__(self, component: wit.Component, *, seconds: float) -> None:
        self.component = component
        self.seconds = seconds
        self.linker = wit.Linker(engine())
        self.imports = _link_imports(component, self.linker)
        _check_exports(component)
        self.indices: dict[Function, wit.ExportIndex] = {}
        interfaces: dict[str, wit.ExportIndex | None] = {}
        for function in FUNCTIONS:
            if function.interface not in interfaces:
                interfaces[function.interface] = component.get_export_index(function.interface)
            interface = interfaces[function.interface]
            index = component.get_export_index(function.name, interface) if interface else None
            if index is None:
                raise _wrong_contract(f"{function} is missing")
            self.indices[function] = index
        # The functions that are called in another form than the module has them in.
        self.forms: dict[Function, Function] = {}
        for function, form in FORMS.items():
            instance = component.get_export_index(form.interface)
            index = component.get_export_index(form.name, instance) if instance else None
            if index is not None:
                self.indices[form] = index
                self.forms[function] = form


class Sandbox(Guarded):
    """An instance. Threads may share it: their calls take turns. After any error but a refusal it is of no more use.

    Its lock is taken by the thread that runs a call, which is never the main one (`_aside.py`).
    """

    def __init__(self, loaded: Loaded, kind: Kind) -> None:
        super().__init__(Level.SANDBOX)
        self._loaded = loaded
        self._kind = kind
        self._functions: dict[Function, Any] = {}
        self._store = wasmtime.Store(engine())
        # What is beside the module takes some, too.
        more = 4 if loaded.forms else 0
        self._store.set_limits(
            memory_size=kind.value,
            table_elements=10_000,
            instances=8 + more,
            tables=8 + more,
            memories=3 if loaded.forms else 2,
        )
        # The calls of the others are short.
        self._watch = Watch(self._store, loaded.seconds, interruptible=kind is Kind.WORK)
        self.usable = True
        self._aside(self._instantiate)

    def call(self, function: Function, *arguments: Any) -> Any:
        """Calls an export; raises `Refusal`, or `ModuleError` for a module that failed."""
        return self._aside(lambda interest: self._call(function, arguments, interest))

    def drop(self, resource: wit.ResourceAny) -> None:
        """Ends a resource that the module handed over."""
        self._aside(lambda interest: self._drop(resource, interest))

    def close(self) -> None:
        """Returns the memory, keys included, to the system."""
        self._aside(lambda _: self._close())

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _aside(self, work: Callable[[Interest], T]) -> T:
        interest = Interest()

        def locked() -> T:
            with self._lock:
                return work(interest)

        return aside.run(locked, interest.lose)

    def _instantiate(self, interest: Interest) -> None:
        loaded = self._loaded
        try:
            # Instantiation runs the module's start function.
            self._instance = self._watch.run(
                lambda: loaded.linker.instantiate(self._store, loaded.component), interest
            )
        except BaseException as error:
            self._close()
            if isinstance(error, wasmtime.WasmtimeError):
                raise self._failed("its instantiation", error) from None
            raise

    def _call(self, function: Function, arguments: tuple[Any, ...], interest: Interest) -> Any:
        if not self.usable:
            raise ModuleError("the crypto module failed in an earlier call, and its memory is gone")
        slots = (SLOT * len(arguments))()
        result = SLOT()
        places: list[tuple[int, int]] = []
        form = self._loaded.forms.get(function, function)
        if form.bulk and any(isinstance(it, bytes) and len(it) > _MAX_LIST for it in arguments):
            # It would take gigabytes to fail.
            raise ModuleError(
                f"the wasmtime package cannot pass more than {_MAX_LIST} bytes to this crypto module, whose imports are "
                "not at its start",
                hint=_LONG,
            )
        try:
            for index, ((_, type_), argument) in enumerate(zip(form.parameters, arguments, strict=True)):
                type_.lower(slots[index], argument, places)
            return self._run(function, form, slots, result, interest)
        finally:
            wipe(places)
            for slot in (*slots, result):
                ffi.wasmtime_component_val_delete(byref(slot))

    def _run(self, function: Function, form: Function, slots: Any, result: Any, interest: Interest) -> Any:
        try:
            exported, context, count = self._function(form), self._store._context(), len(slots)
            error = self._watch.run(
                lambda: ffi.wasmtime_component_func_call(
                    byref(exported), context, slots, count, byref(result), form.results
                ),
                interest,
            )
            if error:
                raise wasmtime.WasmtimeError._from_ptr(error)
            return form.result.lift(result)
        except Refusal:
            raise
        except BaseException as failure:
            self._close()
            if isinstance(failure, wasmtime.WasmtimeError):
                raise self._failed(str(function), failure) from None
            raise

    def _drop(self, resource: wit.ResourceAny, interest: Interest) -> None:
        if not self.usable:
            return
        try:
            self._watch.run(lambda: resource.drop(self._store), interest)
        except BaseException as failure:
            self._close()
            if isinstance(failure, wasmtime.WasmtimeError):
                raise self._failed("a destructor", failure) from None
            raise

    def _close(self) -> None:
        self.usable = False
        self._store.close()

    def _function(self, function: Function) -> Any:
        found = self._functions.get(function)
        if found is None:
            exported = self._instance.get_func(self._store, self._loaded.indices[function])
            if exported is None:
                raise _wrong_contract(f"{function} is missing")
            found = self._functions[function] = exported._func
        return found

    def _failed(self, doing: str, error: wasmtime.WasmtimeError) -> ModuleError:
        """The one place where the engine's errors become ours."""
        reason = _reason(str(error))
        if self._watch.late or reason == "interrupt":
            return ModuleError(
                f"the crypto module was stopped in {doing}: it took more than {self._loaded.seconds:g} seconds",
                code="trap",
            )
        if "fuel allocated for hostcalls" in reason:
            return ModuleError(
                f"the crypto module returned more in {doing} than the wasmtime package can take in one call",
                hint=_LONG,
                code="trap",
            )
        return ModuleError(f"the crypto module failed in {doing}: {reason}", code="trap")


def _link_imports(component: wit.Component, linker: wit.Linker) -> list[str]:
    """Entropy is the one thing a module may import, beside the names of the contract's types. Gives the names of the
    functions that it does import."""
    found = []
    for name, import_ in component.type.imports(engine()).items():
        if not isinstance(import_, wit.ComponentInstanceType):
            raise _forbidden(name)
        functions = []
        for item, type_ in import_.exports(engine()).items():
            if isinstance(type_, wit.FuncType) and item == "get-random-bytes" and _is_random(name):
                functions.append(item)
            elif not isinstance(type_, wit.ValType):
                raise _forbidden(f"{name}#{item}")
        if functions:
            found += [f"{name}#{item}" for item in functions]
            with linker.root() as root, root.add_instance(name) as instance:
                instance.add_func("get-random-bytes", _random)
    return found


def _is_random(name: str) -> bool:
    # Both versions of WASI have the same function.
    return re.fullmatch(r"wasi:random/random@0\.[23]\.[0-9]+", name) is not None


def _random(store: object, length: int) -> bytes:
    if length > _MAX_RANDOM:
        raise wasmtime.WasmtimeError(f"asked for {length} random bytes at once")
    return os.urandom(length)


def _check_exports(component: wit.Component) -> None:
    exports = component.type.exports(engine())
    members: dict[str, Mapping[str, object]] = {}
    for function in FUNCTIONS:
        if function.interface not in members:
            interface = exports.get(function.interface)
            if not isinstance(interface, wit.ComponentInstanceType):
                raise _wrong_contract(f"{function.interface} is missing")
            members[function.interface] = interface.exports(engine())
        found = members[function.interface].get(function.name)
        if not isinstance(found, wit.FuncType):
            raise _wrong_contract(f"{function} is missing")
        parameters = found.params
        same = len(parameters) == len(function.parameters) and function.result.matches(found.result)
        if not same or not all(
            name == found_name and type_.matches(found_type)
            for (name, type_), (found_name, found_type) in zip(function.parameters, parameters, strict=True)
        ):
            raise _wrong_contract(f"{function} has other parameters or another result")


def _reason(message: str) -> str:
    """What a trap was. Of a message with a trace only its last line is the engine's own; the rest names functions of
    the module."""
    if (trap := re.search(r"wasm trap: (.+)$", message.strip())) is not None:
        return trap[1]
    return message.strip().rpartition("\n")[2].strip().removeprefix("0: ")


def _forbidden(name: str) -> ModuleError:
    return ModuleError(f"the crypto module imports {name}, and only wasi:random/random may be imported")


def _wrong_contract(detail: str) -> ModuleError:
    return ModuleError(f"the crypto module does not keep to the contract {CONTRACT}: {detail}")
