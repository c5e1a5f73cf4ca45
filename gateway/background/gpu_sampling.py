"""Has leased GPUs measured while the gateway serves. A failure is logged and never stops serving."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from gateway.errors import DevgwError

if TYPE_CHECKING:
    from gateway.app.composition import App

_log = logging.getLogger(__name__)
_FORGET_SECONDS = 3600


def sample(app: "App", stop: threading.Event) -> None:
    """Look at every interval until told to stop, and once an hour forget what is older than `gpus.keep_samples`."""
    interval, keep = app.settings.gpus.sample_interval, timedelta(seconds=app.settings.gpus.keep_samples)
    forgotten_at: datetime | None = None
    while True:
        now = datetime.now(UTC)
        try:
            app.sampler.look()
            if forgotten_at is None or (now - forgotten_at).total_seconds() >= _FORGET_SECONDS:
                app.usage_table.forget(now - keep)
                forgotten_at = now
        except DevgwError as exc:
            _log.warning("GPUs were not measured: %s", exc.message)
        if stop.wait(interval):
            return
