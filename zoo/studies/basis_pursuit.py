"""How small does the error of sparse coding an embedding get, and does it shrink over pretraining?

Dictionaries are learned with certified codes on the embedding at several steps of pretraining and on null models made
of it, along a falling penalty, each dictionary started from that of the penalty before. A seed names the held-out rows,
the null models' draws and the first atoms, so differences between matrices are paired by seed; several sources are
several runs of pretraining, over which seeds are then averaged.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis import baselines
from zoo.datamodules import EmbeddingRowsDataModule
from zoo.errors import ZooError
from zoo.metrics import (
    FVU,
    description_length,
    matched_cosine,
    mean_max_cosine,
    pca_rank_at_bits,
    rate_distortion_bits,
)
from zoo.models import Dictionary, DictionaryLearning
from zoo.models.sparse_coding import basis_pursuit, least_squares_on_support, orthogonal_matching_pursuit
from zoo.sources import at_step, embedding
from zoo.studies.basis_pursuit_report import NOTHING_LEFT, draw, table
from zoo.studies.matrices import MATRICES, PLANTED_SPARSITY, matrices, null_model
from zoo.quiet_fit import fit
from zoo.studies.tasks import check_folder, do_all, write_json

AT_EVERY_STEP = MATRICES[:2]
BASELINE_L0 = (1, 4, 8, 16, 32)
BITS = 8  # of a coefficient and of a number of the dictionary
FURTHER, MORE = 0.5, 6  # the factor between penalties that are added until `at_l0` is reached, and how many at most


@dataclass(frozen=True)
class Task:
    """The dictionaries of one matrix along the penalties, or, without penalties, its baselines."""

    source: str
    step: int | None
    matrix: str
    seed: int  # of the held-out rows and the first atoms
    draw: int  # of the null model
    n_atoms: int
    penalties: tuple[float, ...]
    dictionary_steps: int
    frequency_power: float
    at_l0: int = 16
    gauged: int = 50  # held-out rows whose gauge norm is found
    sparsity: int = PLANTED_SPARSITY  # atoms in a row of "planted"
    noise: float = 0.0  # share of the variance of "planted" that is noise

    @property
    def name(self) -> str:
        """Of the files with its results."""
        place = "-".join(Path(self.source).parts[-2:]).replace(":", "-")
        matrix = self.matrix
        if (self.sparsity, self.noise) != (PLANTED_SPARSITY, 0.0):
            matrix = f"{matrix}-{self.sparsity}-atoms-{self.noise:g}-noise"
        words = [place, f"step-{self.step}", matrix, f"seed-{self.seed}", f"draw-{self.draw}"]
        return "_".join([*words, *(() if self.penalties else ("baselines",))]).replace(" ", "-").lower()

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"{self.name}.json"


def run(
    out: Path,
    sources: Sequence[str] = ("gpt2-stdlib.learned",),
    steps: Sequence[int | None] = (None,),
    n_atoms: int = 512,
    penalties: Sequence[float] = (0.3, 0.2, 0.14, 0.1),
    dictionary_steps: int = 10,
    frequency_power: float = 0.0,
    seeds: int = 3,
    jobs: int = 1,
    at_l0: int = 16,
    gauged: int = 50,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `results.csv`, `table.md` and `curves.png` into the folder.

    Args:
        out: Folder of the study; finished runs in it are not made again.
        sources: The embeddings of one or several runs of pretraining: what `zoo.embedding` takes, or a name with {step}
            in it where every step has a name of its own, as in hf:EleutherAI/pythia-160m@step{step}.
        steps: Steps of pretraining, ascending; null models other than the covariance's are made of the last.
        n_atoms: Atoms of every dictionary.
        penalties: Weights of the codes' absolute values, see `Dictionary`, descending. Others are added on either side
            of them until codes have `at_l0` atoms a row on average, on held-out rows and on those trained on.
        dictionary_steps: Codings of all rows at every penalty.
        frequency_power: Rows have weight p^power of their token's frequency p.
        seeds: Dictionaries per matrix.
        jobs: Processes, of one thread each.
        at_l0: Atoms per row at which matrices are compared.
        gauged: Held-out rows whose gauge norm is found, the costliest number of all where dimensions are many.

    Returns:
        What is in `results.csv`, a dict per line.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    _check(seeds, jobs, dictionary_steps, steps, penalties)
    shared = (n_atoms, tuple(penalties), dictionary_steps, frequency_power, at_l0, gauged)
    for source in sources:
        data = data_of(Task(source, steps[0], "embedding", 0, 0, *shared))
        baselines.refuse_trivial_dictionary(n_atoms, len(data.train_rows))
    present = matrices(n_atoms, data.d_in)
    tasks = [
        Task(source, step, matrix, seed, seed, *shared)
        for seed in range(seeds)
        for source in sources
        for step in steps
        for matrix in (present if step == steps[-1] else AT_EVERY_STEP)
    ]
    ends = [t for t in tasks if t.step == steps[-1]]
    again = [replace(t, seed=1) for t in ends if t.draw == 0 and t.matrix != "embedding"]  # what seed 1 finds in it
    untrained = [replace(t, penalties=()) for t in ends if t.matrix in AT_EVERY_STEP]
    settings = {"sources": list(sources), "steps": list(steps), "n_atoms": n_atoms, "penalties": list(penalties)}
    settings |= {"dictionary_steps": dictionary_steps, "frequency_power": frequency_power}
    settings |= {"at_l0": at_l0, "gauged": gauged}
    check_folder(out, settings)
    wanted = [*tasks, *untrained, *again]
    do_all(solve, [task for task in wanted if not task.file(out).exists()], out, jobs)
    results = [line for task in [*tasks, *untrained] for line in json.loads(task.file(out).read_text("utf-8"))]
    results += [line for task in ends if task.seed == 0 for line in _stability(task, out)]
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as f:
        columns = list(dict.fromkeys(key for line in results for key in line))
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(results)
    of_data = {"seeds": seeds, "n_eff": round(data.effective_rows), "d_in": data.d_in}
    text = table(results, settings | of_data, present)
    (out / "table.md").write_text(text, "utf-8")
    draw(results, settings, present).savefig(out / "curves.png", dpi=120)
    return results


def _check(
    seeds: int, jobs: int, dictionary_steps: int, steps: Sequence[int | None], penalties: Sequence[float]
) -> None:
    if seeds < 2:
        raise ZooError(f"seeds is {seeds}; an interval, and the likeness of two dictionaries, need at least 2")
    if min(jobs, dictionary_steps) < 1:
        raise ZooError(f"jobs is {jobs} and dictionary_steps is {dictionary_steps}; both must be at least 1")
    for name, values in (("steps", [s for s in steps if s is not None]), ("penalties", [-p for p in penalties])):
        if any(a >= b for a, b in pairwise(values)):
            raise ZooError(f"{name} must be {'ascending' if name == 'steps' else 'descending'}, each given once")
    if not penalties or penalties[-1] <= 0:
        raise ZooError("penalties must be at least one number, all above 0")


def data_of(task: Task) -> EmbeddingRowsDataModule:
    """The rows of a task."""
    settings = {"batch_size": None, "frequency_power": task.frequency_power, "seed": task.seed}
    if task.matrix == "embedding":
        return EmbeddingRowsDataModule(task.source, task.step, **settings)  # type: ignore[arg-type]
    d_model = embedding(*at_step(task.source, task.step)).shape[1]
    model = null_model(task.matrix, task.n_atoms, d_model, task.draw, task.sparsity, task.noise)
    return EmbeddingRowsDataModule(task.source, task.step, null_model=model, **settings)  # type: ignore[arg-type]


def solve(task: Task, out: Path) -> None:
    """Do a task, and keep its result and its atoms."""
    lines = _along_penalties(task, out) if task.penalties else _baselines(task)
    shared = {k: v for k, v in asdict(task).items() if k in ("source", "step", "matrix", "seed")}
    write_json(task.file(out), [{**shared, **line} for line in lines])


def _along_penalties(task: Task, out: Path) -> list[dict[str, Any]]:
    L.seed_everything(task.seed, verbose=False)
    data = data_of(task)
    lines: list[dict[str, Any]] = []
    fitted: list[DictionaryLearning] = []

    def learn(penalty: float, start: DictionaryLearning | None) -> None:
        module = DictionaryLearning(task.n_atoms, penalty, data.d_in)
        if start is not None:
            module.net.load_state_dict(start.net.state_dict())
            module.fitted.fill_(True)
        fit(module, data, task.dictionary_steps)
        fitted.append(module)
        lines.append({"coder": "basis pursuit", "penalty": penalty} | _judge(module.net, data, task.at_l0))

    for penalty in task.penalties:
        learn(penalty, fitted[-1] if fitted else None)
    lines[-1] |= _gauge(fitted[-1].net, data, task.gauged) if task.gauged else {}
    atoms = [module.net.W_dec.detach().numpy().copy() for module in fitted]
    largest, densest = fitted[0], lines[0]
    for _ in range(MORE):
        if min(lines[-1]["l0"], lines[-1]["train_l0"]) >= task.at_l0 or lines[-1]["train_fvu_debiased"] < NOTHING_LEFT:
            break
        learn(lines[-1]["penalty"] * FURTHER, fitted[-1])
    for _ in range(MORE):
        if max(densest["l0"], densest["train_l0"]) <= task.at_l0:
            break
        learn(densest["penalty"] / FURTHER, largest)
        largest, densest = fitted[-1], lines[-1]
    atoms.append(baselines.token_dictionary(data.W_E[~data.held_out], task.n_atoms).numpy())
    (out / "atoms").mkdir(exist_ok=True)
    np.save(out / "atoms" / f"{task.name}.npy", np.stack(atoms))
    return lines


def _judge(net: Dictionary, data: EmbeddingRowsDataModule, at_l0: int) -> dict[str, float]:
    """Errors of a dictionary on rows trained on and held out, its certificates, and its bits."""
    x = data.W_E - net.b_dec
    solution = net.solve(data.W_E)
    free = least_squares_on_support(x, net.W_dec.detach(), solution.codes)
    line: dict[str, float] = {}
    for prefix, rows in (("", data.held_out), ("train_", ~data.held_out)):
        line |= {
            f"{prefix}l0": solution.codes.crow_indices().diff()[rows].double().mean().item(),
            f"{prefix}fvu": _fvu(x, solution.codes @ net.W_dec, rows),
            f"{prefix}fvu_debiased": _fvu(x, free @ net.W_dec, rows),
        }
    atoms, pursued = net.W_dec.detach(), x[data.held_out]
    l0 = min(at_l0, *atoms.shape)
    line["fvu_pursued"] = baselines.fvu(pursued, orthogonal_matching_pursuit(pursued, atoms, l0) @ atoms)
    line["uncertified"] = float((~solution.certified).sum())
    line["largest_gap"] = (solution.gap / solution.objective.clamp(min=1e-300)).max().item()
    if data.true_atoms is not None:
        line["matched_cosine"] = matched_cosine(atoms, data.true_atoms).item()
    return line | _bits(x, free.to_dense(), atoms, data)


def _bits(x: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor, data: EmbeddingRowsDataModule) -> dict[str, float]:
    """Description length at the stated precision, at which the error is measured too, and what others need for it."""
    V, d = x.shape
    l0 = codes.count_nonzero().item() / V
    bits = description_length(V, l0, len(atoms), d, BITS, BITS)
    coarse = _rounded(codes) @ _rounded(atoms)
    everything = torch.ones(V, dtype=torch.bool)
    fvu = _fvu(x, coarse, everything)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0))
    rank = pca_rank_at_bits(bits, V, d, BITS, BITS)
    return {
        "bits_per_row": bits / V,
        "fvu_at_bits": fvu,
        "gaussian_bits_per_row": rate_distortion_bits(eigenvalues, fvu * eigenvalues.sum().item()),
        "pca_fvu": _fvu(x, baselines.principal_components(x[~data.held_out], x, rank), data.held_out),
    }


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Values at the stated number of bits, evenly spaced between the largest and its negative."""
    unit = values.abs().max().clamp(min=1e-30) / (2 ** (BITS - 1) - 1)
    return (values / unit).round() * unit


