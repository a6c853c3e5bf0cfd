"""When are two features superposed in one dimension? Over density and importance, trained and in theory."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from zoo.active_inputs import BernoulliActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.errors import ZooError
from zoo.models import AdamLinear, ToySuperposition
from zoo.quiet_fit import fit
from zoo.studies.intervals import interval
from zoo.studies.tasks import check_folder, do_all, write_json
from zoo.studies.two_feature_theory import expected_loss, minimum

PHASES = ["feature 2 ignored", "feature 2 dedicated (feature 1 ignored)", "superposition"]
COLORS = ["0.85", "#7fa8d9", "#d9564a"]
FLIP_DENSITIES = np.linspace(0.4, 0.95, 12)  # where the flip at importance 1 is looked for,
TRIES = 8  # by the best of so many networks, as a single one is often stuck


@dataclass(frozen=True)
class Task:
    """One network for every density and importance, and those that look for the flip, side by side in one module."""

    points: int
    steps: int
    batch_size: int
    seed: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"seed-{self.seed}.json"


def run(out: Path, seeds: int = 10, jobs: int = 1, points: int = 17, steps: int = 1500, batch_size: int = 256) -> None:
    """Do what is missing, then write `table.md` and `phases.png` into the folder.

    The phase diagram of Elhage et al. 2022, "Toy Models of Superposition": y = ReLU(w (w·x) + b) should be x, for two
    features in one dimension. Densities run from 0.01 to 1, and importances of the second feature, relative to the
    first, from 0.1 to 10.

    Args:
        out: Folder of the study; finished runs in it are not made again.
        seeds: Networks at every point, the best of which counts.
        jobs: Processes, of one thread each.
        points: Densities, and as many importances; an odd number, so that importance 1 is among them.
        steps: Optimizer steps.
        batch_size: Vectors per network and step.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    if seeds < 2 or jobs < 1:
        raise ZooError(f"seeds is {seeds} and jobs is {jobs}; an interval needs at least 2 seeds, and jobs at least 1")
    if points < 3 or points % 2 == 0:
        raise ZooError(f"points is {points}; it must be odd and at least 3")
    check_folder(out, {"points": points, "steps": steps, "batch_size": batch_size})
    tasks = [Task(points, steps, batch_size, seed) for seed in range(seeds)]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    p, importance = grid(points)
    networks = np.array([json.loads(task.file(out).read_text("utf-8"))["theta"] for task in tasks])
    trained, tries = np.split(networks, [len(p)], axis=1)  # (seeds, N, 4), (seeds, 8 * 12, 4)
    best, _ = best_of(trained, p, importance)
    theory, _ = minimum(p, importance)
    text = report(trained, theory, np.array([trained_flip(one) for one in tries]))
    (out / "table.md").write_text(text, "utf-8")
    draw(phase(theory), phase(best), agree(phase(theory), phase(best), importance)).savefig(out / "phases.png", dpi=120)


