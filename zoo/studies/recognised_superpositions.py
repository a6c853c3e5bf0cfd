"""Which superpositions would sparse coding have recognised, had the rows been made of them?

Rows are planted as sums of random atoms, more of them than dimensions and fewer than a dictionary has, at several
numbers of atoms a row and shares of noise. Dictionaries are learned from them and judged as those of an embedding are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from jsonargparse.typing import OpenUnitInterval

from zoo import estimates
from zoo.estimates import Estimate
from zoo.matrices import planted_atoms
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import LearnDictionaries, pursued_error
from zoo.shared_tasks.pursuit import StudyOfDictionaries
from zoo.study import Results, Task

SPARSITIES = (2, 4, 8, 16, 32)  # atoms in every row
NOISES = (0.0, 0.05, 0.1, 0.2)  # share of the variance
ROWS = 8192  # of a larger embedding, chosen at random, have their norms copied


@dataclass(frozen=True)
class RecognisedSuperpositions(StudyOfDictionaries):
    """Positive controls: planted superpositions with the norms of an embedding's rows.

    Args:
        tolerance: FVU below which sparse coding leaves nothing much unexplained.
    """

    tolerance: OpenUnitInterval = 0.05

    @cached_property
    def n_planted(self) -> int | None:
        """Atoms that rows are made of; None if no control is possible."""
        return planted_atoms(self.atoms, self.shape[1])

    @cached_property
    def _planted(self) -> dict[tuple[int, float], list[LearnDictionaries]]:
        rows = replace(self.rows, at_most=ROWS)
        shared: dict[str, Any] = {"rows": rows, "gauged": 0, "frequency_power": 0.0}
        return {
            (sparsity, noise): self.learn("planted", sparsity=sparsity, noise=noise, **shared)
            for sparsity, noise in product(self._sparsities, NOISES)
        }

    @cached_property
    def _sparsities(self) -> list[int]:
        """Atoms a row: not more than rows are made of."""
        return [sparsity for sparsity in SPARSITIES if self.n_planted and sparsity <= self.n_planted]

    @cached_property
    def _gaussian(self) -> list[LearnDictionaries]:
        return self.learn("isotropic")

    @cached_property
    def _embedding(self) -> list[LearnDictionaries]:
        return self.learn("embedding")

    def tasks(self) -> Sequence[Task]:
        """Dictionaries of every kind of planted rows, of Gaussian rows, and of the embedding."""
        if not self.n_planted:
            return []
        planted = [task for tasks in self._planted.values() for task in tasks]
        return [*planted, *self._gaussian, *self._embedding]

    def report(self, results: Results) -> Report:
        """The error of every kind, and which would have been called explained by superposition."""
        title, D = "Which superpositions would have been recognised?", self.shape[1]
        if not self.n_planted:
            why = (
                f"No control is possible with {self.atoms} atoms in {D} dimensions: planted rows are "
                "superpositions only if they have more atoms than dimensions, and a dictionary finds these only if it "
                "has more still."
            )
            return Report(self.source, Verdict(why, ""), [Section(self.name, title, why, tested=False)])
        errors = {kind: [pursued_error(results[task]) for task in tasks] for kind, tasks in self._planted.items()}
        gaussian = estimates.share([pursued_error(results[task]) for task in self._gaussian])
        found = {kind: estimates.share(values) for kind, values in errors.items()}
        recognised = {kind: explained(error, gaussian, self.tolerance) for kind, error in found.items()}
        lines = [
            {"sparsity": s, "noise": noise, "errors": errors[s, noise], "error": found[s, noise], "recognised": yes}
            for (s, noise), yes in recognised.items()
        ]
        own = estimates.mean([pursued_error(results[task]) for task in self._embedding]).mean
        ends = [float(min(self._sparsities)), float(max(self._sparsities))]
        series = [
            Series.of(
                f"{100 * noise:g} % noise",
                [float(s) for s in self._sparsities],
                [found[s, noise] for s in self._sparsities],
            )
            for noise in NOISES
        ]
        cells = [[self._cell(found[s, noise], recognised[s, noise]) for noise in NOISES] for s in self._sparsities]
        finding = sentence(recognised)
        section = Section(
            self.name,
            title,
            finding,
            tables=[
                Table(
                    ["atoms a row", *(f"{100 * noise:g} % noise" for noise in NOISES)],
                    [[s, *row] for s, row in zip(self._sparsities, cells, strict=True)],
                    note=f"Held-out error of rows that are sums of some of {self.n_planted} random atoms in {D} "
                    f"dimensions, coded as the embedding is. Bold: called explained (error below {self.tolerance:g}, "
                    "that of isotropic Gaussian rows above). Brackets are 95 % Student t intervals over seeds.",
                )
            ],
            charts=[
                Chart(
                    f"{self.name}-error",
                    "Held-out error of planted superpositions",
                    [*series, Series("the embedding", ends, [own, own], "dotted")],
                    "atoms a row",
                    f"FVU with {self.at_l0} atoms a row",
                    log_x=True,
                    caption="Bands: 95 %.",
                )
            ],
            null_models="Isotropic Gaussian rows with the norms of the embedding's.",
            not_shown=(
                "Whether planted rows with an error above the tolerance differ from Gaussian rows of their covariance. "
                "Superpositions with other coefficients, with atoms that are not in random directions, or with more "
                "atoms than these."
            ),
            numbers={"lines": lines, "planted_atoms": self.n_planted},
        )
        certainty = f"Brackets are 95 % intervals over {self.seeds} draws of atoms and rows."
        return Report(self.source, Verdict(finding, certainty, numbers={"recognised": finding}), [section])

    def _cell(self, error: Estimate, recognised: bool) -> str:
        return f"**{error}**" if recognised else f"{error}"


def explained(error: Estimate, gaussian: Estimate, tolerance: float) -> bool:
    """Whether an error is below the tolerance, and that of Gaussian rows is not."""
    return bool(error.high <= tolerance < gaussian.low)


def sentence(recognised: dict[tuple[int, float], bool]) -> str:
    """Which superpositions would have been recognised.

    Args:
        recognised: By atoms a row and noise.
    """
    reach: dict[int, list[float]] = {}
    for noise in sorted({noise for _, noise in recognised}):
        most = 0
        for sparsity in sorted(s for s, n in recognised if n == noise):
            if not recognised[sparsity, noise]:
                break
            most = sparsity
        if most:
            reach.setdefault(most, []).append(noise)
    if not reach:
        return "No superposition that was tried would have been called explained."
    parts = []
    for most, noises in sorted(reach.items(), reverse=True):
        level = "without noise" if noises == [0] else f"with {_shares(noises)} noise"
        parts.append(f"up to {most} atoms {level}")
    return f"Rows that are sums of {', '.join(parts)} would have been called explained by superposition."


def _shares(noises: Sequence[float]) -> str:
    least, most = f"{100 * noises[0]:g}", f"{100 * noises[-1]:g}"
    return f"{most} %" if least == most else f"{least} to {most} %"
