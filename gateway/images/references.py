"""How images are named: a channel such as `cuda`, an image held fast such as `cuda@sha256:…`, or an engine's own name.

A channel is written `devgw/env:cuda` in settings, policies and rows; people may write `cuda`.
"""

import re
from dataclasses import dataclass

from gateway.errors import UsageError

REPOSITORY = "devgw/env"
SHORT = 12
_CHANNEL = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_BUILD = re.compile(r".*-[0-9a-f]{12}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{12,64}")
_BARE = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody wrote: a name, a digest (perhaps its beginning), or both."""

    name: str
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a reference. Raises: UsageError `image.bad-reference`."""
        name, at, digest = text.partition("@")
        if not at and _DIGEST.fullmatch(text):
            name, digest = "", text
        elif not at and _BARE.fullmatch(text):
            name, digest = "", f"sha256:{text}"
        elif (at and (not name or not _DIGEST.fullmatch(digest))) or (not at and not text):
            raise _bad(text)
        return cls(name, digest)

    @property
    def channel(self) -> str:
        """The channel that the name may be; empty for what none is called."""
        return channel_in(self.name)


def channel_in(name: str) -> str:
    """Return the channel's own name: `cuda` of `cuda` and of `devgw/env:cuda`; empty for what none is called."""
    bare = name.removeprefix(f"{REPOSITORY}:")
    return bare if _CHANNEL.fullmatch(bare) and not _BUILD.fullmatch(bare) else ""


def parse_channel(text: str) -> str:
    """Return a channel's own name. Raises: UsageError `image.bad-channel`."""
    channel = channel_in(text)
    if not channel:
        message = f"{text[:64]!r} is not a name for a channel"
        raise UsageError("image.bad-channel", message, "lower-case letters, digits, dots and dashes, such as cuda")
    return channel


def name_of_channel(channel: str) -> str:
    """Return a channel as settings, policies and engines write it."""
    return f"{REPOSITORY}:{channel}"


def short(digest: str) -> str:
    """Return a digest as people read it."""
    return digest.removeprefix("sha256:")[:SHORT]


def _bad(text: str) -> UsageError:
    hint = "a name, sha256:DIGEST, or NAME@sha256:DIGEST; 'devgw image list' shows them"
    return UsageError("image.bad-reference", f"{text[:80]!r} names no image", hint)
