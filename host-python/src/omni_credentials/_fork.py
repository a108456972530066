"""What a fork does to locks: a child has only the thread that forked, and nothing frees what another one held.

So a fork waits until no other thread uses a guarded object, and no new one can start. This takes as long as their
calls, but not longer than a few seconds. What is still in use then, such as a store that waits for the lock of its
file, is lost to the child: every further use of it there raises an error, and the child opens it again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import AbstractContextManager
from enum import IntEnum
from types import TracebackType

from .errors import InvalidInput

# How long a fork waits for the calls of other threads, in seconds. A derivation takes less.
_PATIENCE = 5.0


class Level(IntEnum):
    """Locks are taken in this order, by calls and by a fork."""

    STORE = 0
    KEYRING = 1
    # New sandboxes are counted under it, so that a fork misses none.
    GATE = 2
    SANDBOX = 3
    ENGINE = 4


class Guarded:
    """An object that one thread at a time may use, under its `_lock`, and that a fork leaves whole."""

    _lock: AbstractContextManager[object]

    def __init__(self, level: Level) -> None:
        self._lock = threading.RLock()
        with _gate._lock if level > Level.GATE else _FREE:
            key = id(self)
            _guarded[key] = (level, weakref.ref(self, lambda _: _guarded.pop(key, None)))


class _Gate:
    def __init__(self) -> None:
        self._lock = threading.RLock()


class _Lost:
    """What becomes of a lock in a child whose parent's other thread held it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        raise InvalidInput(
            f"another thread was using this {self._name} when the process forked",
            hint="open it again in the child",
            code="forked",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Free:
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Fork(threading.local):
    """What this thread holds, and what it did not get, while it forks."""

    def __init__(self) -> None:
        self.held: list[object] = []
        self.lost: list[Guarded] = []


_FREE = _Free()
_gate = _Gate()
_guarded: dict[int, tuple[Level, weakref.ref[Guarded]]] = {}
_fork = _Fork()


def _before() -> None:
    _fork.held, _fork.lost = [], []
    deadline = time.monotonic() + _PATIENCE
    for owner in _owners(Level.STORE, Level.KEYRING):
        _take(owner, deadline)
    if _gate._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        _fork.held.append(_gate._lock)
    for owner in _owners(Level.SANDBOX, Level.ENGINE):
        _take(owner, deadline)


def _owners(*levels: Level) -> list[Guarded]:
    found = [(level, key, owner()) for key, (level, owner) in list(_guarded.items()) if level in levels]
    # One order for all, so that two threads that fork do not wait for each other.
    return [owner for _, _, owner in sorted(found, key=lambda it: it[:2]) if owner is not None]


def _take(owner: Guarded, deadline: float) -> None:
    lock = owner._lock
    if isinstance(lock, _Lost):
        return
    if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):  # type: ignore[attr-defined] # an RLock
        _fork.held.append(lock)
    else:
        _fork.lost.append(owner)


def _after_in_parent() -> None:
    for lock in reversed(_fork.held):
        lock.release()  # type: ignore[attr-defined] # an RLock
    _fork.held, _fork.lost = [], []


def _after_in_child() -> None:
    for owner in _fork.lost:
        owner._lock = _Lost(type(owner).__name__.lower())
    if _gate._lock not in _fork.held:
        _gate._lock = threading.RLock()
    _after_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
