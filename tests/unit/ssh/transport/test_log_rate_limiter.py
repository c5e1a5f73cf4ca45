"""Log lines that clients can cause are few."""

from gateway.ssh.transport.log_rate_limiter import LogRateLimiter


def test_one_line_of_a_kind_in_a_while_and_the_rest_counted() -> None:
    now = [100.0]
    limiter = LogRateLimiter(60, lambda: now[0])
    assert [limiter.tell("MACError") for _ in range(4)] == [0, None, None, None]
    assert limiter.tell("ProtocolError") == 0
    now[0] += 60
    assert [limiter.tell("MACError") for _ in range(2)] == [3, None]
