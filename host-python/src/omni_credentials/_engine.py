"""The one engine of a process, and why it is set as it is: as host/src/engine.rs, as far as the wasmtime package lets
one."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import wasmtime
from wasmtime import _ffi as ffi

from ._fork import Guarded, Level

T = TypeVar("T")

# How much native stack a module may use, in bytes. A thread of Python may have a small one.
_WASM_STACK = 256 << 10
# How often running calls look whether they should end, in seconds.
_TICK = 0.05


def _make() -> wasmtime.Engine:
    config = wasmtime.Config()
    # The signals of the process belong to the application: every check is an explicit branch in the compiled code.
    # Guard pages stay, so that a check the compiler got wrong ends in a crash and not in a silent read.
    config.signals_based_traps = False
    config.memory_reservation = 4 << 30
    config.memory_guard_size = 32 << 20
    # A memory never moves, so no stale copy of a key stays behind.
    config.memory_may_move = False
    config.memory_init_cow = False
    config.max_wasm_stack = _WASM_STACK
    config.epoch_interruption = True
    config.native_unwind_info = False
    config.strategy = "cranelift"
    config.cranelift_opt_level = "speed"
    # Its threads would be missing in a forked child.
    config.parallel_compilation = False
    # What compilers emit for plain Rust, C or Zig, and nothing that is young or that the modules do not need.
    config.wasm_component_model = True
    config.wasm_simd = True
    config.wasm_bulk_memory = True
    config.wasm_multi_value = True
    config.wasm_relaxed_simd = False
    config.wasm_memory64 = False
    # The code with which one component of a program calls another needs it; a store has a limit of memories.
    config.wasm_multi_memory = True
    config.wasm_tail_call = False
    config.wasm_custom_page_sizes = False
    config.wasm_wide_arithmetic = False
    config.wasm_threads = False
    config.wasm_exceptions = False
    config.wasm_stack_switching = False
    config.gc_support = False
    return wasmtime.Engine(config)


class _Ticker:
    """Advances the engine's epoch while calls are running, from a thread that sleeps otherwise."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """A forked child has no threads, and locks may be as they happened to be."""
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._running = 0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """For the time of a call."""
        with self._lock:
            self._running += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="omni_credentials ticker", daemon=True)
                self._thread.start()
            self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _tick(self) -> None:
        while True:
            self._busy.wait()
            time.sleep(_TICK)
            with self._lock:
                if self._running:
                    engine().increment_epoch()
                else:
                    self._busy.clear()


class Interest:
    """Whether anyone still waits for the result of a call."""

    def __init__(self) -> None:
        self.lost = False

    def lose(self) -> None:
        """The call is to end early."""
        self.lost = True


class Watch:
    """Ends calls into a store: those that take too long, and where `interruptible`, those whose result is no longer
    wanted, because a signal interrupted the main thread's wait for it."""

    def __init__(self, store: wasmtime.Store, seconds: float, *, interruptible: bool) -> None:
        self._store = store
        self._seconds = seconds
        self._deadline = 0.0
        self._interest = Interest()
        # That the time is up.
        self.late = False
        # The engine calls it for as long as the store lives, so it is kept as long.
        self._callback = _CALLBACK(self._look) if interruptible else None
        if self._callback is not None:
            ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), self._callback, None, _NO_FINALIZER)

    def run(self, call: Callable[[], T], interest: Interest) -> T:
        """Runs a call into the store, in this thread."""
        self.late = False
        self._interest = interest
        with ticker.running():
            if self._callback is None:
                # The engine ends it by itself.
                self._store.set_epoch_deadline(1 + math.ceil(self._seconds / _TICK))
            else:
                self._deadline = time.monotonic() + self._seconds
                self._store.set_epoch_deadline(1)
            return call()

    def _look(self, context: Any, data: Any, delta: Any, kind: Any) -> int:
        """Called at every tick, in the thread of the call."""
        self.late = time.monotonic() > self._deadline
        if self.late or self._interest.lost:
            failure = wasmtime.WasmtimeError("interrupted")
            return ctypes.cast(failure._consume(), ctypes.c_void_p).value or 0
        delta[0] = 1
        kind[0] = _CONTINUE
        return 0


# The C API's `WASMTIME_UPDATE_DEADLINE_CONTINUE`.
_CONTINUE = 0
_CALLBACK: Any = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)
_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))


class Engine(Guarded):
    """The process's engine, made when it is first needed. Components are compiled and read in under its lock."""

    def __init__(self) -> None:
        super().__init__(Level.ENGINE)
        self._engine: wasmtime.Engine | None = None

    def get(self) -> wasmtime.Engine:
        """The engine."""
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = _make()
        return self._engine

    def work(self, work: Callable[[], T]) -> T:
        """Runs what changes the tables of the engine: no fork happens meanwhile."""
        with self._lock:
            return work()


ticker = _Ticker()
the_engine = Engine()
engine = the_engine.get
