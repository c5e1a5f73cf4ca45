"""Words of a file that somebody else wrote, as they may be shown on a terminal."""

LONGEST_SHOWN = 120


def shown(text: object, longest: int = LONGEST_SHOWN) -> str:
    """The text in one line, without control characters, cut where it is long."""
    plain = "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(text)[: longest * 2])
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
