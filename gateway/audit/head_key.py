"""The gateway's key for journal heads as two files: the private one signs, the public one goes to whoever verifies."""

import os
from contextlib import suppress
from pathlib import Path

from gateway.audit.heads import Signer, Verifier
from gateway.errors import JournalError


class HeadKey:
    """`journal_head`, mode 0600, and `journal_head.pub` beside it, which holds one line: the verifier key."""

    def __init__(self, directory: Path, instance: str = "", own_directory: Path | None = None) -> None:
        """Of several gateways with one key each signs under its own name; its public half lies in its own directory."""
        self.private = directory / "journal_head"
        self.public = (own_directory or directory) / "journal_head.pub"
        self._instance = instance

    def ensure(self, name: str) -> Signer:
        """Load the key, or make it under a name. Raises: JournalError `head.bad-key`, OSError."""
        if not self.private.exists():
            self.private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process made it just now
                Signer.create(self.private, name)
        signer = self.load()
        if not self.public.exists():
            self.public.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.public.write_text(f"{signer.verifier}\n")
        return signer

    def load(self) -> Signer:
        """Load the private key. Raises: JournalError `head.bad-key`."""
        signer = Signer.load(self.private)
        return signer.named(f"{signer.verifier.name}/{self._instance}") if self._instance else signer


def read_verifiers(place: Path | str) -> tuple[Verifier, ...]:
    """Read verifier keys from a file, one a line, the older ones too where the key was changed; or from a key's text.

    Raises:
        JournalError: `head.bad-key`.
    """
    text = str(place)
    if not text.count("+") >= 2 or Path(place).exists():
        try:
            text = Path(place).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            hint = "'devgw audit head --verifier' prints it on the gateway"
            raise JournalError("head.bad-key", f"{place}: the verifier key cannot be read", hint) from exc
    return tuple(Verifier.parse(line) for line in text.splitlines() if line.strip()) or (Verifier.parse(text),)


def read_verifier(place: Path | str) -> Verifier:
    """Read one verifier key, the newest of a file. Raises: JournalError `head.bad-key`."""
    return read_verifiers(place)[-1]


def verifier_beside(head: Path, own: Path) -> Path:
    """Return where the verifier key for a head is expected: beside it as `HEAD.pub`, else this gateway's own."""
    beside = head.with_name(f"{head.name}.pub")
    return beside if beside.exists() or not os.access(own, os.R_OK) else own
