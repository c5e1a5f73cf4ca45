"""What `--gpu` asks for, parsed, and which GPUs are of that kind. Who gets which is the work of `gpus.leases`."""

import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import UsageError
from gateway.model import Gpu, GpuUuid

_COUNT = re.compile(r"[0-9]{1,6}")
_MODEL = re.compile(r"(?P<model>[A-Za-z][A-Za-z0-9-]{0,30})(?::(?P<count>[0-9]{1,6}))?")
_PROFILE = re.compile(
    r"(?P<profile>(?:[0-9]{1,2}c\.)?[0-9]{1,2}g\.[0-9]{1,4}gb(?:\+[a-z.]{1,10})?)(?::(?P<count>[0-9]{1,6}))?",
    re.IGNORECASE,
)
_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-f][0-9a-f-]{6,40}[0-9a-f]", re.IGNORECASE)
_FORMS = "such as 0, 1, h200:1, 1g.10gb or a GPU's UUID"


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """How many, and of which kind. `model` and `profile` are lower case; with `uuids` the request names its GPUs."""

    count: int = 0
    model: str = ""
    profile: str = ""
    uuids: tuple[GpuUuid, ...] = ()

    @property
    def profiles(self) -> tuple[str, ...]:
        """The MIG profile, as a policy asks for it; empty for whole GPUs and where GPUs are named by UUID."""
        return (self.profile,) if self.profile else ()


def parse_gpu_request(text: str) -> GpuRequest:
    """Read `2`, `h200:1`, `1g.10gb`, `GPU-…` or `GPU-…,GPU-…`; an empty text asks for none.

    Raises:
        UsageError: `gpu.bad-request`; `gpu.several-slices` for more than one MIG slice.
    """
    asked = text.strip()
    if not asked:
        return GpuRequest()
    if _COUNT.fullmatch(asked):
        return GpuRequest(int(asked))
    if asked.upper().startswith(("GPU-", "MIG-")):
        return _named(asked)
    if match := _PROFILE.fullmatch(asked):
        count = int(match["count"] or 1)
        if count > 1:
            raise several_slices()
        return GpuRequest(count, profile=match["profile"].lower()) if count else GpuRequest()
    if match := _MODEL.fullmatch(asked):
        count = int(match["count"] or 1)
        return GpuRequest(count, model=match["model"].lower()) if count else GpuRequest()
    raise UsageError("gpu.bad-request", f"{asked[:40]!r} is not a number or kind of GPUs", f"write --gpu {_FORMS}")


def is_of_kind(gpu: Gpu, asked: GpuRequest) -> bool:
    """Match a MIG profile exactly and a model by whole words: `a10` is not in `NVIDIA A100`."""
    if asked.profile:
        return gpu.mig_profile == asked.profile
    if gpu.mig_profile or gpu.uuid.startswith("MIG-"):
        return False
    return not asked.model or _words(asked.model) <= _words(gpu.name)


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def several_slices() -> UsageError:
    """Say why two slices are not handed out together."""
    return UsageError(
        "gpu.several-slices",
        "an environment gets one MIG slice: a CUDA process uses only one, and slices have no link between them",
        "ask for a larger slice, or for whole GPUs with --gpu 2",
    )


def _named(asked: str) -> GpuRequest:
    uuids = tuple(GpuUuid(part.strip()) for part in asked.split(","))
    for uuid in uuids:
        if _UUID.fullmatch(uuid) is None:
            raise UsageError("gpu.bad-request", f"{uuid[:60]!r} is not a GPU's UUID", "'devgw gpus' lists them")
    if len({uuid.lower() for uuid in uuids}) != len(uuids):
        raise UsageError("gpu.bad-request", "a GPU is named twice", "name each once")
    if len(uuids) > 1 and any(uuid.upper().startswith("MIG-") for uuid in uuids):
        raise several_slices()
    return GpuRequest(len(uuids), uuids=uuids)