def _fvu(x: torch.Tensor, x_hat: torch.Tensor, rows: torch.Tensor) -> float:
    return FVU()(x_hat[rows], x[rows]).item()


def _gauge(net: Dictionary, data: EmbeddingRowsDataModule, gauged: int) -> dict[str, float]:
    """Mean |a|₁ / |x| of held-out rows at error 0, under the learned atoms and under as many random directions.

    Fewer atoms than dimensions do not span them, so that no codes have error 0, and there is nothing to tell.
    """
    if net.n_atoms < net.d_in:
        return {}
    x = (data.W_E - net.b_dec)[data.held_out][:gauged]
    directions = F.normalize(torch.randn(net.n_atoms, net.d_in))
    line = {}
    for name, atoms in (("gauge", net.W_dec.detach()), ("gauge_of_random_directions", directions)):
        pursued = basis_pursuit(x, atoms)
        reached = pursued.objective.isfinite()
        line[name] = (pursued.objective / x.norm(dim=1))[reached].mean().item()
        line[f"{name}_uncertified"] = float((~pursued.certified).sum())
    return line


def _baselines(task: Task) -> list[dict[str, Any]]:
    data = data_of(task)
    train, held_out = data.W_E[~data.held_out], data.W_E[data.held_out]
    mean = train.mean(0)
    torch.manual_seed(task.seed)
    counts = None if data.row_counts is None else data.row_counts[~data.held_out]
    dictionaries = baselines.unlearned_dictionaries(train, task.n_atoms, counts)
    x, lines = held_out - mean, []
    for name, atoms in dictionaries.items():
        for l0 in (n for n in BASELINE_L0 if n <= min(atoms.shape)):
            fvu = baselines.fvu(x, orthogonal_matching_pursuit(x, atoms, l0) @ atoms)
            lines.append({"coder": name, "l0": l0, "fvu_debiased": fvu})
    return lines


def _stability(task: Task, out: Path) -> list[dict[str, Any]]:
    """Mean best absolute cosine between what two seeds learn of the same rows, and between random rows they were given.

    Args:
        task: That of seed 0.
        out: Folder of the study.
    """
    other = replace(task, seed=1, draw=1 if task.matrix == "embedding" else 0)
    a, b = (np.load(out / "atoms" / f"{t.name}.npy", allow_pickle=False) for t in (task, other))
    *alike, by_chance = (
        mean_max_cosine(torch.from_numpy(x), torch.from_numpy(y), signed=False).item()
        for x, y in zip(a, b, strict=True)
    )
    shared = {"source": task.source, "step": task.step, "matrix": task.matrix, "seed": 0, "coder": "stability"}
    return [
        {**shared, "penalty": penalty, "cosine": cosine, "cosine_of_rows": by_chance}
        for penalty, cosine in zip(task.penalties, alike, strict=True)
    ]
