"""The side of a session that faces the environment: a channel of the gateway's own connection to its sshd."""

from typing import Protocol

import asyncssh

from gateway.ssh.transport.channels import EnvironmentChannel


class UserSide(Protocol):
    """What the environment's side tells the user's; see `user_side.UserSession`."""

    def write(self, data: bytes, datatype: int | None) -> None:
        """Pass output on."""

    def write_eof(self) -> None:
        """Pass the end of output on."""

    def pause_reading(self) -> None:
        """Take no more input for now."""

    def resume_reading(self) -> None:
        """Take input again."""

    def finish(self) -> None:
        """The channel has closed."""


class EnvironmentSession(asyncssh.SSHClientSession[bytes]):
    """The side towards the environment."""

    def __init__(self, near: UserSide) -> None:
        self._near = near
        self._opening: EnvironmentChannel | None = None
        self._lost = False
        self.channel: EnvironmentChannel | None = None
        """None until the program runs, and again when the channel is gone."""
        self.exit_status: int | None = None
        self.exit_signal: tuple[str, bool, str, str] | None = None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        assert isinstance(chan, EnvironmentChannel)  # noqa: S101 - UpstreamConnection makes no other
        self._opening = chan

    def start(self) -> EnvironmentChannel | None:
        """The program runs: take input from now on, unless it has ended already."""
        if not self._lost:
            self.channel = self._opening
        return self.channel

    def write(self, data: bytes) -> None:
        """Pass input on; dropped when the program has closed it."""
        if self.channel and not self.channel.is_closing():
            self.channel.write(data)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._near.write(data, datatype)

    def eof_received(self) -> bool:
        self._near.write_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_signal = (signal, core_dumped, msg, lang)

    def pause_writing(self) -> None:
        self._near.pause_reading()

    def resume_writing(self) -> None:
        self._near.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.channel, self._lost = None, True
        self._near.finish()