def grid(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Densities and importances of all points, (points²,) each; importances run faster."""
    importances = 10 ** np.linspace(-1, 1, points)
    return np.repeat(np.geomspace(0.01, 1, points), points), np.tile(importances, points)


def _do(task: Task, out: Path) -> None:
    start = time.perf_counter()
    theta = train(task)
    seconds = time.perf_counter() - start
    write_json(task.file(out), asdict(task) | {"seconds": seconds, "theta": theta.tolist()})


def train(task: Task) -> np.ndarray:
    """Weights and biases (w1, w2, b1, b2) of the trained networks of every point and every try, (N + 96, 4) float64."""
    p, importance = grid(task.points)
    p = np.concatenate([p, np.tile(FLIP_DENSITIES, TRIES)])
    importance = np.concatenate([importance, np.ones(len(p) - len(importance))])
    L.seed_everything(task.seed, verbose=False)
    active = BernoulliActive((2 * p).tolist())
    data = SparseFeaturesDataModule(2, active, "uniform", None, len(p), task.batch_size, seed=task.seed)
    module = ToySuperposition(2, 1, len(p), importance=importance.tolist(), optimizer=AdamLinear(0.01, 0, 0.5))
    fit(module, data, task.steps)
    return np.concatenate([v.detach().flatten(1).double().numpy() for v in (module.net.W_in, module.net.b)], 1)


def phase(theta: np.ndarray) -> np.ndarray:
    """Index into `PHASES` of networks (..., 4): by the size of w2 and its overlap with w1, which is |w1|; (...) int."""
    w1, w2 = np.abs(theta[..., 0]), np.abs(theta[..., 1])
    return np.where(w2 < 0.5, 0, np.where(w1 < 0.5, 1, 2))


def agree(one: np.ndarray, other: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Where phases are the same, or mirror images at importance 1, which are equally good."""
    return (one == other) | ((importance == 1) & (one < 2) & (other < 2))


def best_of(theta: np.ndarray, p: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of networks (seeds, N, 4) the one of least expected loss at each point, (N, 4), and its loss, (N,)."""
    losses = expected_loss(theta, p, importance)
    return theta[losses.argmin(0), np.arange(len(p))], losses.min(0)


def trained_flip(tries: np.ndarray) -> float:
    """Flip density of one seed's networks at `FLIP_DENSITIES`, (8 * 12, 4): that of the best of the tries."""
    best, _ = best_of(tries.reshape(TRIES, -1, 4), FLIP_DENSITIES, np.ones(len(FLIP_DENSITIES)))
    return flip_density(FLIP_DENSITIES, best)


def flip_density(p: np.ndarray, theta: np.ndarray) -> float:
    """The density up to which both of two equally important features are kept; NaN if none are, or at all densities.

    Args:
        p: Ascending densities, (P,).
        theta: Weights and biases at each, (P, 4).

    Returns:
        Where the smaller of |w1| and |w2| falls below 1/2 for good, between two densities by a straight line in log p.
    """
    smaller = np.abs(theta[:, :2]).min(1)
    kept = np.flatnonzero(smaller >= 0.5)
    if not len(kept) or kept[-1] == len(p) - 1:
        return float("nan")
    last = kept[-1]
    share = (smaller[last] - 0.5) / (smaller[last] - smaller[last + 1])
    return float(p[last] * (p[last + 1] / p[last]) ** share)


def report(trained: np.ndarray, theory: np.ndarray, flips: np.ndarray) -> str:
    """What was found, in Markdown.

    Args:
        trained: Networks of every seed and point, (seeds, N, 4).
        theory: The best networks, (N, 4).
        flips: Flip density of every seed, (seeds,).
    """
    seeds, n, _ = trained.shape
    points = round(n**0.5)
    p, importance = grid(points)
    best, losses = best_of(trained, p, importance)
    least = expected_loss(theory, p, importance)
    same = agree(phase(theory), phase(best), importance)
    excess = losses / least - 1
    fine = np.linspace(FLIP_DENSITIES[0], FLIP_DENSITIES[-1], 100)
    flip, coarse = (flip_density(d, minimum(d, np.ones_like(d))[0]) for d in (fine, FLIP_DENSITIES))
    shares = interval(np.array([agree(phase(theory), phase(one), importance).mean() for one in trained]))
    found = flips[np.isfinite(flips)]
    span = interval(found) if len(found) > 1 else dict.fromkeys(("mean", "low", "high"), float("nan"))
    lines = [
        f"# Two features in one dimension: {points} densities x {points} importances, {seeds} seeds",
        "",
        "| | |",
        "|---|---|",
        f"| points where the best of {seeds} seeds is in the phase of the theory | {same.mean():.3f} of {n} |",
        f"| the same for single seeds, mean and 95 % interval | {_span(shares, 3)} |",
        f"| loss of the best seed above the least possible, median and largest | {_percent(excess)} |",
        f"| flip density at importance 1, theory | {flip:.4f} |",
        f"| the same, theory, from no more densities than are trained | {coarse:.4f} |",
        f"| the same, trained, mean of {len(found)} seeds and 95 % interval | {_span(span, 4)} |",
        "",
        "Phases are told apart at |w| = 1/2. At importance 1 either feature may be the one that is kept; there, both",
        "weights shrink together as density grows, until one jumps to a smaller size and shrinks on, so that the flip",
        f"density depends on that threshold. A seed's is interpolated between {len(FLIP_DENSITIES)} densities, at each",
        f"of which the best of {TRIES} networks counts.",
        "",
        *_disagreements(same, phase(theory), phase(best), p, importance),
        "Not tested: more features or dimensions, correlated features, features that are not uniform in [0, 1], other",
        "optimizers, and densities below 0.01. That the descents of the theory find the global minimum is not proven;",
        f"no trained network was better than it by more than {max(0.0, -float(excess.min())):.1e} of its loss.",
    ]
    return "\n".join(lines) + "\n"


def _percent(excess: np.ndarray) -> str:
    return f"{100 * np.median(excess):.3f} %, {100 * excess.max():.2f} %"


def _span(span: dict[str, float], digits: int) -> str:
    return f"{span['mean']:.{digits}f} ({span['low']:.{digits}f} to {span['high']:.{digits}f})"


def _disagreements(same: np.ndarray, theory: np.ndarray, best: np.ndarray, p: np.ndarray, i: np.ndarray) -> list[str]:
    if same.all():
        return []
    rows = [f"| {p[k]:.3g} | {i[k]:.3g} | {PHASES[theory[k]]} | {PHASES[best[k]]} |" for k in np.flatnonzero(~same)]
    return ["| density | importance | theory | trained |", "|---|---|---|---|", *rows, ""]


def draw(theory: np.ndarray, trained: np.ndarray, same: np.ndarray) -> Figure:
    """Phases in theory and in training, and where they disagree; (N,) each."""
    figure = Figure(figsize=(13, 4.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    phases = ListedColormap(COLORS)
    _draw_map(left, theory, phases, 2, "theory: least expected loss")
    _draw_map(middle, trained, phases, 2, "trained: best of the seeds")
    title = f"disagreement: {(~same).sum()} of {len(same)} points"
    _draw_map(right, ~same, ListedColormap(["0.95", "black"]), 1, title)
    handles = [Patch(color=color, label=label) for color, label in zip(COLORS, PHASES, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_map(axes: Axes, values: np.ndarray, colors: ListedColormap, most: int, title: str) -> None:
    points = round(len(values) ** 0.5)
    half = 1 / (points - 1)  # of a step, in decades
    density, importance = (10 ** (start + 2 * half * (np.arange(points + 1) - 0.5)) for start in (-2, -1))
    axes.pcolormesh(density, importance, values.reshape(points, points).T, cmap=colors, vmin=0, vmax=most)
    axes.set(xscale="log", yscale="log", title=title, xlabel="density: probability that a feature is on")
    axes.set_ylabel("importance of feature 2 relative to feature 1")
