"""Figures, and how they are shown."""

import json
import statistics
from dataclasses import asdict, dataclass, field


@dataclass
class Target:
    """What the figure is to reach."""

    sign: str
    bound: float

    def is_met(self, value):
        """Whether this value does."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound

    def __str__(self):
        return f"{self.sign} {self.bound:g}"


def at_least(bound):
    """A target to reach or exceed."""
    return Target(">=", bound)


def at_most(bound):
    """A target to stay within."""
    return Target("<=", bound)


@dataclass
class Figure:
    """One thing that was measured: a value per round, and the one that counts."""

    bench: str
    case: str
    name: str
    rounds: list
    target: Target | None = None
    # "median", or "max" where a limit has to hold always.
    of_rounds: str = "median"
    value: float = field(init=False)
    met: bool | None = field(init=False)

    def __post_init__(self):
        self.value = max(self.rounds) if self.of_rounds == "max" else statistics.median(self.rounds)
        self.met = self.target.is_met(self.value) if self.target else None


class Report:
    """Everything that a run has found out."""

    def __init__(self, about):
        self.about = about
        self.figures = []
        self.failures = []
        self.notes = []

    def add(self, *arguments, **options):
        """A figure; see there."""
        self.figures.append(Figure(*arguments, **options))

    def fail(self, bench, why):
        """A bench that could not be done."""
        self.failures.append(f"{bench}: {why}")

    def note(self, text):
        """Something to know when reading the figures."""
        self.notes.append(text)

    def table(self):
        """For a person at a terminal."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        rows = [("bench", "case", "figure", "value", "min .. max", "target", "")]
        rows += [_row(figure) for figure in self.figures]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for number, row in enumerate(rows):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
            if number == 0:
                lines.append("  ".join("-" * width for width in widths))
        lines.append("")
        lines += [f"Note: {note}" for note in self.notes]
        lines += [f"FAILED: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def json(self):
        """For a program."""
        found = {"about": self.about, "figures": [], "notes": self.notes, "failures": self.failures}
        for figure in self.figures:
            plain = asdict(figure)
            plain["target"] = str(figure.target) if figure.target else None
            found["figures"].append(_rounded(plain))
        return json.dumps(found, indent=2) + "\n"


def _row(figure):
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    target = str(figure.target) if figure.target else ""
    spread = f"{_short(min(figure.rounds))} .. {_short(max(figure.rounds))}"
    return (figure.bench, figure.case, figure.name, _short(figure.value), spread, target, verdict)


def _short(number):
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def _rounded(value):
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
