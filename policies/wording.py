"""How names from outside are put into a sentence: ASCII only, quoted, cut. Nothing a client sent reaches a line raw."""

_LONGEST = 60


def quote(text: str) -> str:
    """Quote a name so that control characters, bidi marks and look-alikes show as escapes."""
    return ascii(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!a}... ({len(text)} characters)"
