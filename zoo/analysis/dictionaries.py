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
from zoo.datamodules.row_loaders import side_rng
from zoo.free_memory import free_memory
from zoo.matrices import NOTHING_LEFT, TRAINED_ON
from zoo.metrics import FVU, description_length, matched_cosine, pca_rank_at_bits, rate_distortion_bits
from zoo.models import Dictionary, DictionaryLearning
from zoo.models.sparse_coding import basis_pursuit, least_squares_on_support, orthogonal_matching_pursuit
from zoo.models.sparse_coding.rows import csr
from zoo.null_models import moments
from zoo.quiet_fit import fit

BITS = 8  # per coefficient, and per entry of the dictionary
BASELINE_L0 = (1, 4, 8, 16, 32)
LARGE = 4_000_000  # numbers in a matrix from which on memory is given back after every penalty, which takes 0.1 s
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
    rows = Evaluated.of(data)
    lines: list[dict[str, Any]] = []
    fitted: list[Dictionary] = []

    def at(penalty: float, start: Dictionary | None) -> None:
        module = DictionaryLearning(n_atoms, penalty, data.d_in)
        if start is not None:
            module.net.load_state_dict(start.state_dict())
            module.fitted.fill_(True)
        fit(module, data, steps)
        fitted.append(module.net)
        lines.append({"penalty": penalty} | judge(module.net, rows, at_l0))
        del module  # it and its trainer refer to each other, and it holds codes of all rows
        if data.W_E.numel() >= LARGE:
            free_memory()

    for penalty in penalties:
        at(penalty, fitted[-1] if fitted else None)
    lines[-1] |= gauge(fitted[-1], data, gauged) if gauged else {}
    atoms = [net.W_dec.detach().numpy().copy() for net in fitted]
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


class Evaluated(NamedTuple):
    """The rows on which the dictionaries of one matrix are evaluated: all held-out rows and some training rows.

    Args:
        x: Rows, (n, d).
        held_out: Whether each row is held out, (n,) bool.
        shares: Weight of each row, so that the held-out rows count as in the matrix, (n,) float64.
        n_rows: Number of rows of the matrix.
        spectrum: Eigenvalues of the covariance of all rows, (d,) float64.
        components: Principal components of all training rows as columns, ascending, (d, d) float64.
        mean: Mean of all training rows, (d,) float64.
        true_atoms: Atoms of planted rows, (K, d); None for other rows.
    """

    x: torch.Tensor
    held_out: torch.Tensor
    shares: torch.Tensor
    n_rows: int
    spectrum: torch.Tensor
    components: torch.Tensor
    mean: torch.Tensor
    true_atoms: torch.Tensor | None

    @classmethod
    def of(cls, data: EmbeddingRowsDataModule) -> "Evaluated":
        """Return the held-out rows of a matrix, and random ones of its training rows if there are too many."""
        train = (~data.held_out).nonzero().squeeze(1)
        some = train[side_rng(0, 5).permutation(len(train))[:TRAINED_ON]].sort().values
        chosen = torch.cat((data.held_out.nonzero().squeeze(1), some)).sort().values
        held_out = data.held_out[chosen]
        shares = torch.where(held_out, 1.0, len(train) / max(1, len(some))).double()
        spectrum = torch.linalg.eigvalsh(moments(data.W_E)[1])
        mean, components = baselines.principal_components(data.W_E[~data.held_out])
        return cls(data.W_E[chosen], held_out, shares, len(data.W_E), spectrum, components, mean, data.true_atoms)


def judge(net: Dictionary, rows: Evaluated, at_l0: int) -> dict[str, float]:
    """Evaluate a dictionary: errors on held-out and training rows, certificates, and description length."""
    x = rows.x - net.b_dec
    solution, atoms = net.solve(rows.x), net.W_dec.detach()
    free = least_squares_on_support(x, atoms, solution.codes)
    line: dict[str, float] = {}
    for prefix, chosen in (("", rows.held_out), ("train_", ~rows.held_out)):
        line |= {
            f"{prefix}l0": solution.codes.crow_indices().diff()[chosen].double().mean().item(),
            f"{prefix}fvu": _fvu(x, solution.codes @ atoms, chosen),
            f"{prefix}fvu_debiased": _fvu(x, free @ atoms, chosen),
        }
    pursued = x[rows.held_out]
    l0 = min(at_l0, *atoms.shape)
    line["fvu_pursued"] = baselines.fvu(pursued, orthogonal_matching_pursuit(pursued, atoms, l0) @ atoms)
    line["coded"] = float(len(x))
    line["uncertified"] = float((~solution.certified).sum())
    line["largest_gap"] = (solution.gap / solution.objective.clamp(min=1e-300)).max().item()
    if rows.true_atoms is not None:
        line["matched_cosine"] = matched_cosine(atoms, rows.true_atoms, signed=not net.signed_codes).item()
    return line | _bits(x, free, atoms, rows)


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


def _bits(x: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor, rows: Evaluated) -> dict[str, float]:
    """Return the description length and the error of codes and atoms rounded to `BITS` bits, with two references.

    The references are the bits that a Gaussian source needs for the same error, and the error of principal components
    with as many bits.

    Args:
        x: Rows minus the dictionary's mean, (n, d).
        codes: Codes, (n, K) in compressed rows.
        atoms: Atoms, (K, d).
        rows: The rows.
    """
    V, d = rows.n_rows, x.shape[1]
    counts = codes.crow_indices().diff().double()
    bits = description_length(V, (rows.shares @ counts / rows.shares.sum()).item(), len(atoms), d, BITS, BITS)
    coarse = csr(codes.crow_indices(), codes.col_indices(), _rounded(codes.values()), (len(x), len(atoms)))
    left, spread = x - coarse @ _rounded(atoms), rows.spectrum.sum().item()
    fvu = (rows.shares @ left.double().square().sum(1) / rows.shares.sum()).item() / spread
    rank = pca_rank_at_bits(bits, V, d, BITS, BITS)
    return {
        "bits_per_row": bits / V,
        "fvu_at_bits": fvu,
        "gaussian_bits_per_row": rate_distortion_bits(rows.spectrum, fvu * spread),
        "pca_fvu": baselines.by_components(rows.x[rows.held_out], rows.mean, rows.components, rank),
    }


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Round values to `BITS` bits: to numbers evenly spaced between the largest absolute value and its negative."""
    unit = values.abs().max().clamp(min=1e-30) / (2 ** (BITS - 1) - 1)
    return (values / unit).round() * unit


def _fvu(x: torch.Tensor, x_hat: torch.Tensor, rows: torch.Tensor) -> float:
    return FVU()(x_hat[rows], x[rows]).item()
