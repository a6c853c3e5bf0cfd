"""When does basis pursuit find the atoms that rows are made of? Over noise and sparsity, where they are known."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
from zoo.errors import ZooError
from zoo.metrics import FVU, mean_max_cosine
from zoo.models import DictionaryLearning
from zoo.models.sparse_coding import orthogonal_matching_pursuit
from zoo.studies.intervals import interval
from zoo.studies.quiet_fit import fit
from zoo.studies.tasks import check_folder, do_all, write_json


@dataclass(frozen=True)
class Task:
    """One set of planted rows, and the dictionary learned from it."""

    n_rows: int
    d_in: int
    n_atoms: int
    sparsity: int
    noise: float
    penalty: float
    dictionary_steps: int
    seed: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"sparsity-{self.sparsity}_noise-{self.noise:g}_seed-{self.seed}.json"


def run(
    out: Path,
    d_in: int = 128,
    n_rows: int = 10_000,
    sparsities: Sequence[int] = (4, 8, 16),
    noises: Sequence[float] = (0.0, 0.1, 0.2, 0.4),
    penalty: float = 0.1,
    dictionary_steps: int = 30,
    seeds: int = 3,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `table.md` and `planted.png` into the folder.

    Args:
        out: Folder of the study; finished runs in it are not made again.
        d_in: Dimension of the rows; there are 4 times as many atoms.
        n_rows: Rows, of which a tenth is held out.
        sparsities: Atoms per row.
        noises: Shares of the variance that are isotropic noise.
        penalty: Weight of the codes' absolute values, see `Dictionary`.
        dictionary_steps: Codings of all rows.
        seeds: Draws of atoms and rows.
        jobs: Processes, of one thread each.

    Returns:
        One dict per run: `recovered`, the share of the atoms found at a cosine above 0.9; `cosine`, their mean best
        cosine, and `cosine_of_rows`, that of as many rows in the place of learned atoms; `fvu` and `train_fvu` of the
        learned atoms' best codes with as many atoms as were planted, and `floor`, the same with the true atoms.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    if seeds < 2 or jobs < 1:
        raise ZooError(f"seeds is {seeds} and jobs is {jobs}; an interval needs at least 2 seeds, and jobs at least 1")
    if d_in < max(sparsities) or n_rows <= 4 * d_in / 0.9:
        raise ZooError(
            f"d_in is {d_in} and n_rows {n_rows}; there must be at least {max(sparsities)} dimensions, and more rows "
            "to learn from (9 in 10) than atoms (4 times d_in)"
        )
    settings = {"d_in": d_in, "n_rows": n_rows, "penalty": penalty, "dictionary_steps": dictionary_steps}
    check_folder(out, settings)
    tasks = [
        Task(n_rows, d_in, 4 * d_in, sparsity, noise, penalty, dictionary_steps, seed)
        for sparsity in sparsities
        for noise in noises
        for seed in range(seeds)
    ]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    results = [json.loads(task.file(out).read_text("utf-8")) for task in tasks]
    text = table(results)
    (out / "table.md").write_text(text, "utf-8")
    draw(results).savefig(out / "planted.png", dpi=120)
    return results


def _do(task: Task, out: Path) -> None:
    write_json(task.file(out), asdict(task) | recover(task))


def recover(task: Task) -> dict[str, float]:
    """Learn a dictionary of rows whose atoms are known, and compare; see `run`."""
    L.seed_everything(task.seed, verbose=False)
    planted = PlantedRows(task.n_atoms, task.sparsity, task.noise, seed=task.seed)
    data = EmbeddingRowsDataModule(null_model=planted, n_rows=task.n_rows, d_in=task.d_in, batch_size=None)
    module = DictionaryLearning(task.n_atoms, task.penalty, task.d_in)
    start = time.perf_counter()
    fit(module, data, task.dictionary_steps)
    seconds = time.perf_counter() - start
    atoms, mean = module.net.W_dec.detach(), module.net.b_dec
    assert data.true_atoms is not None
    true = F.normalize(data.true_atoms)
    best = (true @ atoms.T).abs().amax(1)
    x = data.W_E - mean
    chosen = data.train_rows[torch.randperm(len(data.train_rows))[: task.n_atoms]]
    parts = {"": x[data.held_out], "train_": x[data.train_rows[: int(data.held_out.sum())]]}
    found = {f"{name}fvu": _fvu(rows, atoms, task.sparsity) for name, rows in parts.items()}
    return found | {
        "recovered": (best > 0.9).float().mean().item(),
        "cosine": best.mean().item(),
        "cosine_of_rows": mean_max_cosine(x[chosen], true, signed=False).item(),
        "floor": _fvu(data.W_E[data.held_out], data.true_atoms, task.sparsity),
        "seconds": seconds,
    }


def _fvu(x: torch.Tensor, atoms: torch.Tensor, l0: int) -> float:
    return FVU()(orthogonal_matching_pursuit(x, atoms, l0) @ atoms, x).item()


def table(results: list[dict[str, Any]]) -> str:
    """What was found at every sparsity and noise, in Markdown."""
    keys = ("recovered", "cosine", "cosine_of_rows", "fvu", "train_fvu", "floor")
    head = ["atoms per row", "noise", "atoms found", "mean cosine", "of rows", "held-out FVU", "trained on", "floor"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for sparsity, noise in sorted({(r["sparsity"], r["noise"]) for r in results}):
        cells = [np.mean(_at(results, sparsity, noise, key)) for key in keys]
        lines.append(f"| {sparsity} | {noise:g} | {' | '.join(f'{c:.3f}' for c in cells)} |")
    return "\n".join(lines) + "\n"


def draw(results: list[dict[str, Any]]) -> Figure:
    """Recovery and error against noise, one colour per sparsity, with 95 % intervals over seeds."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    noises, sparsities = (sorted({r[key] for r in results}) for key in ("noise", "sparsity"))
    for color, sparsity in zip(matplotlib.colormaps["tab10"].colors, sparsities, strict=False):  # type: ignore[attr-defined]
        for axes, key, style in (
            (left, "recovered", "-"),
            (middle, "cosine", "-"),
            (middle, "cosine_of_rows", ":"),
            (right, "fvu", "-"),
            (right, "train_fvu", "--"),
            (right, "floor", ":"),
        ):
            spans = [interval(_at(results, sparsity, noise, key)) for noise in noises]
            label = f"{sparsity} atoms per row" if axes is left else None
            axes.plot(noises, [s["mean"] for s in spans], style, color=color, marker="." * (style == "-"), label=label)
            if style == "-":
                low, high = ([s[side] for s in spans] for side in ("low", "high"))
                axes.fill_between(noises, low, high, color=color, alpha=0.2, lw=0)
    left.set(ylim=(0, 1.02), ylabel="share of atoms found at |cosine| > 0.9")
    middle.set(ylim=(0, 1.02), ylabel="mean best |cosine|; dotted: rows as atoms")
    right.set(ylim=(0, None), ylabel="FVU; dashed: trained on, dotted: true atoms")
    for axes in (left, middle, right):
        axes.set_xlabel("noise, share of the variance")
        axes.grid(alpha=0.2)
    left.legend()
    return figure


def _at(results: list[dict[str, Any]], sparsity: int, noise: float, key: str) -> np.ndarray:
    return np.array([r[key] for r in results if (r["sparsity"], r["noise"]) == (sparsity, noise)])
