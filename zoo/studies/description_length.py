"""How many bits does coding an embedding's rows with a dictionary save?

The rows are coded with dictionaries of three sizes: `n_atoms`, a half and a quarter of it. The bits of dictionary and
codes are compared with those that a Gaussian source needs at the same error.
"""

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
    "below": "fewer bits than for Gaussian rows",
    "above": "more bits than for Gaussian rows",
    "undecided": "no clear difference from Gaussian rows",
}


@dataclass(frozen=True)
class DescriptionLength(StudyOfDictionaries):
    """The bits of dictionary and codes are compared with those that a Gaussian source needs at the same error."""

    @cached_property
    def _learned(self) -> dict[int, dict[str, list[LearnDictionaries]]]:
        """Tasks that learn dictionaries, by size and matrix; `basis-pursuit` uses the largest size too."""
        n, D = self.atoms, self.shape[1]
        sizes = [m for m in (n // 4, n // 2) if m >= LEAST_ATOMS]
        present = MATRICES if self.few == self.coded else MATRICES[:2]  # planted rows take as long as the others
        found = {m: {x: self.learn(x, m, gauged=0) for x in present if x in matrices(m, D)} for m in sizes}
        return found | {n: {x: self.learn(x) for x in MATRICES if x in matrices(n, D)}}

    def tasks(self) -> Sequence[Task]:
        """Return the tasks that learn dictionaries of all sizes, matrices and seeds."""
        return [task for by_matrix in self._learned.values() for tasks in by_matrix.values() for task in tasks]

    def report(self, results: Results) -> Report:
        """Return a report on the fewest bits over all penalties, divided by the bits of a Gaussian."""
        ratios = {
            n: {m: np.array([_least(results[task]) for task in tasks]) for m, tasks in by_matrix.items()}
            for n, by_matrix in self._learned.items()
        }
        present = list(dict.fromkeys(m for by_matrix in ratios.values() for m in by_matrix))
        found = {n: {m: estimates.share(v) for m, v in of.items()} for n, of in ratios.items()}
        gaps = {n: estimates.difference(of["embedding"], of["covariance-matched"]) for n, of in ratios.items()}
        best = min(found, key=lambda n: found[n]["embedding"].mean)
        real, null, gap = found[best]["embedding"], found[best]["covariance-matched"], gaps[best]
        n_rows = len(results[self.coded]["W_E"])
        rows: list[list[Any]] = [[n, *(of.get(m) for m in present), gaps[n]] for n, of in found.items()]
        sizes = [str(n) for n in found]
        series = [
            Series.of(m, sizes, [of.get(m, estimates.UNKNOWN) for of in found.values()], "points") for m in present
        ]
        section = Section(
            self.name,
            "How many bits does coding the rows with a dictionary save?",
            f"With {best:,} atoms for {n_rows:,} rows, dictionary and codes take {real:.2f} times the bits that a "
            f"Gaussian source of the same covariance needs at the same error. For Gaussian rows the ratio is "
            f"{null:.2f}. The difference is {gap:.2f}: {TOLD[gap.sign]}. A ratio below 1 would mean that sparse coding "
            "needs fewer bits than any code for Gaussian rows.",
            tables=[
                Table(
                    ["atoms", *present, "embedding - covariance-matched"],
                    rows,
                    digits=2,
                    note="Ratio of total bits (dictionary, indices and coefficients, 8 bits per number) to the "
                    "Gaussian rate-distortion bound at the error of the rounded reconstruction, at the penalty where "
                    "the ratio is smallest. Brackets are 95 % Student t intervals over seeds. The interval of a "
                    "difference contains 0 if one more draw of the null model could have the embedding's ratio. A "
                    f"dictionary of all {n_rows:,} rows would trivially have error 0 at L0 1.",
                )
            ],
            charts=[
                Chart(
                    f"{self.name}-bits",
                    "Bits relative to the Gaussian bound",
                    series,
                    "atoms",
                    "bits / Gaussian bound",
                    caption="Whiskers: 95 % intervals.",
                )
            ],
            null_models="Gaussian rows with the same mean and covariance; planted rows, which are sums of 4 random "
            "atoms, if the sizes allow them.",
            not_shown="Codes with fewer bits per coefficient, and entropy coding, are not tested. The Gaussian bound "
            "holds for long blocks of rows, so no code of single rows reaches it.",
            numbers={"ratio": {n: {**of, "difference": gaps[n]} for n, of in found.items()}, "told": TOLD[gap.sign]},
        )
        certainty = f"Brackets are 95 % intervals over {self.seeds} seeds. One embedding was studied."
        return Report(self.source, Verdict(section.finding, certainty, numbers={"difference": gap}), [section])


def _least(result: Result) -> float:
    """Return the smallest ratio, over penalties, of bits to those of a Gaussian at the same error."""
    return min((_ratio(line) for line in result["lines"] if "fvu_at_bits" in line), default=float("nan"))


def _ratio(line: dict[str, Any]) -> float:
    bound = line["gaussian_bits_per_row"]
    return float(line["bits_per_row"] / bound) if bound > 0 else float("inf")
