"""Which superpositions would sparse coding recognise if the rows were made of them?

Planted rows are sums of random atoms plus noise, with several numbers of atoms per row and shares of noise. There are
more atoms than dimensions, and fewer than a dictionary has. Dictionaries are learned from planted rows and evaluated in
the same way as those of the embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from jsonargparse.typing import NonNegativeFloat, OpenUnitInterval, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.matrices import planted_atoms
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import LearnDictionaries, pursued_error
from zoo.shared_tasks.pursuit import StudyOfDictionaries
from zoo.shared_tasks.rows import Rows
from zoo.study import Results, Task
from zoo.wording import listed

SPARSITIES = (2, 4, 8, 16, 32)  # atoms per row
NOISES = (0.0, 0.05, 0.1, 0.2)  # shares of the variance
ROWS = 8192  # number of planted rows, or 3 per atom if that is more; their norms are those of random rows
MANY_DIMENSIONS = 256  # from which on planted rows that can hardly be recognised are left out by default


@dataclass(frozen=True)
class RecognisedSuperpositions(StudyOfDictionaries):
    """Positive controls: planted superpositions with the norms of an embedding's rows.

    Args:
        tolerance: FVU (fraction of variance unexplained) up to which sparse coding counts as explaining the rows.
        sparsities: Numbers of atoms per planted row, by default 2, 4, 8, 16 and 32; from 256 dimensions on at most as
            many as the codes have. Those above the number of planted atoms are left out.
        noises: Shares of the planted rows' variance that are noise. By default 0, 0.05, 0.1 and 0.2; from 256
            dimensions on only those up to the tolerance, because a few atoms leave nearly all of the noise unexplained.
    """

    tolerance: OpenUnitInterval = 0.05
    sparsities: tuple[PositiveInt, ...] | None = None
    noises: tuple[NonNegativeFloat, ...] | None = None

    def check(self) -> None:
        """Refuse noise that leaves nothing else."""
        if self.noises is not None and max(self.noises) >= 1:
            raise ZooError(f"noises are {self.noises}; shares of the variance must be below 1")

    @cached_property
    def n_planted(self) -> int | None:
        """Number of atoms that planted rows are made of; None if no control is possible."""
        return planted_atoms(self.atoms, self.shape[1])

    @cached_property
    def _planted(self) -> dict[tuple[int, float], list[LearnDictionaries]]:
        shared: dict[str, Any] = {"rows": self._rows, "gauged": 0, "frequency_power": 0.0}
        return {
            (sparsity, noise): self.learn("planted", sparsity=sparsity, noise=noise, **shared)
            for sparsity, noise in product(self._sparsities, self._noises)
        }

    @cached_property
    def _rows(self) -> Rows:
        most = max(ROWS, 3 * self.atoms)
        return self.coded if most >= self.coded.number else replace(self.coded, some=most)

    @cached_property
    def _sparsities(self) -> list[int]:
        """The numbers of atoms per row that do not exceed the number of planted atoms."""
        most = self.n_planted or 0
        if self.sparsities is not None:
            if most and min(self.sparsities) > most:
                raise ZooError(f"sparsities are {self.sparsities}, but there are only {most} planted atoms")
            return [sparsity for sparsity in self.sparsities if sparsity <= most]
        most = min(most, self.at_l0) if self._large else most
        return [sparsity for sparsity in SPARSITIES if sparsity <= most]

    @property
    def _large(self) -> bool:
        return self.shape[1] >= MANY_DIMENSIONS

    @cached_property
    def _noises(self) -> tuple[float, ...]:
        if self.noises is not None:
            return self.noises
        return tuple(noise for noise in NOISES if noise <= self.tolerance or not self._large)

    @cached_property
    def _gaussian(self) -> list[LearnDictionaries]:
        return self.learn("isotropic", rows=self.few)

    @cached_property
    def _embedding(self) -> list[LearnDictionaries]:
        return self.learn("embedding")

    def tasks(self) -> Sequence[Task]:
        """Return the tasks that learn dictionaries of all kinds of planted rows, Gaussian rows, and the embedding.

        There are none if no control is possible.
        """
        if not self.n_planted:
            return []
        planted = [task for tasks in self._planted.values() for task in tasks]
        return [*planted, *self._gaussian, *self._embedding]

    def report(self, results: Results) -> Report:
        """Return a report on the error of every kind of planted rows, and on which kinds count as explained."""
        title, D = "Which superpositions would have been recognised?", self.shape[1]
        if not self.n_planted:
            why = (
                f"No control is possible with {self.atoms} atoms in {D} dimensions: planted rows are "
                "superpositions only if they have more atoms than dimensions, and a dictionary finds these atoms only "
                "if it has more atoms than the planted rows."
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
            for noise in self._noises
        ]
        cells = [
            [self._cell(found[s, noise], recognised[s, noise]) for noise in self._noises] for s in self._sparsities
        ]
        finding = sentence(recognised)
        section = Section(
            self.name,
            title,
            finding,
            tables=[
                Table(
                    ["atoms per row", *(f"{100 * noise:g} % noise" for noise in self._noises)],
                    [[s, *row] for s, row in zip(self._sparsities, cells, strict=True)],
                    note=f"Held-out FVU of {len(results[self._rows]['W_E']):,} rows that are sums of some of "
                    f"{self.n_planted} random atoms in {D} dimensions, coded in the same way as the embedding. Bold: "
                    f"counts as explained, because its interval is below {self.tolerance:g} and that of isotropic "
                    "Gaussian rows is above. Brackets are 95 % Student t intervals over seeds.",
                )
            ],
            charts=[
                Chart(
                    f"{self.name}-error",
                    "Held-out error of planted superpositions",
                    [*series, Series("the embedding", ends, [own, own], "dotted")],
                    "planted atoms per row",
                    f"FVU of codes with {self.at_l0} atoms per row",
                    log_x=True,
                    caption="Bands: 95 % intervals.",
                )
            ],
            null_models="Isotropic Gaussian rows with the norms of the embedding's rows.",
            not_shown=(
                f"Only planted rows with {listed([str(s) for s in self._sparsities])} atoms and noise of "
                f"{listed([f'{100 * noise:g}' for noise in self._noises])} % of the variance are tested. "
                "Planted rows with an error above the tolerance are not compared with Gaussian rows of the same "
                "covariance. Superpositions with other coefficients, other directions of atoms, or more atoms are not "
                "tested."
            ),
            numbers={"lines": lines, "planted_atoms": self.n_planted},
        )
        certainty = f"Brackets are 95 % intervals over {self.seeds} draws of atoms and rows."
        return Report(self.source, Verdict(finding, certainty, numbers={"recognised": finding}), [section])

    def _cell(self, error: Estimate, recognised: bool) -> str:
        return f"**{error}**" if recognised else f"{error}"


def explained(error: Estimate, gaussian: Estimate, tolerance: float) -> bool:
    """Return whether an error is below the tolerance and that of Gaussian rows is above it."""
    return bool(error.high <= tolerance < gaussian.low)


def sentence(recognised: dict[tuple[int, float], bool]) -> str:
    """Return a sentence that says which superpositions would have been recognised.

    Args:
        recognised: Whether each kind counts as explained, by atoms per row and noise.
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
        return "None of the planted superpositions would have been recognised."
    parts = []
    for most, noises in sorted(reach.items(), reverse=True):
        level = "without noise" if noises == [0] else f"with {_shares(noises)} noise"
        parts.append(f"up to {most} atoms {level}")
    return f"Planted rows that are sums of {', '.join(parts)} would have been recognised as superpositions."


def _shares(noises: Sequence[float]) -> str:
    least, most = f"{100 * noises[0]:g}", f"{100 * noises[-1]:g}"
    return f"{most} %" if least == most else f"{least} to {most} %"
