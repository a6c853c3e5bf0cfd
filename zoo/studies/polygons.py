"""Do networks that represent five or six features in two dimensions find the regular pentagon and hexagon?

One feature is active at a time. The regular polygon of all features is the best known arrangement. Networks that miss
it often set one feature to zero and arrange the others as the next smaller polygon.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.estimates import Estimate, rate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import Result, Results, Study, Task, Work

FEATURES = {5: "pentagon", 6: "hexagon"}
SHAPES = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon"}
CLOSE = 0.01  # excess over the regular polygon's loss, as a share of that loss, up to which a network counts as it
COLORS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class TrainFeatures(Task):
    """Train networks that represent features in two dimensions, on the exact loss, side by side in one module."""

    n_features: int
    networks: int
    steps: int

    def do(self, work: Work) -> Result:
        """Return lists over networks.

        They hold the `loss`, `directions` (n, 2), `bias` and `dimensionality` (n), and `kept`, the number of features
        that the network represents.
        """
        import lightning as L
        import torch

        from zoo.active_inputs import FixedActive
        from zoo.callbacks.feature_geometry import REPRESENTED
        from zoo.datamodules import SparseFeaturesDataModule
        from zoo.metrics import feature_dimensionality
        from zoo.models import AdamLinear, ToySuperposition
        from zoo.models.toy.superposition import one_sparse_loss
        from zoo.quiet_fit import fit

        n = self.n_features
        L.seed_everything(0, verbose=False)
        data = SparseFeaturesDataModule(n, FixedActive(1), "uniform", n_seeds=self.networks, batch_size=64)
        module = ToySuperposition(n, 2, self.networks, loss="one_sparse", optimizer=AdamLinear(0.01, 0, 0.5))
        fit(module, data, self.steps)
        W_in, b = module.net.W_in.detach().double(), module.net.b.detach().double()
        found = {"loss": one_sparse_loss(W_in, b, torch.ones(n)), "directions": W_in, "bias": b}
        found["dimensionality"] = feature_dimensionality(W_in)
        kept = (np.linalg.norm(W_in.numpy(), axis=2) > REPRESENTED).sum(1)
        return {name: value.tolist() for name, value in found.items()} | {"kept": kept.tolist()}

    def seconds(self) -> float:
        """Return an estimate of the time for the overhead of all steps, which is most of the time."""
        return 0.1 + 0.0017 * self.steps


@dataclass(frozen=True)
class FindRegular(Task):
    """Find the best regular polygon of the first `corners` features; the other features stay at 0."""

    n_features: int
    corners: int

    def do(self, work: Work) -> Result:
        """Return the `loss` per active input, the `length` of a direction, and the `bias` of features that are kept.

        They minimise the exact loss over three numbers: the common length of the directions, the bias of features that
        are kept, and the bias of features that are not.
        """
        import torch
        from scipy import optimize

        from zoo.models.toy.superposition import one_sparse_loss

        angles = 2 * math.pi * torch.arange(self.n_features, dtype=torch.float64) / self.corners
        kept = torch.arange(self.n_features) < self.corners
        circle = torch.stack([angles.cos(), angles.sin()], 1) * kept.unsqueeze(1)

        def loss(point: np.ndarray) -> float:
            length, on, off = (float(value) for value in point)
            b = torch.where(kept, on, off).double().unsqueeze(0)
            return float(one_sparse_loss(length * circle.unsqueeze(0), b, torch.ones(self.n_features)))

        options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000}
        starts = [(1.0, -0.2, 0.1), (1.3, -0.6, 0.1)]
        found: Any = min(
            (optimize.minimize(loss, start, method="Nelder-Mead", options=options) for start in starts),
            key=lambda one: float(one.fun),
        )
        return {"loss": float(found.fun), "length": abs(float(found.x[0])), "bias": float(found.x[1])}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.1


@dataclass(frozen=True)
class Polygon:
    """The trained networks with one number of features, and the regular polygons they are compared with.

    Args:
        n_features: Number of features n.
        loss: Loss of every network, per active input.
        directions: Directions of every network's features, (networks, n, 2).
        bias: Biases of every network's features, (networks, n).
        dimensionality: Dimensionalities of every network's features, (networks, n).
        kept: Number of features that every network represents.
        regular: `loss`, `length` and `bias` of regular polygons, by number of corners.
        reach: Number of networks that reach the regular polygon of all features.
        share: Share of networks that reach it.
        best: The network with the smallest loss: its index, `loss`, mean `length` of a direction, and mean `bias`.
    """

    n_features: int
    loss: list[float]
    directions: list[Any]
    bias: list[Any]
    dimensionality: list[Any]
    kept: list[int]
    regular: dict[str, Result]
    reach: int
    share: Estimate
    best: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the regular polygon of all features."""
        return FEATURES[self.n_features]

    @property
    def wanted(self) -> Result:
        """Loss, length and bias of the regular polygon of all features."""
        return self.regular[str(self.n_features)]


