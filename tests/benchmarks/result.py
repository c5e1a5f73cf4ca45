"""One row of the table: ratios of pairs measured next to each other, and how they are shown and judged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Result:
    """The gateway's value against a reference's, pair by pair; each pair was measured within seconds."""

    name: str
    reference: str
    unit: str
    goal: float
    higher_is_better: bool
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    floor: str = ""

    @property
    def title(self) -> str:
        """What the row is called where ratios are recorded."""
        return f"{self.name} vs {self.reference}"

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, sorted."""
        return sorted(mine / other for mine, other in zip(self.ours, self.theirs, strict=True) if other)

    @property
    def ratio(self) -> float:
        """The median."""
        return median(self.ratios)

    @property
    def met(self) -> bool:
        """Say whether the goal is reached."""
        return self.ratio >= self.goal if self.higher_is_better else self.ratio <= self.goal

    def row(self) -> str:
        """Return a line of a Markdown table."""
        sign = "≥" if self.higher_is_better else "≤"
        spread = f"{self.ratios[0]:.2f}-{self.ratios[-1]:.2f}"
        mine, other = f"{median(self.ours):.4g}", f"{median(self.theirs):.4g}"
        verdict = "yes" if self.met else "**no**"
        return (
            f"| {self.name} | {self.reference} | {mine} | {other} {self.unit} | **{self.ratio:.2f}** ({spread}) "
            f"| {sign} {self.goal:.2f} | {verdict} | {self.floor} |"
        )

    def keep(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self) | {"ratio": round(self.ratio, 3), "met": self.met}

    def worsened(self, recorded: float, tolerance: float = 0.8) -> bool:
        """Say whether less than a share of a recorded ratio is left."""
        if self.higher_is_better:
            return self.ratio < recorded * tolerance
        return self.ratio > recorded / tolerance


HEADER = (
    "| measure | reference | devgw | reference's | ratio: median (spread) | goal | met | floor |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table(results: Sequence[Result]) -> str:
    """Return all rows as a Markdown table."""
    return "\n".join([HEADER, *(result.row() for result in results)])
