"""Interrupt a block that takes too long: in the main thread by an alarm, in another by an exception."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

REPEAT_SECONDS = 0.5


class CompileTimeoutError(BaseException):
    """A rung took too long. BaseException, because torch's compiler swallows every Exception."""


def time_limit(seconds: float) -> AbstractContextManager[None]:
    """Raise CompileTimeoutError in this thread after `seconds`."""
    is_main = threading.current_thread() is threading.main_thread()
    return _by_alarm(seconds) if is_main else _from_outside(seconds)


def _expired(seconds: float) -> type[CompileTimeoutError]:
    """Return the error with its text in it: what is set on another thread is a class, and is made without arguments."""

    class ExpiredError(CompileTimeoutError):
        def __init__(self) -> None:
            super().__init__(f"took longer than {seconds:.0f} s")

    ExpiredError.__name__ = CompileTimeoutError.__name__  # what a reader of the log is told
    return ExpiredError


@contextmanager
def _by_alarm(seconds: float) -> Iterator[None]:
    is_over, expired = False, _expired(seconds)

    def expire(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True
        raise expired

    def end() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)

    previous = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)  # raised inside a destructor it would be lost
        yield
        if is_over:
            raise expired
    finally:
        try:
            end()
        except expired:  # it ran out in the call above: the next comes after REPEAT_SECONDS
            end()


@contextmanager
def _from_outside(seconds: float) -> Iterator[None]:
    """Python runs signal handlers in the main thread only; elsewhere it can set an exception on the thread."""
    thread, expired = ctypes.c_ulong(threading.get_ident()), _expired(seconds)
    lock, is_over = threading.Lock(), threading.Event()

    def expire() -> None:
        wait = seconds
        while not is_over.wait(wait):
            with lock:
                if not is_over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(expired))
            wait = REPEAT_SECONDS  # raised inside a destructor it would be lost

    def end() -> None:
        with lock:
            is_over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was set and not yet raised

    try:
        threading.Thread(target=expire, name="time-limit", daemon=True).start()  # a short limit ends inside this
        yield
    finally:
        try:
            end()
        except expired:  # as above; one that was left would interrupt the training for ever
            end()
