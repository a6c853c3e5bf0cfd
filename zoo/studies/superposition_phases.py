"""When are two features superposed in one dimension, over density and importance, and is it as theory says?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.analysis.two_feature_phases import PHASES, agree, best_of, flip_density, grid, phase
from zoo.analysis.two_feature_theory import expected_loss, minimum
from zoo.errors import ZooError
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work

FLIP_DENSITIES = np.linspace(0.4, 0.95, 12)  # where the flip at importance 1 is looked for,
TRIES = 8  # by the best of so many networks, as a single one is often stuck
COLORS = ("first", "second", "third")  # of the phases


@dataclass(frozen=True)
class TrainAllPoints(Task):
    """One network for every density and importance, and those that look for the flip, side by side in one module."""

    points: int
    steps: int
    batch_size: int
    seed: int

    def do(self, work: Work) -> Result:
        """Weights and biases (w1, w2, b1, b2) of the networks of every point and then of every try, (N + 96, 4)."""
        import lightning as L

        from zoo.active_inputs import BernoulliActive
        from zoo.datamodules import SparseFeaturesDataModule
        from zoo.models import AdamLinear, ToySuperposition
        from zoo.quiet_fit import fit

        p, importance = grid(self.points)
        p = np.concatenate([p, np.tile(FLIP_DENSITIES, TRIES)])
        importance = np.concatenate([importance, np.ones(len(p) - len(importance))])
        L.seed_everything(self.seed, verbose=False)
        active = BernoulliActive((2 * p).tolist())
        data = SparseFeaturesDataModule(2, active, "uniform", None, len(p), self.batch_size, seed=self.seed)
        module = ToySuperposition(2, 1, len(p), importance=importance.tolist(), optimizer=AdamLinear(0.01, 0, 0.5))
        fit(module, data, self.steps)
        parts = [v.detach().flatten(1).double().numpy() for v in (module.net.W_in, module.net.b)]
        return {"theta": np.concatenate(parts, 1)}

    def seconds(self) -> float:
        """Mostly the draw of the inputs."""
        return 0.1 + self.steps * (0.0005 + 6e-8 * self.batch_size * (self.points**2 + TRIES * len(FLIP_DENSITIES)))


@dataclass(frozen=True)
class FindLeastLoss(Task):
    """The networks of least expected loss at all points, and where one of two equal features is given up."""

    points: int

    def do(self, work: Work) -> Result:
        """`theta` (N, 4), the density of the `flip` on a fine grid, and the same on that of trained networks."""
        fine = np.linspace(FLIP_DENSITIES[0], FLIP_DENSITIES[-1], 100)
        flip, coarse = (flip_density(d, minimum(d, np.ones_like(d))[0]) for d in (fine, FLIP_DENSITIES))
        return {"theta": minimum(*grid(self.points))[0], "flip": flip, "coarse_flip": coarse}

    def seconds(self) -> float:
        """Measured."""
        return 1 + 0.008 * self.points**2


@dataclass(frozen=True)
class Phases:
    """What was found.

    Args:
        p: Densities of all points, (N,).
        importance: Importances of the second feature, (N,).
        theory: Phases of the networks of least expected loss, (N,).
        trained: Phases of the best trained networks, (N,).
        agree: Where these two agree, (N,).
        seed_agrees: Share of points where a single network agrees.
        excess: By what share the best networks' losses are above the least, (N,).
        flips: Density of the flip of every seed, (seeds,).
        flip: Their mean, over seeds that have one.
        theory_flip: The same in theory, from the same densities.
    """

    p: np.ndarray
    importance: np.ndarray
    theory: np.ndarray
    trained: np.ndarray
    agree: np.ndarray
    seed_agrees: Estimate
    excess: np.ndarray
    flips: np.ndarray
    flip: Estimate
    theory_flip: float


@dataclass(frozen=True)
class SuperpositionPhases(Study):
    """Two features share one dimension; which of them a network keeps is compared with the least expected loss.

    The phase diagram of Elhage et al. 2022, "Toy Models of Superposition": y = ReLU(w (w·x) + b) should be x, for two
    features in one dimension. Densities run from 0.01 to 1, and importances of the second feature, relative to the
    first, from 0.1 to 10.

    Args:
        points: Densities, and as many importances; an odd number, so that importance 1 is among them.
        steps: Optimizer steps.
        batch_size: Vectors per network and step.
        seeds: Networks at every point, the best of which counts.
    """

    points: PositiveInt = 17
    steps: PositiveInt = 1500
    batch_size: PositiveInt = 256
    seeds: AtLeastTwo = 10

    def check(self) -> None:
        """Refuse numbers of points without importance 1."""
        if self.points < 3 or self.points % 2 == 0:
            raise ZooError(f"points is {self.points}; it must be odd and at least 3")

    def tasks(self) -> Sequence[Task]:
        """One for every seed, and theory."""
        return [FindLeastLoss(self.points), *self._training()]

    def _training(self) -> list[Task]:
        return [TrainAllPoints(self.points, self.steps, self.batch_size, seed) for seed in range(self.seeds)]

    def report(self, results: Results) -> Report:
        """Phases, trained and in theory."""
        theory = results[FindLeastLoss(self.points)]
        found = judge(theory, np.array([results[task]["theta"] for task in self._training()]))
        same, n, below = int(found.agree.sum()), len(found.agree), max(0.0, -float(found.excess.min()))
        finding = (
            f"The best of {self.seeds} networks is in the phase of the least expected loss at {same} of {n} points, a "
            f"single one at {found.seed_agrees} of them; at equal importance superposition ends at a density of "
            f"{found.flip}, in theory at {found.theory_flip:.3f}."
        )
        section = Section(
            "phases",
            "When do two features share one dimension?",
            finding,
            tables=self._tables(found, theory["flip"]),
            charts=self._charts(found),
            null_models=(
                "The least expected loss over weights and biases, from descents that start at either feature alone "
                "and at both with equal and with opposite signs."
            ),
            not_shown=(
                "More features or dimensions, correlated features, features that are not uniform in [0, 1], other "
                "optimizers, and densities below 0.01. That the descents of the theory find the global minimum is not "
                f"proven; no trained network's loss was smaller than it by a share of more than {below:.1e}."
            ),
            numbers={**vars(found), "seeds": self.seeds},
        )
        answer = "yes" if same == n else "at most of them" if 2 * same > n else "no"
        measured = f"the best network at {same} of {n} points, a single one at {found.seed_agrees}"
        evidence = [["Are phases of two features those of theory?", measured, answer]]
        headline = f"Two features in one dimension are kept as theory says at {same} of {n} densities and importances."
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} seeds. The best of {self.seeds} networks counts "
            "at every point, as a single one is often stuck."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "seeds": self.seeds, "agree": same, "points": n}
        subject = f"{self.points} densities x {self.points} importances, {self.seeds} networks at each"
        return Report(subject, Verdict(headline, certainty, table, numbers), [section])

    def _tables(self, found: Phases, fine_flip: float) -> list[Table | str]:
        n, finite = len(found.agree), int(np.isfinite(found.flips).sum())
        percent = f"{100 * float(np.median(found.excess)):.3f} %", f"{100 * float(found.excess.max()):.2f} %"
        rows: list[list[Any]] = [
            [f"points, of {n}, where the best of {self.seeds} seeds is in the phase of theory", int(found.agree.sum())],
            ["the same as a share, for single seeds", found.seed_agrees],
            ["loss of the best seed above the least possible: median", percent[0]],
            ["the same, largest", percent[1]],
            ["flip density at importance 1, theory", fine_flip],
            ["the same, theory, from no more densities than are trained", found.theory_flip],
            [f"the same, trained, mean of {finite} seeds", found.flip],
        ]
        note = (
            "Phases are told apart at |w| = 1/2. At importance 1 either feature may be the one that is kept; there, "
            "both weights shrink together as density grows, until one jumps to a smaller size and shrinks on, so that "
            f"the flip density depends on that threshold. A seed's is interpolated between {len(FLIP_DENSITIES)} "
            f"densities, at each of which the best of {TRIES} networks counts."
        )
        tables: list[Table | str] = [Table(["what", "found"], rows, 4, note)]
        if not found.agree.all():
            rows = [
                [float(found.p[k]), float(found.importance[k]), PHASES[found.theory[k]], PHASES[found.trained[k]]]
                for k in np.flatnonzero(~found.agree)
            ]
            tables.append(Table(["density", "importance", "theory", "trained"], rows))
        return tables

    def _charts(self, found: Phases) -> list[Chart]:
        kinds = dict(enumerate(PHASES))
        maps = [
            ("theory", "Phases in theory: the least expected loss", found.theory, kinds),
            ("trained", f"Phases trained: the best of {self.seeds} networks", found.trained, kinds),
        ]
        if not found.agree.all():
            names = {1: "theory and training agree", 0: "they differ"}
            maps.append(("differ", "Where theory and training differ", found.agree.astype(int), names))
        return [
            Chart(
                f"phases-{key}",
                title,
                [
                    Series(
                        name,
                        found.p[values == kind].tolist(),
                        found.importance[values == kind].tolist(),
                        "points",
                        color=COLORS[kind],
                    )
                    for kind, name in names.items()
                ],
                "density: probability that a feature is on",
                "importance of feature 2 relative to feature 1",
                log_x=True,
                log_y=True,
            )
            for key, title, values, names in maps
        ]


def judge(least: Result, networks: np.ndarray) -> Phases:
    """Phases of trained networks beside theory.

    Args:
        least: See `FindLeastLoss`.
        networks: See `TrainAllPoints`, (seeds, N + 96, 4).
    """
    theory = least["theta"]
    p, importance = grid(round(len(theory) ** 0.5))
    trained, tries = np.split(networks, [len(p)], axis=1)
    best, losses = best_of(trained, p, importance)
    kinds = phase(theory)
    flips = np.array([trained_flip(one) for one in tries])
    return Phases(
        p,
        importance,
        kinds,
        phase(best),
        agree(kinds, phase(best), importance),
        mean([float(agree(kinds, phase(one), importance).mean()) for one in trained]),
        losses / expected_loss(theory, p, importance) - 1,
        flips,
        mean(flips[np.isfinite(flips)]),
        least["coarse_flip"],
    )


def trained_flip(tries: np.ndarray) -> float:
    """Flip density of one seed's networks at `FLIP_DENSITIES`, (96, 4): that of the best of the tries."""
    best, _ = best_of(tries.reshape(TRIES, -1, 4), FLIP_DENSITIES, np.ones(len(FLIP_DENSITIES)))
    return flip_density(FLIP_DENSITIES, best)
