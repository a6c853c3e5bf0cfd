"""Features in two dimensions by the exact loss: do networks find the regular polygon?"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from scipy import optimize, stats

from zoo.active_inputs import FixedActive
from zoo.callbacks.feature_geometry import REPRESENTED
from zoo.datamodules import SparseFeaturesDataModule
from zoo.metrics import feature_dimensionality
from zoo.models import AdamLinear, ToySuperposition
from zoo.models.toy.superposition import one_sparse_loss
from zoo.quiet_fit import fit
from zoo.studies.tasks import check_folder, do_all, write_json

FEATURES = {5: "pentagon", 6: "hexagon"}
NETWORKS = 64
STEPS = 3000
CLOSE = 0.01  # how far above the regular polygon's loss one still counts as it, as a share of that loss


@dataclass(frozen=True)
class Task:
    """Networks with so many features, side by side in one module."""

    n_features: int
    networks: int
    steps: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"{self.n_features}-features.json"


def run(out: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Train what is missing: the networks of `cli_configs/toy/pentagon.yaml`, and the same with six features.

    Args:
        out: Folder; finished runs in it are not made again.
        jobs: Processes, of one thread each.

    Returns:
        One dict per number of features: the `regular` polygons with fewer and with all corners; `loss`, `directions`
        (n, 2), `dimensionality` and `bias` of every network; how many of them `reach` the polygon, the `share` of them
        with its interval, and how many features each represents, `kept`.

    Raises:
        ZooError: If the folder holds runs of other sizes.
    """
    check_folder(out, {"networks": NETWORKS, "steps": STEPS})
    tasks = [Task(n, NETWORKS, STEPS) for n in FEATURES]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    return [_judge(json.loads(task.file(out).read_text("utf-8"))) for task in tasks]


def regular(n_features: int, corners: int) -> dict[str, float]:
    """The best regular polygon in which so many of the features share two dimensions and the others stay at 0.

    Returns:
        Its `loss` per active input, the `length` of a direction, and `bias`, found by minimising the exact
        loss over the directions' length and the biases of features that are kept and that are not, alone.
    """
    angles = 2 * math.pi * torch.arange(n_features, dtype=torch.float64) / corners
    kept = torch.arange(n_features) < corners
    circle = torch.stack([angles.cos(), angles.sin()], 1) * kept.unsqueeze(1)

    def loss(point: np.ndarray) -> float:
        length, on, off = (float(value) for value in point)
        b = torch.where(kept, on, off).double().unsqueeze(0)
        return float(one_sparse_loss(length * circle.unsqueeze(0), b, torch.ones(n_features)))

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000}
    starts = [(1.0, -0.2, 0.1), (1.3, -0.6, 0.1)]
    found = min((optimize.minimize(loss, s, method="Nelder-Mead", options=options) for s in starts), key=_loss_of)
    return {"loss": float(found.fun), "length": abs(float(found.x[0])), "bias": float(found.x[1])}


def _loss_of(found: Any) -> float:
    return float(found.fun)


def _do(task: Task, out: Path) -> None:
    n = task.n_features
    L.seed_everything(0, verbose=False)
    data = SparseFeaturesDataModule(n, FixedActive(1), "uniform", n_seeds=task.networks, batch_size=64)
    module = ToySuperposition(n, 2, task.networks, loss="one_sparse", optimizer=AdamLinear(0.01, 0, 0.5))
    fit(module, data, task.steps)
    W_in, b = module.net.W_in.detach().double(), module.net.b.detach().double()
    found = {"loss": one_sparse_loss(W_in, b, torch.ones(n)), "directions": W_in, "bias": b}
    found["dimensionality"] = feature_dimensionality(W_in)
    write_json(task.file(out), asdict(task) | {name: value.tolist() for name, value in found.items()})


def _judge(run: dict[str, Any]) -> dict[str, Any]:
    n, loss = run["n_features"], np.array(run["loss"])
    polygons = {str(corners): regular(n, corners) for corners in range(3, n + 1)}
    reach = int((loss <= (1 + CLOSE) * polygons[str(n)]["loss"]).sum())
    ends = stats.binomtest(reach, len(loss)).proportion_ci(method="wilson")
    kept = (np.linalg.norm(run["directions"], axis=2) > REPRESENTED).sum(1)
    share = {"mean": reach / len(loss), "low": float(ends.low), "high": float(ends.high)}
    return run | {"regular": polygons, "reach": reach, "share": share, "kept": kept.tolist()}
