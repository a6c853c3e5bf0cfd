"""Training and evaluation of autoencoders on rows in memory, and baselines with atoms that were not learned."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.analysis import baselines
from zoo.datamodules import EmbeddingRowsDataModule
from zoo.metrics import ReconstructionMetrics, description_length, matched_cosine, mean_max_cosine, pca_rank_at_bits
from zoo.models import SAE, AdamLinear, SparseAutoencoder
from zoo.models.sparse_coding import orthogonal_matching_pursuit
from zoo.quiet_fit import fit

ROWS_AT_ONCE = 4096


def train(
    data: EmbeddingRowsDataModule, cls: type[SAE], d_sae: int, settings: dict[str, Any], steps: int, seed: int
) -> SAE:
    """Train an autoencoder, and return it in evaluation mode.

    Args:
        data: The rows.
        cls: Class of the autoencoder.
        d_sae: Number of latents.
        settings: Further settings of the class.
        steps: Number of optimizer steps.
        seed: Seed of the initial atoms.
    """
    L.seed_everything(seed, verbose=False)
    module = SparseAutoencoder(cls(data.d_in, d_sae, **settings), AdamLinear())
    fit(module, data, steps)
    return module.net.eval()


def judge(sae: SAE, data: EmbeddingRowsDataModule, d_sae: int) -> dict[str, float]:
    """Evaluate an autoencoder: metrics on held-out rows and, with the prefix `train_`, on training rows.

    The result also has the description length in bits and, if atoms were planted, how well they were recovered.
    """
    line: dict[str, float] = {}
    with torch.no_grad():
        for part, rows in (("", data.held_out), ("train_", ~data.held_out)):
            metrics = ReconstructionMetrics(d_sae)
            for x, weights in zip(
                data.W_E[rows].split(ROWS_AT_ONCE), data.evaluation_weights[rows].split(ROWS_AT_ONCE), strict=True
            ):
                x_hat, codes = sae.reconstruct(x)
                metrics.update(x_hat, x, codes, weights)
            line |= {f"{part}{k}": v.item() for k, v in metrics.compute().items()}
        x = data.W_E[data.held_out] - sae.b_dec
        n_on = round(line["l0"])
        if 1 <= n_on <= data.d_in // 2:
            line["fvu_by_pursuit"] = _pursued_fvu(x, torch.nn.functional.normalize(sae.W_dec), n_on)
    share = data.held_out.double().mean().item()
    l0 = share * line["l0"] + (1 - share) * line["train_l0"]
    line |= _at_equal_bits(data, baselines.principal_components(data.W_E[~data.held_out]), l0, d_sae)
    if data.true_atoms is None:
        return line
    atoms = sae.W_dec.detach()
    return line | {
        "mean_max_cosine": mean_max_cosine(atoms, data.true_atoms).item(),
        "matched_cosine": matched_cosine(atoms, data.true_atoms).item(),
    }


def without_learning(
    data: EmbeddingRowsDataModule, n_atoms: int, seed: int, l0s: Sequence[int]
) -> list[dict[str, Any]]:
    """Return errors on held-out rows of the mean alone, and of matching pursuit with atoms that were not learned."""
    train, held_out = data.W_E[~data.held_out], data.W_E[data.held_out]
    mean = train.mean(0)
    torch.manual_seed(seed)
    counts = None if data.row_counts is None else data.row_counts[~data.held_out]
    dictionaries = baselines.unlearned_dictionaries(train, n_atoms, counts)
    components = baselines.principal_components(data.W_E[~data.held_out])
    lines: list[dict[str, Any]] = [{"coder": "mean", "l0": 0, "fvu": baselines.fvu(held_out, mean.expand_as(held_out))}]
    for name, atoms in dictionaries.items():
        for l0 in l0s:
            error = _pursued_fvu(held_out - mean, atoms, l0)
            lines.append({"coder": name, "l0": l0, "fvu": error} | _at_equal_bits(data, components, l0, n_atoms))
    return lines


def _pursued_fvu(x: Tensor, atoms: Tensor, l0: int) -> float:
    return baselines.fvu(x, orthogonal_matching_pursuit(x, atoms, l0) @ atoms)


def _at_equal_bits(
    data: EmbeddingRowsDataModule, components: tuple[Tensor, Tensor], l0: float, n_atoms: int
) -> dict[str, float]:
    """Return bits per row of sparse codes with their dictionary, and the error of PCA with as many bits."""
    V = len(data.W_E)
    bits = description_length(V, l0, n_atoms, data.d_in)
    rank = pca_rank_at_bits(bits, V, data.d_in)
    error = baselines.by_components(data.W_E[data.held_out], *components, rank)
    return {"bits_per_row": bits / V, "pca_rank": rank, "pca_fvu": error}