@dataclass(frozen=True)
class Polygons(Study):
    """Networks are trained to represent five or six features in two dimensions, and their shapes are compared.

    Args:
        networks: Number of networks for each number of features.
        steps: Number of optimizer steps.
    """

    networks: PositiveInt = 64
    steps: PositiveInt = 3000

    def tasks(self) -> Sequence[Task]:
        """Return a training task for each number of features, and the tasks that find the regular polygons."""
        found: list[Task] = [TrainFeatures(n, self.networks, self.steps) for n in FEATURES]
        return [*found, *(FindRegular(n, corners) for n in FEATURES for corners in range(3, n + 1))]

    def report(self, results: Results) -> Report:
        """Return a report on how many networks find the regular polygons, and on what the other networks find."""
        polygons = [self._judge(n, results) for n in FEATURES]
        told = [
            f"{p.reach} of {self.networks} networks reach the {p.name} (share {p.share:.2f}); the best network has a "
            f"loss of {p.best['loss']:.6f} per active input (regular polygon: {p.wanted['loss']:.6f}), directions of "
            f"mean length {p.best['length']:.4f} ({p.wanted['length']:.4f}) and a mean bias of {p.best['bias']:.4f} "
            f"({p.wanted['bias']:.4f})"
            for p in polygons
        ]
        section = Section(
            "polygons",
            "In which shapes do five and six features share two dimensions?",
            f"{'. '.join(told)}.",
            tables=[_table(polygons)],
            charts=[*map(_directions, polygons), _losses(polygons)],
            null_models=(
                "The regular polygons of all features and of fewer features. Their direction length and biases "
                "minimise the exact loss."
            ),
            not_shown=(
                "More features or dimensions, different importances, correlated features, and other distributions of "
                "feature values are not tested. Networks that compute absolute values in superposition are not "
                "tested either (toy/absolute_value.yaml trains them). How often a network reaches a polygon depends on "
                "its initialisation and training."
            ),
            numbers={"polygons": [asdict(polygon) for polygon in polygons]},
        )
        evidence = [
            [
                f"Do networks find the {p.name}?",
                f"{p.reach} of {self.networks} networks, share {p.share:.2f}",
                yes(p.reach),
            ]
            for p in polygons
        ]
        certainty = f"Brackets are 95 % Wilson intervals of the share among {self.networks} networks."
        numbers = {"evidence": evidence, "networks": self.networks, "polygons": {p.name: p.share for p in polygons}}
        table = Table(["question", "measured", "answer"], evidence).markdown()
        subject = f"{self.networks} networks for each number of features, two dimensions, one active feature at a time"
        return Report(subject, Verdict(f"{_answer(polygons)}.", certainty, table, numbers), [section])

    def _judge(self, n: int, results: Results) -> Polygon:
        run = results[TrainFeatures(n, self.networks, self.steps)]
        regular = {str(corners): results[FindRegular(n, corners)] for corners in range(3, n + 1)}
        loss = np.array(run["loss"])
        reach, k = int((loss <= (1 + CLOSE) * regular[str(n)]["loss"]).sum()), int(loss.argmin())
        length = float(np.linalg.norm(np.array(run["directions"][k]), axis=1).mean())
        best = {"network": k, "loss": run["loss"][k], "length": length, "bias": float(np.array(run["bias"][k]).mean())}
        return Polygon(n, **run, regular=regular, reach=reach, share=rate(reach, len(loss)), best=best)


