"""How exactly do random neurons compute gates with a readoff that is written down? Simulation beside the theory."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.active_inputs import ActiveInputs, BernoulliActive, FixedActive
from zoo.errors import ZooError
from zoo.metrics import CASES, CaseErrors
from zoo.models.toy.gates import GateNet
from zoo.models.toy.gaussian_signs import kappa, mean_abs_times_signs
from zoo.models.toy.readoffs import all_pairs, explicit_readoff, rms_error_of_00, truth_table
from zoo.studies.explicit_gates_report import draw, table
from zoo.studies.tasks import check_folder, do_all, write_json

WIDTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
ACTIVE = {"2": FixedActive(2), "4": FixedActive(4), "8": FixedActive(8), "Bernoulli 4": BernoulliActive(4.0)}
BUILT_FOR, USED_AT, USED_WIDTH = 4, (2, 3, 4, 6, 8, 12, 16), 2048
SUPERPOSED_IN, SUPERPOSED_WIDTHS, SUPERPOSED_ACTIVE = (25, 50, 100, 200, 400, 1600), (512, 2048, 8192), 2
DEPTH, DEPTH_WIDTHS, GROUPS, IN_GROUP = 4, (512, 2048, 8192), 4, 16


@dataclass(frozen=True)
class Task:
    """One simulation: of a width, of another number of inputs than built for, of superposed inputs, or in depth."""

    kind: str
    setting: tuple[Any, ...]
    n_features: int
    n_vectors: int
    seed: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"{'-'.join(map(str, (self.kind, *self.setting, self.seed))).replace(' ', '')}.json"


def run(
    out: Path,
    n_features: int = 100,
    n_vectors: int = 200,
    widths: Sequence[int] = WIDTHS,
    seeds: int = 3,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `table.md` and `explicit_gates.png` into the folder.

    Args:
        out: Folder of the study; finished simulations in it are not made again.
        n_features: Inputs m.
        n_vectors: Input vectors per draw of weights.
        widths: Neurons d over which AND and XOR are simulated.
        seeds: Draws of the weights.
        jobs: Processes, of one thread each.

    Returns:
        One dict per simulation.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    if seeds < 2 or jobs < 1:
        raise ZooError(f"seeds is {seeds} and jobs is {jobs}; an interval needs at least 2 seeds, and jobs at least 1")
    if n_features < max(USED_AT) + 2 or n_vectors < 1 or min(widths) < 1:
        raise ZooError(
            f"n_features is {n_features}, at least {max(USED_AT) + 2} are needed; vectors and widths from 1 up"
        )
    check_folder(out, {"n_features": n_features, "n_vectors": n_vectors})
    settings: list[tuple[str, tuple[Any, ...]]] = [
        *(("width", (gate, on, d)) for gate in ("and", "xor") for on in ACTIVE for d in widths),
        *(("used_at", (on,)) for on in USED_AT),
        *(("superposed", (d0, d)) for d0 in SUPERPOSED_IN for d in SUPERPOSED_WIDTHS),
        *(("depth", (d, corrected)) for d in DEPTH_WIDTHS for corrected in (False, True)),
    ]
    tasks = [Task(kind, setting, n_features, n_vectors, seed) for kind, setting in settings for seed in range(seeds)]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    results = [json.loads(task.file(out).read_text("utf-8")) for task in tasks]
    text = table(results)
    (out / "table.md").write_text(text, "utf-8")
    draw(results).savefig(out / "explicit_gates.png")
    return results


def _do(task: Task, out: Path) -> None:
    torch.manual_seed(task.seed)
    simulate = {"width": _width, "used_at": _used_at, "superposed": _superposed, "depth": _depth}[task.kind]
    found = simulate(task, np.random.default_rng((task.seed, 1)))
    write_json(task.file(out), {"kind": task.kind, "setting": task.setting, "seed": task.seed} | found)


def _width(task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Errors by case of a readoff that is used as it was built."""
    gate, on, d = task.setting
    active, m = ACTIVE[on], task.n_features
    readoff = explicit_readoff(gate, active, m)
    W_in = torch.randn(m, d)
    f = _draw(active, rng, task)
    errors = _errors(gate, f, F.relu(f @ W_in) @ readoff.weights(W_in, all_pairs(m)))
    theory = rms_error_of_00(readoff, active.n_active, d) if isinstance(active, FixedActive) else math.nan
    return errors | {"theory": theory}


