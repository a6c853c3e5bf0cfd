"""How many bits does a dictionary of tokens save?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo import estimates
from zoo.matrices import matrices
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.pursuit import LEAST_ATOMS, StudyOfDictionaries
from zoo.study import Result, Results, Task

MATRICES = ("embedding", "covariance-matched", "planted")
TOLD = {
    "below": "fewer bits than theirs",
    "above": "more bits than theirs",
    "undecided": "as many bits as a Gaussian's rows, as far as this can tell",
}


@dataclass(frozen=True)
class DescriptionLength(StudyOfDictionaries):
    """Bits of dictionary and codes at three sizes of dictionary, over those that a Gaussian source needs."""

    @cached_property
    def _learned(self) -> dict[int, dict[str, list[LearnDictionaries]]]:
        """By size and matrix; the largest as in `basis-pursuit`."""
        n, D = self.atoms, self.shape[1]
        sizes = [m for m in (n // 4, n // 2) if m >= LEAST_ATOMS]
        found = {m: {x: self.learn(x, m, gauged=0) for x in MATRICES if x in matrices(m, D)} for m in sizes}
        return found | {n: {x: self.learn(x) for x in MATRICES if x in matrices(n, D)}}

    def tasks(self) -> Sequence[Task]:
        """Dictionaries of all sizes, matrices and seeds."""
        return [task for by_matrix in self._learned.values() for tasks in by_matrix.values() for task in tasks]

    def report(self, results: Results) -> Report:
        """Least bits over penalties, in units of a Gaussian's."""
        ratios = {
            n: {m: np.array([_least(results[task]) for task in tasks]) for m, tasks in by_matrix.items()}
            for n, by_matrix in self._learned.items()
        }
        present = list(dict.fromkeys(m for by_matrix in ratios.values() for m in by_matrix))
        found = {n: {m: estimates.share(v) for m, v in of.items()} for n, of in ratios.items()}
        gaps = {n: estimates.difference(of["embedding"], of["covariance-matched"]) for n, of in ratios.items()}
        best = min(found, key=lambda n: found[n]["embedding"].mean)
        real, null, gap = found[best]["embedding"], found[best]["covariance-matched"], gaps[best]
        n_rows = len(results[self.rows]["W_E"])
        rows: list[list[Any]] = [[n, *(of.get(m) for m in present), gaps[n]] for n, of in found.items()]
        sizes = [str(n) for n in found]
        series = [
            Series.of(m, sizes, [of.get(m, estimates.UNKNOWN) for of in found.values()], "points") for m in present
        ]
        section = Section(
            self.name,
            "How many bits does the token dictionary save?",
            f"With {best:,} atoms for {n_rows:,} rows, dictionary and codes take {real:.2f} times the bits that a "
            f"Gaussian source of the same covariance needs for the same error, and {null:.2f} times on Gaussian rows, "
            f"difference {gap:.2f}: {TOLD[gap.sign]}. Below 1 sparse coding would beat any code for Gaussian rows.",
            tables=[
                Table(
                    ["atoms", *present, "embedding - covariance-matched"],
                    rows,
                    digits=2,
                    note="Total bits (dictionary, indices and coefficients, 8 bits a number) over the Gaussian's "
                    "rate-distortion bound at the error of the rounded reconstruction, at the penalty where that is "
                    "least. Brackets: 95 % Student t intervals over seeds; that of the difference asks whether one "
                    f"more draw of the null model could be as far away. A dictionary of all {n_rows:,} rows would have "
                    "no "
                    "error at L0 1, and is no finding.",
                )
            ],
            charts=[
                Chart(
                    f"{self.name}-bits",
                    "Bits over the Gaussian bound",
                    series,
                    "atoms",
                    "ratio",
                    caption="Whiskers: 95 %.",
                )
            ],
            null_models="The same for Gaussian rows with the same mean and covariance, and for planted rows, sums of 4 "
            "random atoms, if there can be any.",
            not_shown="Codes with fewer bits per coefficient, and entropy coding. The Gaussian bound holds for long "
            "blocks of rows, so no code of single rows reaches it.",
            numbers={"ratio": {n: {**of, "difference": gaps[n]} for n, of in found.items()}, "told": TOLD[gap.sign]},
        )
        certainty = f"Brackets are 95 % intervals over {self.seeds} seeds; one embedding was studied."
        return Report(self.source, Verdict(section.finding, certainty, numbers={"difference": gap}), [section])


def _least(result: Result) -> float:
    """Least bits in units of a Gaussian's at the same error, over penalties."""
    return min((_ratio(line) for line in result["lines"] if "fvu_at_bits" in line), default=float("nan"))


def _ratio(line: dict[str, Any]) -> float:
    bound = line["gaussian_bits_per_row"]
    return float(line["bits_per_row"] / bound) if bound > 0 else float("inf")
