"""Are the atoms that basis pursuit finds organised by the kind of token (A4)?"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis.neighbour_agreement import atom_labels, beyond_null, neighbour_agreement
from zoo.analysis.token_families import kinds
from zoo.models.sparse_coding import lasso
from zoo.studies import basis_pursuit

MATRICES = ("embedding", "covariance-matched")
TOLD = 5  # tokens that stand for an atom


def organisation(pursuit: Path, tasks: list[basis_pursuit.Task], tokens: list[str]) -> dict[str, Any]:
    """Label agreement of neighbouring atoms, and labels' purity, in the embedding and in its null model; plain JSON.

    Args:
        pursuit: Folder of the study `basis_pursuit`.
        tasks: Those of one run and step, of `MATRICES`, each with its atoms kept there.
        tokens: Of the rows.
    """
    found: dict[str, Any] = {}
    labels = kinds(tokens)
    for task in tasks:
        data = basis_pursuit.data_of(task)
        stack = np.load(pursuit / "atoms" / f"{task.name}.npy", allow_pickle=False)
        at = len(task.penalties) // 2
        atoms = torch.from_numpy(stack[at])
        x = data.W_E - data.W_E[~data.held_out].mean(0)
        scale = x[~data.held_out].square().sum(1).mean().sqrt().item()
        codes = lasso(x, atoms, task.penalties[at] * scale).codes.to_dense()
        names, purity = atom_labels(codes, labels)
        used = torch.tensor([name != "unused" for name in names])
        near = neighbour_agreement(atoms[used], [n for n in names if n != "unused"], signed=False)
        line = {**near._asdict(), "kappa": near.kappa, "purity": float(np.nanmean(purity))}
        if task.seed == 0:
            top = codes.abs().topk(min(TOLD, len(codes)), dim=0).indices.T[used].tolist()
            line["map"] = _map(atoms[used])
            line["labels"] = [name for name in names if name != "unused"]
            line["tokens"] = ["  ".join(tokens[i] for i in rows) for rows in top]
        found.setdefault(task.matrix, []).append(line)
    real, null = (found[matrix] for matrix in MATRICES)
    for measure in ("kappa", "purity"):
        found[f"{measure}_p_value"] = beyond_null(np.mean([r[measure] for r in real]), [r[measure] for r in null])
    return found


def _map(atoms: torch.Tensor) -> dict[str, Any]:
    """Places of atoms (K, D) on a map, by UMAP on |cosine|, or by principal components where it is not installed."""
    directions = F.normalize(atoms)
    try:
        import umap
    except ImportError:
        U, S, _ = torch.linalg.svd(directions, full_matrices=False)
        return {"method": "principal components", "places": (U[:, :2] * S[:2]).tolist()}
    import warnings

    distances = (1 - (directions @ directions.T).abs()).clamp(min=0).fill_diagonal_(0).numpy()
    neighbours = min(15, len(atoms) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that distances cannot be inverted, and that a seed means one thread
        places = umap.UMAP(n_neighbors=neighbours, metric="precomputed", random_state=0).fit_transform(distances)
    return {"method": "UMAP", "places": np.asarray(places, float).tolist()}
