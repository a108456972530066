"""Calls into the engine, kept away from the main thread.

Python runs signal handlers in the main thread, between any two of its instructions. A handler that raises, as that of
Ctrl-C does, would do so in the middle of a call: in the function that gives a module its entropy, where the exception
is lost and the engine continues with what was never written, or while arguments are built, which then are freed half
made. So calls of the main thread run in another thread, where no handler runs. The main thread waits, and raises what
interrupted it once the call has ended.
"""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class _Task:
    """A call that the main thread waits for. A plain lock says that it is over: unlike `Event` and `Thread.join`, it
    stays as it is when the wait is interrupted."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.failure: BaseException | None = None
        self.over = False
        self.done = allocate_lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as failure:
            self.failure = failure
        self.end()

    def end(self) -> None:
        self.over = True
        self.done.release()


class _Aside:
    """The thread, started with the first call."""

    def __init__(self) -> None:
        self._under_way: list[_Task] = []
        self._queue: SimpleQueue[_Task] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def run(self, work: Callable[[], T], cancel: Callable[[], None]) -> T:
        """Runs a call. `cancel` asks it to end early; the wait for it has no other end."""
        if get_ident() != threading.main_thread().ident:
            return work()
        task = _Task(work)
        if not self._start():
            return work()
        self._under_way.append(task)
        try:
            interruption = self._wait(task, cancel)
        finally:
            self._under_way.remove(task)
        if interruption is not None:
            raise interruption
        if task.failure is not None:
            raise task.failure
        result: T = task.result
        return result

    def _wait(self, task: _Task, cancel: Callable[[], None]) -> BaseException | None:
        """Hands a task over and waits until it is over, whatever interrupts the wait; gives the first interruption. A
        task that was handed over is never left alone: it may use what the caller would clean up."""
        interruption: BaseException | None = None
        posted = False
        while True:
            try:
                while not task.over:
                    if not posted:
                        posted = True
                        self._queue.put(task)
                    task.done.acquire()
                return interruption
            except BaseException as error:
                interruption = interruption or error
                cancel()

    def _start(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=_work, args=(self._queue,), name="omni_credentials calls", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # None can be started while the interpreter ends.
                return False
            self._thread = thread
        return True

    def _reset(self) -> None:
        """A forked child has no such thread. Only a signal handler can fork while its thread waits here."""
        self._queue = SimpleQueue()
        self._thread = None
        for task in self._under_way:
            if not task.over:
                task.failure = RuntimeError("the process forked in the middle of a call")
                task.end()


def _work(queue: SimpleQueue[_Task]) -> None:
    while True:
        task = queue.get()
        task.run()
        # Nothing of it is kept until the next one: not its arguments, not its result.
        del task


aside = _Aside()
