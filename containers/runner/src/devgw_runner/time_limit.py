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


class _ExpiredError(CompileTimeoutError):
    """What is set on another thread: it can carry no text."""


def time_limit(seconds: float) -> AbstractContextManager[None]:
    """Raise CompileTimeoutError in this thread after `seconds`."""
    is_main = threading.current_thread() is threading.main_thread()
    return _by_alarm(seconds) if is_main else _from_outside(seconds)


@contextmanager
def _by_alarm(seconds: float) -> Iterator[None]:
    is_over = False

    def expire(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True
        raise CompileTimeoutError(f"took longer than {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)  # raised inside a destructor it would be lost
    try:
        yield
        if is_over:
            raise CompileTimeoutError(f"took longer than {seconds:.0f} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _from_outside(seconds: float) -> Iterator[None]:
    """Python runs signal handlers in the main thread only; elsewhere it can set an exception on the thread."""
    thread = ctypes.c_ulong(threading.get_ident())
    lock, is_over = threading.Lock(), threading.Event()

    def expire() -> None:
        wait = seconds
        while not is_over.wait(wait):
            with lock:
                if not is_over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_ExpiredError))
            wait = REPEAT_SECONDS  # raised inside a destructor it would be lost

    threading.Thread(target=expire, name="time-limit", daemon=True).start()
    try:
        yield
    except _ExpiredError:
        raise CompileTimeoutError(f"took longer than {seconds:.0f} s") from None
    finally:
        with lock:
            is_over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was set and not yet raised
