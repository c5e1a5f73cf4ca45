"""The gateway's host key: announce the next one, then use it, so that no client meets a key it has not learned."""

from dataclasses import dataclass

from gateway.auth.authority import Authority, fingerprint_of_line
from gateway.errors import AuthError, ConflictError
from gateway.operations.recorded import Recorded


@dataclass(frozen=True, slots=True)
class HostKey:
    """One of the gateway's keys as an administrator sees it."""

    fingerprint: str
    line: str
    is_next: bool


class HostKeyOperations:
    """An administrator's acts on the host key; processes that serve heed them at the next connection."""

    def __init__(self, authority: Authority, recorded: Recorded) -> None:
        self._authority = authority
        self._recorded = recorded

    def all(self) -> list[HostKey]:
        """Return the key in use and the next one, if it is announced. Raises: AuthError."""
        lines = [self._authority.host_key_line(), self._authority.next_host_key_line()]
        return [HostKey(fingerprint_of_line(line), line, index == 1) for index, line in enumerate(lines) if line]

    def announce(self) -> HostKey:
        """Make the next key. Raises: ConflictError `host-key.announced-already`, AuthError."""
        if self._authority.next_host_key_line():
            raise ConflictError(
                "host-key.announced-already",
                "the next host key is announced already",
                "'devgw host-key rotate --finish' puts it into use, once your users have connected",
            )
        with self._recorded.failing("host-key.announced"):
            line = self._authority.announce_host_key()
        key = HostKey(fingerprint_of_line(line), line, is_next=True)
        self._recorded.note("host-key.announced", fingerprint=key.fingerprint)
        return key

    def finish(self) -> HostKey:
        """Put the next key into use. Raises: ConflictError `host-key.not-announced`, AuthError."""
        line = self._authority.next_host_key_line()
        if line is None:
            raise ConflictError(
                "host-key.not-announced", "no next host key is announced", "'devgw host-key rotate' makes one"
            )
        previous, key = self.all()[0].fingerprint, fingerprint_of_line(line)
        with self._recorded.act("host-key.rotated", fingerprint=key, previous=previous):
            try:
                self._authority.use_next_host_key()
            except OSError as exc:
                raise AuthError(
                    "host-key.unwritable", f"the host key could not be replaced: {exc.strerror}", "make room, try again"
                ) from exc
        return HostKey(key, line, is_next=False)
