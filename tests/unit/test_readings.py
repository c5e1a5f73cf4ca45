"""One reading for all who look."""

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

from gateway.readings import OfEach, Shared, read_anew, shared_of


class Site:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> int:
        self.reads += 1
        return self.reads


def test_a_thousand_who_look_cost_one_reading_a_second() -> None:
    """They come from several threads at once; who comes while it is read waits for that reading."""
    site, begun = Site(), threading.Event()
    shared = shared_of(Site.read)

    def look(_number: int) -> int:
        begun.wait(10)
        return shared.of(site).get()

    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        looks = [pool.submit(look, number) for number in range(1000)]
        begun.set()
        seen = [one.result(timeout=60) for one in looks]
    assert site.reads <= 1 + int(time.monotonic() - started)
    assert seen[0] == 1


def test_those_who_wait_for_a_slow_reading_share_it() -> None:
    """Although it took longer than a reading counts: its time begins at its end."""
    now, site = [0.0], Site()

    def slowly() -> int:
        now[0] += 10
        return site.read()

    shared = Shared(slowly, seconds=1, clock=lambda: now[0])
    assert [shared.get(), shared.get()] == [1, 1]
    now[0] += 1.1
    assert shared.get() == 2


def test_what_is_too_old_is_read_anew() -> None:
    site = Site()
    shared = Shared(site.read, seconds=0)
    assert [shared.get(), shared.get()] == [1, 2]


def test_each_owner_has_its_own_and_is_not_kept() -> None:
    one, other = Site(), Site()
    shared = shared_of(Site.read)
    assert (shared.of(one).get(), shared.of(other).get(), one.reads, other.reads) == (1, 1, 1, 1)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_who_changed_something_sees_it_at_once() -> None:
    """Of every owner; a reading that was begun before the change does not count."""
    one, other = Site(), Site()
    shared = shared_of(Site.read)
    shared.of(one).get()
    shared.of(other).get()
    read_anew()
    assert (shared.of(one).get(), shared.of(other).get()) == (2, 2)
    begun, go_on, states = threading.Event(), threading.Event(), ["before", "after"]

    def slowly() -> str:
        begun.set()
        assert go_on.wait(10)
        return states.pop(0)

    slow = Shared(slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.get)
        assert begun.wait(10)
        read_anew()  # nor does it wait for it
        go_on.set()
        assert first.result(timeout=10) == "before"
    assert slow.get() == "after"


def test_what_was_made_stays() -> None:
    site = Site()
    kept: OfEach[Site, list[int]] = OfEach(lambda _site: [])
    kept.of(site).append(1)
    assert kept.of(site) == [1]
