"""Has leased GPUs measured while the gateway serves. A failure is logged and never stops serving."""

import logging
import threading
from datetime import UTC, datetime, timedelta

from gateway.config.sections import GpuSettings
from gateway.errors import DevgwError
from gateway.gpus.sampler import Sampler, holders_of
from gateway.gpus.sensors import Measuring
from gateway.store.leases import LeaseTable
from gateway.store.usage import UsageTable

_log = logging.getLogger(__name__)
_FORGET_SECONDS = 3600


class GpuSampling:
    """Measures at every interval and forgets old samples once an hour, on a thread of its own."""

    def __init__(self, sampler: Sampler, samples: UsageTable, *, interval_seconds: float, keep_seconds: float) -> None:
        self._sampler = sampler
        self._samples = samples
        self._interval = interval_seconds
        self._keep = timedelta(seconds=keep_seconds)
        self._forgotten_at: datetime | None = None
        self._stop = threading.Event()

    @classmethod
    def of(cls, chosen: GpuSettings, sensors: Measuring, leases: LeaseTable, samples: UsageTable) -> "GpuSampling":
        """Measure what is leased, as the settings say."""
        sampler = Sampler(sensors, lambda: holders_of(leases.held()), samples, chosen.sample_interval)
        return cls(sampler, samples, interval_seconds=chosen.sample_interval, keep_seconds=chosen.keep_samples)

    def start(self) -> None:
        """Begin, also again; ends with the process or by `stop`."""
        self._stop = threading.Event()
        threading.Thread(target=self.run, name="sample", daemon=True).start()

    def stop(self) -> None:
        """Begin no other look."""
        self._stop.set()

    def run(self) -> None:
        """Look at every interval until told to stop."""
        stop = self._stop
        while True:
            try:
                self.look(datetime.now(UTC))
            except DevgwError as exc:
                _log.warning("GPUs were not measured: %s", exc.message)
            except Exception:  # noqa: BLE001 - whatever it was, the next look must come
                _log.exception("GPUs were not measured")
            if stop.wait(self._interval):
                return

    def look(self, now: datetime) -> None:
        """Measure once; once an hour also forget what is older than is kept. Raises: DevgwError."""
        self._sampler.look()
        if self._forgotten_at is None or (now - self._forgotten_at).total_seconds() >= _FORGET_SECONDS:
            self._samples.forget(now - self._keep)
            self._forgotten_at = now
