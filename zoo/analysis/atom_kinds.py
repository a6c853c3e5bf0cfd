"""Measures whether atoms are organised by the kind of token that uses them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis.neighbour_agreement import atom_labels, neighbour_agreement, strongest_rows
from zoo.analysis.token_families import kinds
from zoo.models.sparse_coding import lasso

TOLD = 5  # tokens that are listed for an atom


def atom_kinds(
    W: torch.Tensor, held_out: torch.Tensor, atoms: torch.Tensor, penalty: float, tokens: Sequence[str], with_map: bool
) -> dict[str, Any]:
    """Return how often neighbouring atoms have the same label, and the purity of the labels.

    An atom's label is the most frequent kind among the tokens that use it most. Its purity is the share of these tokens
    that have this kind.

    Args:
        W: Rows of the embedding, (V, D).
        held_out: Rows that were not used to learn the atoms, (V,) bool.
        atoms: Atoms, (K, D).
        penalty: L1 penalty of the codes, divided by the rows' rms norm.
        tokens: Text of every row's token.
        with_map: Whether to add the atoms' positions on a map, their labels, and the tokens that use them most.
    """
    x = W - W[~held_out].mean(0)
    scale = x[~held_out].square().sum(1).mean().sqrt().item()
    codes = lasso(x, atoms, penalty * scale).codes
    names, purity = atom_labels(codes, kinds(tokens))
    used = torch.tensor([name != "unused" for name in names])
    near = neighbour_agreement(atoms[used], [n for n in names if n != "unused"], signed=False)
    line = {**near._asdict(), "kappa": near.kappa, "purity": float(np.nanmean(purity))}
    if with_map:
        line["map"] = map_of(atoms[used])
        line["labels"] = [name for name in names if name != "unused"]
        line["tokens"] = ["  ".join(tokens[i] for i in rows) for rows in strongest_rows(codes, TOLD) if len(rows)]
    return line


def map_of(atoms: torch.Tensor) -> dict[str, Any]:
    """Return positions of atoms (K, D) on a map: UMAP on |cosine|, or principal components if UMAP is not installed."""
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
        warnings.simplefilter("ignore")  # about inverse transforms, and about one thread because of the seed
        places = umap.UMAP(n_neighbors=neighbours, metric="precomputed", random_state=0).fit_transform(distances)
    return {"method": "UMAP", "places": np.asarray(places, float).tolist()}
