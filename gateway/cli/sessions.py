"""`devgw sessions`: recordings of terminals. Needs no engine and no gateway."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import command_app

app = command_app(help="Play recorded sessions.")


@app.callback()
def sessions() -> None:
    """Play recorded sessions."""


@app.command()
def play(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording (asciicast v2).", show_default=False)],
    speed: Annotated[float, typer.Option("--speed", min=0.01, metavar="FACTOR", help="2 is twice as fast.")] = 1.0,
) -> None:
    """Show what a recorded terminal showed; it may drive yours, so use one that nothing hangs on."""
    from gateway.audit import recording

    recording.play(file, _show, time.sleep, speed=speed)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
