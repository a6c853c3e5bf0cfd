"""Are atoms organised by the kind of token that uses them?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis.neighbour_agreement import atom_labels, neighbour_agreement
from zoo.analysis.token_families import kinds
from zoo.models.sparse_coding import lasso

TOLD = 5  # tokens that stand for an atom


def atom_kinds(
    W: torch.Tensor, held_out: torch.Tensor, atoms: torch.Tensor, penalty: float, tokens: Sequence[str], with_map: bool
) -> dict[str, Any]:
    """Label agreement of neighbouring atoms, and the labels' purity.

    Args:
        W: Rows (V, D).
        held_out: Rows that atoms were not learned from (V,) bool.
        atoms: (K, D).
        penalty: Of the codes, relative to the rows' rms length.
        tokens: Of the rows.
        with_map: Whether the atoms' places on a map are found, with their labels and the tokens that use them most.
    """
    x = W - W[~held_out].mean(0)
    scale = x[~held_out].square().sum(1).mean().sqrt().item()
    codes = lasso(x, atoms, penalty * scale).codes.to_dense()
    names, purity = atom_labels(codes, kinds(tokens))
    used = torch.tensor([name != "unused" for name in names])
    near = neighbour_agreement(atoms[used], [n for n in names if n != "unused"], signed=False)
    line = {**near._asdict(), "kappa": near.kappa, "purity": float(np.nanmean(purity))}
    if with_map:
        top = codes.abs().topk(min(TOLD, len(codes)), dim=0).indices.T[used].tolist()
        line["map"] = map_of(atoms[used])
        line["labels"] = [name for name in names if name != "unused"]
        line["tokens"] = ["  ".join(tokens[i] for i in rows) for rows in top]
    return line


def map_of(atoms: torch.Tensor) -> dict[str, Any]:
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