def yes(count: int) -> str:
    """Return "yes" for a count above 0, otherwise "no"."""
    return "yes" if count else "no"


def _answer(polygons: Sequence[Polygon]) -> str:
    found, missed = ([p.name for p in polygons if bool(p.reach) == hit] for hit in (True, False))
    if not found:
        return f"No network with two dimensions finds the regular {' or '.join(missed)}"
    return f"Networks with two dimensions find the regular {' and '.join(found)}" + (
        f", but not the {' or the '.join(missed)}" if missed else ""
    )


def _table(polygons: Sequence[Polygon]) -> Table:
    columns = ["features", "networks that reach it", "share", "loss: regular", "loss: best network"]
    columns += ["length: regular", "length: best network", "bias: regular", "bias: best network"]
    columns += ["dimensionality of a feature: best network", "dimensionality: regular", "features kept: networks"]
    rows: list[list[Any]] = []
    for p in polygons:
        kept = ", ".join(f"{k}: {p.kept.count(k)}" for k in sorted(set(p.kept)))
        pairs = [value for key in ("loss", "length", "bias") for value in (p.wanted[key], p.best[key])]
        dimensions = float(np.mean(p.dimensionality[p.best["network"]])), 2 / p.n_features
        rows.append([f"{p.n_features}: {p.name}", f"{p.reach} of {len(p.loss)}", p.share, *pairs, *dimensions, kept])
    note = f"A network reaches a polygon if its loss is at most {100 * CLOSE:g} % above that of the regular polygon."
    return Table(columns, rows, 5, f"{note} Losses are per active input. Shares have 95 % Wilson intervals.")


def _directions(p: Polygon) -> Chart:
    W = np.array(p.directions[p.best["network"]])
    order = np.argsort(np.arctan2(W[:, 1], W[:, 0]))
    around, labels = W[[*order, order[0]]], [str(i + 1) for i in range(p.n_features)]
    x, y = W.T.tolist()
    return Chart(
        f"polygons-{p.name}",
        f"{p.n_features} features in 2 dimensions: the best network",
        [
            Series("shape", around[:, 0].tolist(), around[:, 1].tolist(), "dotted", color=COLORS[1]),
            Series("features", x, y, "points", labels=labels, written=True, color=COLORS[0]),
        ],
        map=True,
        caption=f"Feature directions of the network with the smallest loss among {len(p.loss)}.",
    )


def _losses(polygons: Sequence[Polygon]) -> Chart:
    lines = []
    for p, color in zip(polygons, cycle(COLORS)):
        name, losses = f"{p.n_features} features", sorted(p.loss)
        lines.append(Series(name, list(range(1, len(losses) + 1)), losses, "points", color=color))
        for corners in (p.n_features, p.n_features - 1):
            told = f"regular {SHAPES[corners]}" + ("" if corners == p.n_features else ", one feature left out")
            level = [p.regular[str(corners)]["loss"]] * 2
            lines.append(Series(name, [1, len(losses)], level, "dashed", labels=[told] * 2, color=color))
    caption = "Dashed: the regular polygon of all features and, above it, that of all features but one."
    title, labels = "Losses of all networks, sorted", ("network", "loss per active input")
    return Chart("polygons-losses", title, lines, *labels, caption=caption)
