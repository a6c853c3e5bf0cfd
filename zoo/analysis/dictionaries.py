"""Learning and evaluation of dictionaries of rows at descending penalties.

Every dictionary starts from the one that was learned at the penalty before.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis import baselines
from zoo.datamodules import EmbeddingRowsDataModule
from zoo.matrices import NOTHING_LEFT
from zoo.metrics import FVU, description_length, matched_cosine, pca_rank_at_bits, rate_distortion_bits
from zoo.models import Dictionary, DictionaryLearning
from zoo.models.sparse_coding import basis_pursuit, least_squares_on_support, orthogonal_matching_pursuit
from zoo.quiet_fit import fit

BITS = 8  # per coefficient, and per entry of the dictionary
BASELINE_L0 = (1, 4, 8, 16, 32)
FURTHER, MORE = 0.5, 6  # factor between added penalties, and largest number of them in each direction


class Learned(NamedTuple):
    """Dictionaries of one matrix.

    Args:
        lines: Results at every penalty.
        atoms: Atoms at the P penalties given and, last, K random rows as atoms, (P + 1, K, D).
    """

    lines: list[dict[str, Any]]
    atoms: np.ndarray


def learn(
    data: EmbeddingRowsDataModule,
    n_atoms: int,
    penalties: Sequence[float],
    steps: int,
    at_l0: int,
    gauged: int,
    seed: int,
) -> Learned:
    """Learn dictionaries at the penalties, and at smaller and larger ones until the range of L0 includes `at_l0`.

    Args:
        data: The rows.
        n_atoms: Number of atoms K of a dictionary.
        penalties: Penalties, descending.
        steps: Steps at every penalty; each step codes all training rows.
        at_l0: L0 to be reached from both sides, on held-out and on training rows.
        gauged: Number of held-out rows whose gauge norm is computed.
        seed: Seed of the initial atoms.
    """
    L.seed_everything(seed, verbose=False)
    lines: list[dict[str, Any]] = []
    fitted: list[DictionaryLearning] = []

    def at(penalty: float, start: DictionaryLearning | None) -> None:
        module = DictionaryLearning(n_atoms, penalty, data.d_in)
        if start is not None:
            module.net.load_state_dict(start.net.state_dict())
            module.fitted.fill_(True)
        fit(module, data, steps)
        fitted.append(module)
        lines.append({"penalty": penalty} | judge(module.net, data, at_l0))

    for penalty in penalties:
        at(penalty, fitted[-1] if fitted else None)
    lines[-1] |= gauge(fitted[-1].net, data, gauged) if gauged else {}
    atoms = [module.net.W_dec.detach().numpy().copy() for module in fitted]
    largest, densest = fitted[0], lines[0]
    for _ in range(MORE):
        if min(lines[-1]["l0"], lines[-1]["train_l0"]) >= at_l0 or lines[-1]["train_fvu_debiased"] < NOTHING_LEFT:
            break
        at(lines[-1]["penalty"] * FURTHER, fitted[-1])
    for _ in range(MORE):
        if max(densest["l0"], densest["train_l0"]) <= at_l0:
            break
        at(densest["penalty"] / FURTHER, largest)
        largest, densest = fitted[-1], lines[-1]
    atoms.append(baselines.token_dictionary(data.W_E[~data.held_out], n_atoms).numpy())
    return Learned(lines, np.stack(atoms))


def judge(net: Dictionary, data: EmbeddingRowsDataModule, at_l0: int) -> dict[str, float]:
    """Evaluate a dictionary: errors on held-out and training rows, certificates, and description length."""
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
        line["matched_cosine"] = matched_cosine(atoms, data.true_atoms, signed=not net.signed_codes).item()
    return line | _bits(x, free.to_dense(), atoms, data)


def gauge(net: Dictionary, data: EmbeddingRowsDataModule, gauged: int) -> dict[str, float]:
    """Return the mean |a|₁ / |x| over held-out rows x with the smallest codes a of error 0 (the gauge norm).

    It is computed with the learned atoms and with as many random directions. The result is empty if there are fewer
    atoms than dimensions: they do not span the space, so codes of error 0 do not exist.
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


def unlearned(data: EmbeddingRowsDataModule, n_atoms: int, seed: int) -> list[dict[str, Any]]:
    """Return errors on held-out rows of matching pursuit with atoms that were not learned."""
    train, held_out = data.W_E[~data.held_out], data.W_E[data.held_out]
    mean = train.mean(0)
    torch.manual_seed(seed)
    counts = None if data.row_counts is None else data.row_counts[~data.held_out]
    dictionaries = baselines.unlearned_dictionaries(train, n_atoms, counts)
    x, lines = held_out - mean, []
    for name, atoms in dictionaries.items():
        for l0 in (n for n in BASELINE_L0 if n <= min(atoms.shape)):
            fvu = baselines.fvu(x, orthogonal_matching_pursuit(x, atoms, l0) @ atoms)
            lines.append({"coder": name, "l0": l0, "fvu_debiased": fvu})
    return lines


def _bits(x: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor, data: EmbeddingRowsDataModule) -> dict[str, float]:
    """Return the description length and the error of codes and atoms rounded to `BITS` bits, with two references.

    The references are the bits that a Gaussian source needs for the same error, and the error of principal components
    with as many bits.
    """
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
    """Round values to `BITS` bits: to numbers evenly spaced between the largest absolute value and its negative."""
    unit = values.abs().max().clamp(min=1e-30) / (2 ** (BITS - 1) - 1)
    return (values / unit).round() * unit


def _fvu(x: torch.Tensor, x_hat: torch.Tensor, rows: torch.Tensor) -> float:
    return FVU()(x_hat[rows], x[rows]).item()
