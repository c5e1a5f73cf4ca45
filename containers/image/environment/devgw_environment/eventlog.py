"""One line per event on standard output, which the engine keeps as the environment's log."""

import sys
import time


def log_event(event: str, **details: object) -> None:
    """Write `time event key=value …`; values are escaped, so an event never spans two lines."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    fields = "".join(f" {key}={str(value).encode('unicode_escape').decode()}" for key, value in details.items())
    sys.stdout.write(f"{stamp} devgw-init {event}{fields}\n")
    sys.stdout.flush()
