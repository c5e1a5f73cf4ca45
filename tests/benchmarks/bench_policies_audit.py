"""How fast policies decide and the journal writes and verifies: prints numbers, asserts nothing about time.

Run it on a quiet machine: `python tests/benchmarks/bench_policies_audit.py [RECORDS]`.
"""

import multiprocessing
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.read import Filter, stream
from gateway.audit.verify import verify
from gateway.model import Actor
from policies.decide import decide
from policies.load import parse_policy
from policies.model import Policy
from policies.reach import who_can
from policies.requests import ForwardRequest, Subject

ALICE = Actor("user", "alice", "SHA256:" + "a" * 43, "192.0.2.7")
THREADS, PROCESSES = 16, 4


def policy_with(users: int, roles: int, roles_each: int) -> Policy:
    """Build a policy in which every grant has an end and every role networks, hours, ports and a denial."""
    parts = ["version = 1\n"]
    parts += [
        f'[roles.r{role}]\nsessions = ["exec"]\npermit_open = [{9000 + role}, "20000-2{role:04}"]\n'
        f'networks = ["10.0.0.0/8"]\nhours = ["mon-sun 00:00-24:00"]\ndatasets = ["set{role}"]\n'
        f'max_environments = 1\nimages = ["*"]\n[roles.r{role}.deny]\npermit_open = [22]\n'
        for role in range(roles)
    ]
    for user in range(users):
        names = [f"r{(user + step) % roles}" for step in range(roles_each)]
        parts.append(f'[[grants]]\nusers = ["u{user}"]\nroles = {names}\nuntil = 2100-01-01\n')
    return parse_policy("".join(parts), "bench.toml")


def bench_decisions(roles_each: int) -> None:
    """Time forwards by 1,000 users, allowed and denied alike."""
    policy, now = policy_with(1000, 100, roles_each), datetime.now(UTC)
    requests = [
        ForwardRequest(Subject(f"u{user}", "10.1.2.3", "ssh-ed25519", 256, "SHA256:x"), now, "localhost", port)
        for user in range(1000)
        for port in (9000 + user % 100, 8888)
    ]
    first = _timed(lambda: [decide(policy, request) for request in requests])
    again = min(_timed(lambda: [decide(policy, request) for request in requests]) for _ in range(3))
    print(
        f"decision, 1,000 users, 100 roles, {roles_each} each: {again / len(requests) * 1e6:.1f} us"
        f" (first time {first / len(requests) * 1e6:.1f} us)"
    )


def bench_who_can() -> None:
    """Time one question for 10,000 users."""
    policy = policy_with(10_000, 100, 3)
    users = [f"u{user}" for user in range(10_000)]
    for question in ("forward 9001", "dataset set7"):
        seconds = _timed(lambda question=question: list(who_can(policy, users, question, datetime.now(UTC))))
        print(f"who-can {question}, 10,000 users: {seconds:.2f} s")


def _event(number: int) -> Event:
    detail: dict[str, str | int | float | bool | None] = {"host": "localhost", "port": 8888, "n": number}
    rule, reason = "roles.member.permit_open (policy.toml:24)", "forwards to 'localhost' port 8888 are permitted"
    return Event("forward.allowed", ALICE, "alice", "allowed", rule, reason, detail)


def _write(directory: Path, count: int) -> None:
    """Write from 16 threads, each of which waits for every event to be durable."""
    journal = Journal(directory)

    def work() -> None:
        for number in range(count // THREADS):
            journal.append(_event(number))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()


def _flood(directory: Path, count: int) -> None:
    """Write as an event loop does: up to 256 events under way at a time."""
    journal = Journal(directory)
    for start in range(0, count, 256):
        for future in [journal.submit(_event(start + number)) for number in range(min(256, count - start))]:
            future.result()
    journal.close()


def bench_journal(directory: Path, count: int) -> None:
    """Time durable events by threads, by one event loop, and by several processes at once."""
    for name, act in (("16 waiting threads", _write), ("one event loop, 256 under way", _flood)):
        seconds = _timed(lambda act=act, name=name: act(directory / name, count))
        print(f"journal, {name}: {count / seconds:,.0f} durable events/s")
    context = multiprocessing.get_context("fork")
    for name, act in ((f"{PROCESSES} processes of 16 threads", _write), (f"{PROCESSES} event loops", _flood)):
        processes = [context.Process(target=act, args=(directory / name, count // PROCESSES)) for _ in range(PROCESSES)]
        seconds = _timed(lambda processes=processes: _run(processes))
        report = verify(directory / name)
        print(f"journal, {name}: {count / seconds:,.0f} durable events/s (chain {'whole' if report.ok else 'BROKEN'})")


def _run(processes: list[multiprocessing.context.ForkProcess]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def bench_verify(directory: Path, count: int) -> None:
    """Time verification and a filtered read, with the memory that verification adds at its peak."""
    journal = Journal(directory)
    for start in range(0, count, 4096):
        for future in [journal.submit(_event(start + number)) for number in range(min(4096, count - start))]:
            future.result()
    journal.close()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        before, after, seconds, records = pool.apply(_verify_alone, (directory,))
    peak = f"{(after - before) / 1024:.1f} MiB more at peak"
    print(f"verify, {records:,} records: {records / seconds:,.0f} events/s, {peak}")
    seconds = _timed(lambda: sum(1 for _ in stream(directory, Filter(user="nobody"))))
    print(f"log --user nobody, {records:,} records: {seconds:.2f} s")


def _verify_alone(directory: Path) -> tuple[int, int, float, int]:
    before = _peak_kib()
    started = perf_counter()
    report = verify(directory)
    seconds = perf_counter() - started
    if not report.ok:
        raise SystemExit(f"the benchmark's own journal does not verify: {report.problem}")
    return before, _peak_kib(), seconds, report.records


def _peak_kib() -> int:
    """Return the most memory this process has held (VmHWM of proc(5)); getrusage would count the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _timed(act: Callable[[], object]) -> float:
    started = perf_counter()
    act()
    return perf_counter() - started


def main() -> None:
    """Run everything."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    bench_decisions(5)
    bench_decisions(100)
    bench_who_can()
    directory = Path(tempfile.mkdtemp(prefix="devgw-bench-"))
    try:
        bench_journal(directory, min(count, 64_000))
        bench_verify(directory / "large", count)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
