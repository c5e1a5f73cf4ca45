"""Who looks at the page."""

from dataclasses import dataclass, field

from policies.requests import PageLevel


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, as the gateway says."""

    user: str
    key: str
    address: str
    environment: str
    connection: str
    secret: str = field(repr=False)
    claim: str = field(repr=False)
    level: PageLevel = "user"
