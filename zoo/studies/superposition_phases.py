"""At which densities and importances are two features superposed in one dimension, and does theory predict this?

This is the phase diagram of Elhage et al. 2022, "Toy Models of Superposition". The output y = ReLU(w (w·x) + b) has to
equal x, for two features x and a single hidden dimension. Theory predicts the network with the least expected loss.
Densities, which are the probabilities that a feature is active, range from 0.01 to 1. Importances of the second feature
relative to the first range from 0.1 to 10.
"""

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

FLIP_DENSITIES = np.linspace(0.4, 0.95, 12)  # densities at which the flip at importance 1 is searched
TRIES = 8  # networks at each of these densities, of which the best is used; a single one is often stuck
COLORS = ("first", "second", "third")  # colours of the phases


@dataclass(frozen=True)
class TrainAllPoints(Task):
    """Train one network for every density and importance, and those for the flip density, in one module."""

    points: int
    steps: int
    batch_size: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return `theta` (N + 96, 4), the weights and biases (w1, w2, b1, b2) of each network.

        The first N networks are those of the N points, the others those of the 8 tries at 12 densities.
        """
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
        """Return an estimate of the time to draw the inputs, which is most of the time."""
        return 0.1 + self.steps * (0.0005 + 6e-8 * self.batch_size * (self.points**2 + TRIES * len(FLIP_DENSITIES)))


@dataclass(frozen=True)
class FindLeastLoss(Task):
    """Find the networks with the least expected loss at all points, and the flip density at importance 1.

    The flip density is the largest density at which both of two equally important features are represented.
    """

    points: int

    def do(self, work: Work) -> Result:
        """Return `theta` (N, 4), the flip density `flip` from a fine grid, and `coarse_flip` from `FLIP_DENSITIES`."""
        fine = np.linspace(FLIP_DENSITIES[0], FLIP_DENSITIES[-1], 100)
        flip, coarse = (flip_density(d, minimum(d, np.ones_like(d))[0]) for d in (fine, FLIP_DENSITIES))
        return {"theta": minimum(*grid(self.points))[0], "flip": flip, "coarse_flip": coarse}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 1 + 0.008 * self.points**2


@dataclass(frozen=True)
class Phases:
    """Phases of trained networks and of theory.

    Args:
        p: Densities of all points, (N,).
        importance: Importances of the second feature, (N,).
        theory: Phases of the networks with the least expected loss, (N,).
        trained: Phases of the best trained networks, (N,).
        agree: Whether theory and trained networks agree, (N,) bool.
        seed_agrees: Share of points at which a single network agrees.
        excess: Relative excess of the best networks' losses over the least possible loss, (N,).
        flips: Flip density of every seed, (seeds,); not finite if there is none.
        flip: Mean flip density over the seeds that have one.
        theory_flip: Flip density in theory, from the same densities.
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
    """Networks represent two features in one dimension; which features they keep is compared with theory.

    Args:
        points: Number of densities, and of importances; it must be odd, so that importance 1 is included.
        steps: Number of optimizer steps.
        batch_size: Number of input vectors per network and step.
        seeds: Number of networks at every point, of which the best is used.
    """

    points: PositiveInt = 17
    steps: PositiveInt = 1500
    batch_size: PositiveInt = 256
    seeds: AtLeastTwo = 10

    def check(self) -> None:
        """Refuse numbers of points for which importance 1 is not included."""
        if self.points < 3 or self.points % 2 == 0:
            raise ZooError(f"points is {self.points}; it must be odd and at least 3")

    def tasks(self) -> Sequence[Task]:
        """Return one task for every seed, and the task of theory."""
        return [FindLeastLoss(self.points), *self._training()]

    def _training(self) -> list[Task]:
        return [TrainAllPoints(self.points, self.steps, self.batch_size, seed) for seed in range(self.seeds)]

    def report(self, results: Results) -> Report:
        """Return a report that compares the phases of trained networks with theory."""
        theory = results[FindLeastLoss(self.points)]
        found = judge(theory, np.array([results[task]["theta"] for task in self._training()]))
        same, n, below = int(found.agree.sum()), len(found.agree), max(0.0, -float(found.excess.min()))
        finding = (
            f"The best of {self.seeds} networks is in the phase that theory predicts at {same} of {n} points; a single "
            f"network is in this phase at a share of {found.seed_agrees} of the points. At equal importance, "
            f"superposition ends at a density of {found.flip}, in theory at {found.theory_flip:.3f}."
        )
        section = Section(
            "phases",
            "At which densities and importances do two features share one dimension?",
            finding,
            tables=self._tables(found, theory["flip"]),
            charts=self._charts(found),
            null_models=(
                "Theory: the least expected loss over weights and biases. Descents start at either feature alone, and "
                "at both features with equal and with opposite signs."
            ),
            not_shown=(
                "More features or dimensions, correlated features, features that are not uniform in [0, 1], other "
                "optimizers, and densities below 0.01 are not tested. It is not proven that the descents find the "
                f"global minimum; no trained network has a loss that is lower by a share of more than {below:.1e}."
            ),
            numbers={**vars(found), "seeds": self.seeds},
        )
        answer = "yes" if same == n else "at most points" if 2 * same > n else "no"
        measured = f"best network: at {same} of {n} points; single network: at a share of {found.seed_agrees}"
        evidence = [["Are the phases of two features those that theory predicts?", measured, answer]]
        headline = f"Networks keep the features that theory predicts at {same} of {n} pairs of density and importance."
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} seeds. The best of {self.seeds} networks is used "
            "at every point, because a single one is often stuck in a local minimum."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "seeds": self.seeds, "agree": same, "points": n}
        subject = f"{self.points} densities x {self.points} importances, {self.seeds} networks at each"
        return Report(subject, Verdict(headline, certainty, table, numbers), [section])

    def _tables(self, found: Phases, fine_flip: float) -> list[Table | str]:
        n, finite = len(found.agree), int(np.isfinite(found.flips).sum())
        percent = f"{100 * float(np.median(found.excess)):.3f} %", f"{100 * float(found.excess.max()):.2f} %"
        rows: list[list[Any]] = [
            [f"points, of {n}, at which the best of {self.seeds} networks agrees with theory", int(found.agree.sum())],
            ["share of points at which a single network agrees", found.seed_agrees],
            ["excess of the best network's loss over the least possible loss: median", percent[0]],
            ["excess of the best network's loss over the least possible loss: largest", percent[1]],
            ["flip density at importance 1: theory, fine grid", fine_flip],
            ["flip density at importance 1: theory, densities as trained", found.theory_flip],
            [f"flip density at importance 1: trained, mean of {finite} seeds", found.flip],
        ]
        note = (
            "A feature counts as represented if |w| is at least 1/2. The flip density is the largest density at which "
            "both features are represented. At importance 1 either feature may be the one left. Both weights shrink "
            "together as density grows, until one jumps to a smaller value and shrinks further; the flip density "
            "therefore depends on the threshold 1/2. The flip density of a seed is interpolated between "
            f"{len(FLIP_DENSITIES)} densities, with the best of {TRIES} networks at each."
        )
        tables: list[Table | str] = [Table(["quantity", "value"], rows, 4, note)]
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
            ("theory", "Phases in theory: least expected loss", found.theory, kinds),
            ("trained", f"Phases of trained networks: best of {self.seeds}", found.trained, kinds),
        ]
        if not found.agree.all():
            names = {1: "theory and training agree", 0: "theory and training differ"}
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
    """Compare the phases of trained networks with theory.

    Args:
        least: Result of `FindLeastLoss`.
        networks: `theta` of `TrainAllPoints` for all seeds, (seeds, N + 96, 4).
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
    """Return the flip density of one seed's networks (96, 4) at `FLIP_DENSITIES`, from the best try at each density."""
    best, _ = best_of(tries.reshape(TRIES, -1, 4), FLIP_DENSITIES, np.ones(len(FLIP_DENSITIES)))
    return flip_density(FLIP_DENSITIES, best)
