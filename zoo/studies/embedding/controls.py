"""Positive controls: which superpositions would the study have recognised, had the rows been made of them?

Rows are planted as sums of random atoms, more of them than dimensions and fewer than a dictionary has, at several
numbers of atoms a row and shares of noise. Dictionaries are learned from them and judged as those of the embedding are.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import sources
from zoo.datamodules.row_loaders import side_rng
from zoo.studies import basis_pursuit
from zoo.studies.embedding.numbers import pursued_error, share, spelled
from zoo.studies.embedding.verdict import explained
from zoo.studies.tasks import do_all

SPARSITIES = (2, 4, 8, 16, 32)  # atoms in every row
NOISES = (0.0, 0.05, 0.1, 0.2)  # share of the variance
ROWS = 8192  # of a larger embedding, chosen at random, have their norms copied


def run(out: Path, like: basis_pursuit.Task, seeds: int, jobs: int) -> list[dict[str, Any]]:
    """Learn from every kind of planted rows; what is finished is not made again.

    Args:
        out: Folder of the controls.
        like: How the embedding's dictionaries are learned, and its rows, whose norms planted rows have.
        seeds: Draws of atoms and rows.
        jobs: Processes, of one thread each.

    Returns:
        For every kind its `sparsity`, `noise` and the `errors` of its seeds.
    """
    (out / "runs").mkdir(parents=True, exist_ok=True)
    chosen = out / "rows.npy"
    if not chosen.exists():
        W = sources.embedding(*sources.at_step(like.source, like.step))
        np.save(chosen, W[torch.from_numpy(side_rng(0, 4).permutation(len(W))[:ROWS]).sort().values].numpy())
    kinds = list(product(SPARSITIES, NOISES))
    like = replace(like, source=str(chosen), step=None, matrix="planted", frequency_power=0.0, gauged=0)
    tasks = [
        [replace(like, seed=seed, draw=seed, sparsity=sparsity, noise=noise) for seed in range(seeds)]
        for sparsity, noise in kinds
    ]
    do_all(basis_pursuit.solve, [t for of_kind in tasks for t in of_kind if not t.file(out).exists()], out, jobs)
    return [
        {"sparsity": sparsity, "noise": noise, "errors": [pursued_error(t.file(out)) for t in of_kind]}
        for (sparsity, noise), of_kind in zip(kinds, tasks, strict=True)
    ]


def judged(controls: Sequence[dict[str, Any]], gaussian: np.ndarray, tolerance: float) -> list[dict[str, Any]]:
    """Every kind with its error, and whether it was recognised.

    Args:
        controls: Of `run`.
        gaussian: Errors of isotropic rows, (seeds,): planted rows have atoms in random directions.
        tolerance: FVU below which sparse coding explains rows.
    """
    null = share(gaussian)
    lines = []
    for control in controls:
        error = share(control["errors"])
        recognised = explained(error, null, None, tolerance) == "yes"
        lines.append({**control, "error": error, "recognised": recognised})
    return lines


def sentence(lines: Sequence[dict[str, Any]]) -> str:
    """Which superpositions would have been recognised."""
    reach = _reach(lines)
    if not reach:
        return "No superposition that was tried would have been called explained."
    return f"Rows that are sums of {reach} would have been called explained by superposition."


def _reach(lines: Sequence[dict[str, Any]]) -> str:
    """The largest number of atoms at every noise up to which all kinds were recognised, as text."""
    reach: dict[int, list[float]] = {}
    for noise in sorted({line["noise"] for line in lines}):
        most = 0
        for line in sorted((r for r in lines if r["noise"] == noise), key=lambda r: r["sparsity"]):
            if not line["recognised"]:
                break
            most = line["sparsity"]
        if most:
            reach.setdefault(most, []).append(noise)
    parts = []
    for most, noises in sorted(reach.items(), reverse=True):
        level = "without noise" if noises == [0] else f"with {_shares(noises)} noise"
        parts.append(f"up to {most} atoms {level}")
    return ", ".join(parts)


def _shares(noises: Sequence[float]) -> str:
    least, most = f"{100 * noises[0]:g}", f"{100 * noises[-1]:g}"
    return f"{most} %" if least == most else f"{least} to {most} %"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Errors by atoms a row and noise, in Markdown; recognised ones in bold."""
    noises = sorted({line["noise"] for line in lines})
    rows = [
        f"| atoms a row | {' | '.join(f'{100 * noise:g} % noise' for noise in noises)} |",
        "|---" * (1 + len(noises)) + "|",
    ]
    for sparsity in sorted({line["sparsity"] for line in lines}):
        cells = []
        for noise in noises:
            line = next(r for r in lines if (r["sparsity"], r["noise"]) == (sparsity, noise))
            text = spelled(line["error"])
            cells.append(f"**{text}**" if line["recognised"] else text)
        rows.append(f"| {sparsity} | {' | '.join(cells)} |")
    return "\n".join(rows)
