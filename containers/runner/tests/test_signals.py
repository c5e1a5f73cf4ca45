"""What becomes of a signal before, during and after a run, and in processes that it forked."""

import os
import signal
import threading
import time

import pytest
from devgw_runner.errors import StopRequested
from devgw_runner.signals import Signals

SECONDS = 30


@pytest.fixture
def heard():
    """Listen for SIGTERM as a script does that has a handler of its own."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def from_a_thread(action) -> None:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(timeout=SECONDS)
    assert not thread.is_alive()


def test_what_is_sent_before_the_run_reaches_who_listened(heard):
    from_a_thread(lambda: Signals().send(signal.SIGTERM))
    assert heard == [signal.SIGTERM]


def test_what_is_sent_during_the_run_asks_it_to_stop(heard):
    with Signals().installed() as signals:
        from_a_thread(lambda: signals.send(signal.SIGTERM))
        assert signals.stop_signal == signal.SIGTERM
    assert heard == []


def test_what_is_sent_after_the_run_ends_nothing(heard):
    """Another process of the same launcher was heard first: this one has saved with it, and closes."""
    with Signals().installed() as signals:
        pass
    from_a_thread(lambda: signals.send(signal.SIGTERM))
    assert heard == []


def test_nothing_is_lost_or_strays_where_the_run_ends_while_it_is_sent(heard):
    for _ in range(200):
        signals = Signals()
        thread = threading.Thread(target=signals.send, args=(signal.SIGTERM,), daemon=True)
        with signals.installed():
            thread.start()
        thread.join(timeout=SECONDS)
    assert heard == []


def test_the_reminder_of_a_grace_that_is_over_with_the_run_ends_nothing(heard):
    with Signals().installed() as signals:
        pass
    from_a_thread(lambda: signals._remind(signal.SIGTERM))
    assert heard == []


def outlive_the_grace(signals: Signals) -> None:
    with signals.interruptible(grace_seconds=0.05):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(SECONDS)


def test_a_block_that_outlives_its_grace_is_interrupted(heard):
    with Signals().installed() as signals, pytest.raises(StopRequested):
        outlive_the_grace(signals)
    assert heard == []


@pytest.fixture
def forked():
    """Fork a process that writes a dot again and again; return it and where they are read."""
    ready, told = os.pipe()
    children: list[int] = []

    def start() -> tuple[int, int]:
        children.append(os.fork())
        if children[-1] == 0:
            for _ in range(20 * SECONDS):
                os.write(told, b".")
                time.sleep(0.05)
            os._exit(0)
        return children[-1], ready

    yield start
    os.close(ready)
    os.close(told)


def test_a_forked_process_hears_nothing_of_the_run_and_ends_after_it(heard, forked):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Signals().installed():
        child, dots = forked()
        os.read(dots, 1)
        os.kill(child, signal.SIGTERM)
        time.sleep(0.2)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