def _used_at(task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Mean outputs of a readoff built for one number of active inputs and used at another."""
    (on,), m = task.setting, task.n_features
    W_in = torch.randn(m, USED_WIDTH)
    W_out = explicit_readoff("and", FixedActive(BUILT_FOR), m).weights(W_in, all_pairs(m))
    f = _draw(FixedActive(on), rng, task)
    errors = _errors("and", f, F.relu(f @ W_in) @ W_out)
    return errors | {"theory": float(kappa(BUILT_FOR) / kappa(on))}


def _superposed(task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Errors on inputs x = sum of f_i phi_i in d0 dimensions, and the floor that no number of neurons removes."""
    (d0, d), m, active = task.setting, task.n_features, FixedActive(SUPERPOSED_ACTIVE)
    phi = F.normalize(torch.randn(m, d0, dtype=torch.float64), dim=1)
    W = torch.randn(d0, d)
    f = _draw(active, rng, task)
    x = f.double() @ phi
    readoff, pairs = explicit_readoff("and", active, m), all_pairs(m)
    errors = _errors("and", f, F.relu(x.float() @ W) @ readoff.weights(phi.float() @ W, pairs))
    off = (f[:, pairs[0]] + f[:, pairs[1]]) == 0
    with_features = x @ phi.T  # covariances of the neuron's input with each feature's weight, (N, m)
    means = mean_abs_times_signs(
        x.square().sum(1, keepdim=True).expand_as(off),
        with_features[:, pairs[0]],
        with_features[:, pairs[1]],
        (phi @ phi.T)[pairs[0], pairs[1]].expand_as(off),
    )
    limit = float(kappa(active.n_active)) / 2 * means[off]
    scatter = float(kappa(active.n_active)) ** 2 / 2 * x.square().sum(1, keepdim=True).expand_as(off)[off] - limit**2
    floor = limit.square().mean()
    return errors | {"floor": float(floor.sqrt()), "theory": float((floor + scatter.mean() / d).sqrt())}


def _depth(task: Task, rng: np.random.Generator) -> dict[str, Any]:
    """Errors of ANDs in several small networks, and of ORs read from them again and again."""
    d, error_correction = task.setting
    net = GateNet(GROUPS * IN_GROUP, d, "and", 1, depth=DEPTH, n_groups=GROUPS, error_correction=error_correction)
    inputs, fired = FixedActive(2, GROUPS), FixedActive(GROUPS)  # two inputs and one AND in each group
    net.construct(FixedActive(2), *[fired] * (DEPTH - 1))
    f = torch.from_numpy(inputs.draw(rng, task.n_vectors, GROUPS * IN_GROUP).astype(np.float32))
    with torch.no_grad():
        outputs = net(f)
    rms = []
    for t, (y, (place, case)) in enumerate(zip(outputs, net.active(f), strict=True)):
        target = torch.zeros(y.numel())
        target[place] = net.gates(t)[1][case]
        rms.append(float((y.flatten() - target).square().mean().sqrt()))
    return {"rms": rms}


def _draw(active: ActiveInputs, rng: np.random.Generator, task: Task) -> Tensor:
    return torch.from_numpy(active.draw(rng, task.n_vectors, task.n_features).astype(np.float32))


def _errors(gate: str, f: Tensor, y: Tensor) -> dict[str, Any]:
    """Errors by case of outputs (N, P) for features (N, m)."""
    pairs = all_pairs(f.shape[1])
    case = (2 * f[:, pairs[0]] + f[:, pairs[1]]).to(torch.uint8)
    metric = CaseErrors(1)
    metric.update((y - truth_table(gate).float()[case.int()]).unsqueeze(0), case.unsqueeze(0))
    found = metric.compute()
    return {name: dict(zip(CASES, found[name][0].tolist(), strict=True)) for name in ("mean", "rms", "bias", "max")}
