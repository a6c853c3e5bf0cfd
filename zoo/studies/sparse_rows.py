"""How well do autoencoders code embedding rows sparsely, and rows of null models in their place?

Every variant is trained at several sparsities on the embedding, on four null models made of it, and judged on rows that
were held out. A seed names the held-out rows, the null models' draws, the initial atoms and the batches, so differences
between matrices are paired by seed. Beside them stand dictionaries that nobody learned, and principal components at the
same number of bits.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from zoo import sources
from zoo.analysis import baselines
from zoo.datamodules import EmbeddingRowsDataModule
from zoo.errors import ZooError
from zoo.metrics import ReconstructionMetrics, description_length, matched_cosine, mean_max_cosine, pca_rank_at_bits
from zoo.models import (
    SAE,
    AdamLinear,
    BatchTopKSAE,
    GatedSAE,
    JumpReLUSAE,
    MatryoshkaSAE,
    ReLUSAE,
    SparseAutoencoder,
    TopKSAE,
)
from zoo.models.sparse_coding import orthogonal_matching_pursuit
from zoo.studies.matrices import matrices, null_model
from zoo.quiet_fit import fit
from zoo.studies.sparse_rows_report import draw, table
from zoo.studies.tasks import check_folder, do_all, write_json

VARIANTS: dict[str, tuple[type[SAE], str, tuple[float, ...]]] = {  # class, the setting that makes it sparse, its values
    "TopK": (TopKSAE, "k", (4, 16, 32)),
    "BatchTopK": (BatchTopKSAE, "k", (4, 16, 32)),
    "Matryoshka": (MatryoshkaSAE, "k", (4, 16, 32)),
    "ReLU": (ReLUSAE, "l1_coefficient", (2.0, 3.5, 5.5, 8.0)),
    "JumpReLU": (JumpReLUSAE, "l0_coefficient", (0.25, 0.5, 1.0, 2.0)),
    "Gated": (GatedSAE, "l1_coefficient", (3.0, 6.0, 9.0, 14.0)),
}
BASELINE_L0 = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class Task:
    """One autoencoder to train, or, without a variant, the baselines of one matrix."""

    source: str
    matrix: str
    seed: int
    variant: str | None
    level: float
    d_sae: int
    steps: int
    batch_size: int
    frequency_power: float

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        words = [self.matrix, self.variant or "baselines", f"{self.level:g}", f"seed-{self.seed}"]
        return out / "runs" / f"{'_'.join(words).replace(' ', '-').lower()}.json"


def run(
    out: Path,
    source: str = "gpt2-stdlib.learned",
    d_sae: int = 512,
    steps: int = 1000,
    batch_size: int = 512,
    frequency_power: float = 0.0,
    seeds: int = 3,
    jobs: int = 1,
    variants: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `results.csv`, `table.md` and `curves.png` into the folder.

    Args:
        out: Folder of the study; finished runs in it are not made again.
        source: The embedding: what `zoo.embedding` takes.
        d_sae: Latents, and atoms of the baselines.
        steps: Optimizer steps of every run.
        batch_size: Rows per batch.
        frequency_power: Rows are drawn with probability p^power of their token's frequency p.
        seeds: Runs per setting.
        jobs: Processes, of one thread each.
        variants: Which autoencoders, of `VARIANTS`; all by default.

    Returns:
        What is in `results.csv`, a dict per line.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    variants = list(variants or VARIANTS)
    if seeds < 2:
        raise ZooError(f"seeds is {seeds}; an interval needs at least 2")
    if min(jobs, steps) < 1:
        raise ZooError(f"jobs is {jobs} and steps is {steps}; both must be at least 1")
    shared = (d_sae, steps, batch_size, frequency_power)
    data = _data(Task(source, "embedding", 0, None, 0, *shared))
    for name, size in (("d_sae", d_sae), ("the rows' dimension", data.d_in)):
        if size < max(BASELINE_L0):
            raise ZooError(f"{name} is {size}, and the study turns on up to {max(BASELINE_L0)} atoms")
    baselines.refuse_trivial_dictionary(d_sae, len(data.train_rows))
    settings = {"source": source, "d_sae": d_sae, "steps": steps, "batch_size": batch_size}
    settings |= {"frequency_power": frequency_power}
    check_folder(out, settings)
    present = matrices(d_sae, data.d_in)
    tasks = [Task(source, matrix, seed, None, 0, *shared) for matrix in present for seed in range(seeds)]
    tasks += [
        Task(source, matrix, seed, variant, level, *shared)
        for seed in range(seeds)
        for variant in variants
        for level in VARIANTS[variant][2]
        for matrix in present
    ]
    do_all(do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    results = [line for task in tasks for line in json.loads(task.file(out).read_text("utf-8"))]
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as f:
        columns = list(dict.fromkeys(key for line in results for key in line))
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(results)
    text = table(
        results, {**settings, "seeds": seeds, "n_eff": round(data.effective_rows), "d_in": data.d_in}, variants, present
    )
    (out / "table.md").write_text(text, "utf-8")
    draw(results, variants, present).savefig(out / "curves.png", dpi=120)
    return results


def _data(task: Task) -> EmbeddingRowsDataModule:
    d_model = sources.embedding(*sources.at_step(task.source, None)).shape[1]
    return EmbeddingRowsDataModule(
        task.source,
        null_model=null_model(task.matrix, task.d_sae, d_model, task.seed),
        batch_size=task.batch_size,
        frequency_power=task.frequency_power,
        seed=task.seed,
    )


def do(task: Task, out: Path) -> None:
    """Do a task, and keep its result."""
    lines = _baselines(task) if task.variant is None else [_train(task)]
    shared = {k: v for k, v in asdict(task).items() if k in ("matrix", "seed")}
    write_json(task.file(out), [{**shared, **line} for line in lines])


def _train(task: Task) -> dict[str, Any]:
    assert task.variant is not None
    cls, setting, _ = VARIANTS[task.variant]
    L.seed_everything(task.seed, verbose=False)
    data = _data(task)
    level = int(task.level) if setting == "k" else task.level
    module = SparseAutoencoder(cls(data.d_in, task.d_sae, **{setting: level}), AdamLinear())  # type: ignore[arg-type]
    fit(module, data, task.steps)
    sae = module.net.eval()
    line: dict[str, Any] = {"coder": task.variant, "setting": setting, "level": task.level}
    with torch.no_grad():
        for part, rows in (("", data.held_out), ("train_", ~data.held_out)):
            metrics = ReconstructionMetrics(task.d_sae)
            x = data.W_E[rows]
            x_hat, codes = sae.reconstruct(x)
            metrics.update(x_hat, x, codes, data.evaluation_weights[rows])
            line |= {f"{part}{k}": v.item() for k, v in metrics.compute().items()}
        x = data.W_E[data.held_out] - sae.b_dec
        n_on = round(line["l0"])
        if 1 <= n_on <= data.d_in // 2:
            atoms = torch.nn.functional.normalize(sae.W_dec)
            line["fvu_by_pursuit"] = _pursued_fvu(x, atoms, n_on)
    share = data.held_out.double().mean().item()
    l0 = share * line["l0"] + (1 - share) * line["train_l0"]
    return line | _at_equal_bits(data, l0, task.d_sae) | _recovered(data, sae)


def _pursued_fvu(x: torch.Tensor, atoms: torch.Tensor, l0: int) -> float:
    return baselines.fvu(x, orthogonal_matching_pursuit(x, atoms, l0) @ atoms)


def _at_equal_bits(data: EmbeddingRowsDataModule, l0: float, n_atoms: int) -> dict[str, float]:
    """Bits per row of a sparse code, its dictionary included, and what principal components do with them."""
    V = len(data.W_E)
    bits = description_length(V, l0, n_atoms, data.d_in)
    rank = pca_rank_at_bits(bits, V, data.d_in)
    x_hat = baselines.principal_components(data.W_E[~data.held_out], data.W_E[data.held_out], rank)
    return {"bits_per_row": bits / V, "pca_rank": rank, "pca_fvu": baselines.fvu(data.W_E[data.held_out], x_hat)}


def _recovered(data: EmbeddingRowsDataModule, sae: SAE) -> dict[str, float]:
    if data.true_atoms is None:
        return {}
    atoms = sae.W_dec.detach()
    return {
        "mean_max_cosine": mean_max_cosine(atoms, data.true_atoms).item(),
        "matched_cosine": matched_cosine(atoms, data.true_atoms).item(),
    }


def _baselines(task: Task) -> list[dict[str, Any]]:
    data = _data(task)
    train, held_out = data.W_E[~data.held_out], data.W_E[data.held_out]
    mean = train.mean(0)
    torch.manual_seed(task.seed)
    counts = None if data.row_counts is None else data.row_counts[~data.held_out]
    dictionaries = baselines.unlearned_dictionaries(train, task.d_sae, counts)
    lines: list[dict[str, Any]] = [{"coder": "mean", "l0": 0, "fvu": baselines.fvu(held_out, mean.expand_as(held_out))}]
    for name, atoms in dictionaries.items():
        for l0 in BASELINE_L0:
            error = _pursued_fvu(held_out - mean, atoms, l0)
            lines.append({"coder": name, "l0": l0, "fvu": error} | _at_equal_bits(data, l0, task.d_sae))
    return lines
