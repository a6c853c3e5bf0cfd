"""Do trained narrow networks compute gates in superposition better than random neurons do?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.errors import ZooError
from zoo.metrics import CaseErrors
from zoo.models import AdamLinear, GateNet, UniversalGates
from zoo.models.toy.readoffs import affine_readoff, all_pairs, least_squares_readoff, truth_table
from zoo.quiet_fit import fit
from zoo.studies.tasks import check_folder, do_all, write_json
from zoo.studies.universal_gates_report import draw, table

CLOSED_FORMS = ("affine", "explicit", "least squares", "discriminant")  # of the inputs; of random neurons
AT_ONCE = 450  # vectors


@dataclass(frozen=True)
class Task:
    """Networks of all seeds, trained in one way; or, with `method` other than training, a readoff that is computed."""

    gate: str
    d_mlp: int
    method: str  # "trained", "frozen", or one of CLOSED_FORMS
    weights: str  # "natural", "ones" (natural, but ones weigh as much as all zeros), "zero_one" or "four"
    p: int
    n_features: int
    steps: int
    seeds: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        name = self.method.replace(" ", "-")
        return out / "runs" / f"{self.gate}_d-{self.d_mlp}_{name}_{self.weights}_p-{self.p}.json"


def run(
    out: Path,
    n_features: int = 100,
    widths: Sequence[int] = (100, 200, 400),
    steps: int = 1500,
    seeds: int = 3,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `table.md` and `universal_gates.png` into the folder.

    Two inputs are on at once, so all vectors can be listed, and every network is judged on every one of them. At the
    first width all exponents and weightings are trained, at the others p = 2 and 4 with the four cases weighing alike.

    Args:
        out: Folder of the study; finished runs in it are not made again.
        n_features: Inputs m.
        widths: Neurons d.
        steps: Optimizer steps of every run.
        seeds: Networks trained side by side in every run.
        jobs: Processes, of one thread each.

    Returns:
        One dict per run: its settings, and by seed and case the `mean`, `rms`, `max` and `bias` of y - t.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    if seeds < 2 or jobs < 1:
        raise ZooError(f"seeds is {seeds} and jobs is {jobs}; an interval needs at least 2 seeds, and jobs at least 1")
    if n_features < 4 or steps < 1 or min(widths) < 1:
        raise ZooError(
            f"n_features is {n_features} and steps {steps}; at least 4 and 1 are needed, and widths from 1 up"
        )
    check_folder(out, {"n_features": n_features, "steps": steps, "seeds": seeds})
    arms = [(gate, widths[0], *arm) for gate, arm in _arms()]
    arms += [
        (gate, d, method, "four", p)
        for d in widths[1:]
        for gate in ("and", "xor")
        for method, powers in (*((m, (2,)) for m in CLOSED_FORMS), ("frozen", (2, 4)), ("trained", (2, 4)))
        for p in powers
    ]
    tasks = [Task(*arm, n_features, steps, seeds) for arm in arms]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    results = [json.loads(task.file(out).read_text("utf-8")) for task in tasks]
    text = table(results)
    (out / "table.md").write_text(text, "utf-8")
    draw(results).savefig(out / "universal_gates.png")
    return results


def _arms() -> list[tuple[str, tuple[str, str, int]]]:
    """Gate, method, weights and exponent of the runs at the first width."""
    closed = [(gate, (method, "four", 2)) for gate in ("and", "xor") for method in CLOSED_FORMS]
    weightings = [("and", w) for w in ("natural", "ones", "four")] + [("xor", "four")]
    trainings = [(gate, w, p) for gate, w in weightings for p in (2, 3, 4, 6)] + [("xor", "zero_one", 2)]
    return closed + [(gate, (method, w, p)) for gate, w, p in trainings for method in ("frozen", "trained")]


def _do(task: Task, out: Path) -> None:
    torch.manual_seed(0)
    module = _module(task)
    if task.method in CLOSED_FORMS:
        outputs = _closed_form(task, module.net)
    else:
        active = FixedActive(2)
        fit(module, SparseFeaturesDataModule(task.n_features, active, n_seeds=task.seeds, batch_size=128), task.steps)
        module.eval()
        outputs = _outputs_of(module.net)
    write_json(task.file(out), asdict(task) | _judge(task, outputs))


def _module(task: Task) -> UniversalGates:
    m = task.n_features
    ones = m * (m - 1) / 2 - 1 if task.weights == "ones" else 1.0  # zeros for every 1 of AND
    return UniversalGates(
        m,
        m,
        task.d_mlp,
        task.seeds,
        task.gate,  # type: ignore[arg-type]
        trained_first_layer=task.method == "trained",
        p=task.p,
        case_weights="natural" if task.weights == "ones" else task.weights,  # type: ignore[arg-type]
        weight_on_ones=ones,
        optimizer=AdamLinear(0.01, warmup_steps=0, decay_fraction=0.5),
    )


@torch.no_grad()
def _closed_form(task: Task, net: GateNet) -> Callable[[Tensor], Tensor]:
    """Outputs (seeds, N, P) for features (N, m), of the layers that frozen runs have."""
    pairs, layer, f = all_pairs(task.n_features), net.stages[0], _all_vectors(task.n_features)
    if task.method == "affine":
        a, b, c, _ = affine_readoff(task.gate)
        return lambda f: (a * f[:, pairs[0]] + b * f[:, pairs[1]] + c).expand(task.seeds, -1, -1)
    if task.method == "explicit":
        net.construct(FixedActive(2))
        return _outputs_of(net)
    for seed in range(task.seeds):
        h = torch.relu(f @ layer.W_in[seed])
        weights, unbiased = torch.full((4,), 0.25), task.method == "discriminant"
        W_out, b_out = least_squares_readoff(h, f, pairs, truth_table(task.gate), weights, unbiased)
        layer.W_out[seed], layer.b_out[seed] = W_out.float(), b_out.float()
    return _outputs_of(net)


def _outputs_of(net: GateNet) -> Callable[[Tensor], Tensor]:
    return lambda f: net(f)[0]


@torch.no_grad()
def _judge(task: Task, outputs: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Errors by seed and case over all vectors."""
    pairs, truth, metric = all_pairs(task.n_features), truth_table(task.gate).float(), CaseErrors(task.seeds)
    for f in _all_vectors(task.n_features).split(AT_ONCE):
        case = (2 * f[:, pairs[0]] + f[:, pairs[1]]).to(torch.uint8)
        metric.update(outputs(f) - truth[case.int()], case.expand(task.seeds, -1, -1))
    found = metric.compute()
    return {name: found[name].tolist() for name in ("mean", "rms", "max", "bias")}


def _all_vectors(n_features: int) -> Tensor:
    """All vectors with two inputs on, (m (m - 1) / 2, m)."""
    pairs = all_pairs(n_features)
    return torch.zeros(pairs.shape[1], n_features).scatter_(1, pairs.T, 1.0)
