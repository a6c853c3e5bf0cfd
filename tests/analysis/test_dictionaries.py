from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from zoo.analysis.baselines import unlearned_dictionaries
from zoo.analysis.dictionaries import BASELINE_L0, Evaluated, gauge, judge, unlearned
from zoo.metrics import description_length, pca_rank_at_bits, rate_distortion_bits
from zoo.models import Dictionary
from zoo.models.sparse_coding import orthogonal_matching_pursuit

V, D, K = 60, 8, 20


def rows():
    """Rows of which the first twelve, which are held out, are longer, and lie elsewhere."""
    W = torch.randn(V, D, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 2, D) + 2
    W[:12] = 2 * W[:12] + 1
    held_out = torch.arange(V) < 12
    return SimpleNamespace(W_E=W, held_out=held_out, d_in=D, true_atoms=None, row_counts=None)


def fitted(data, n_atoms=K):
    torch.manual_seed(1)
    net = Dictionary(D, n_atoms, penalty=0.1)
    net.fit_moments(data.W_E[~data.held_out])
    return net.eval().requires_grad_(False)


def unexplained(x, x_hat):
    return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


@pytest.fixture
def judged():
    data = rows()
    net = fitted(data)
    return data, net, judge(net, Evaluated.of(data), 3), net.solve(data.W_E).codes.to_dense()


def debiased(x, codes, atoms):
    """Least squares on the support of every row."""
    free = np.zeros(codes.shape)
    for i, code in enumerate(codes.numpy()):
        on = code != 0
        free[i, on] = np.linalg.lstsq(atoms.numpy()[on].T, x[i].numpy(), rcond=None)[0]
    return torch.from_numpy(free).float()


def test_errors_are_of_rows_held_out_and_trained_on(judged):
    data, net, line, codes = judged
    x = data.W_E - net.b_dec
    free = debiased(x, codes, net.W_dec)
    for prefix, part in (("", data.held_out), ("train_", ~data.held_out)):
        assert line[f"{prefix}l0"] == pytest.approx((codes[part] != 0).sum(1).float().mean().item())
        assert line[f"{prefix}fvu"] == pytest.approx(unexplained(x[part], codes[part] @ net.W_dec), rel=1e-4)
        found = unexplained(x[part], free[part] @ net.W_dec)
        assert line[f"{prefix}fvu_debiased"] == pytest.approx(found, rel=1e-3)
    held_out = x[data.held_out]
    pursued = orthogonal_matching_pursuit(held_out, net.W_dec, 3) @ net.W_dec
    assert line["fvu_pursued"] == pytest.approx(unexplained(held_out, pursued), rel=1e-5)
    assert line["uncertified"] == 0
    assert 0 <= line["largest_gap"] <= net.tolerance


def test_bits_and_their_error_are_those_of_numbers_of_8_bits_over_all_rows(judged):
    data, net, line, codes = judged
    x = data.W_E - net.b_dec
    free = debiased(x, codes, net.W_dec)
    bits = description_length(V, codes.count_nonzero().item() / V, K, D, 8, 8)
    assert line["bits_per_row"] == pytest.approx(bits / V)
    coarse = [(part / part.abs().max() * 127).round() * part.abs().max() / 127 for part in (free, net.W_dec)]
    fvu = unexplained(x, coarse[0] @ coarse[1])
    assert line["fvu_at_bits"] == pytest.approx(fvu, rel=1e-3)
    assert fvu > 1.005 * unexplained(x, free @ net.W_dec)
    eigenvalues = torch.from_numpy(np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)))
    bound = rate_distortion_bits(eigenvalues, fvu * eigenvalues.sum().item())
    assert line["gaussian_bits_per_row"] == pytest.approx(bound, rel=1e-3)
    learned, held_out = x[~data.held_out], x[data.held_out]
    leading = torch.linalg.svd(learned - learned.mean(0)).Vh[: pca_rank_at_bits(bits, V, D, 8, 8)]
    projected = (held_out - learned.mean(0)) @ leading.T @ leading + learned.mean(0)
    assert line["pca_fvu"] == pytest.approx(unexplained(held_out, projected), rel=1e-4)


def test_the_gauge_is_that_of_linear_programs_over_the_first_held_out_rows():
    data = rows()
    net = fitted(data)
    torch.manual_seed(2)
    line = gauge(net, data, 4)
    torch.manual_seed(2)
    random = F.normalize(torch.randn(K, D))
    x = (data.W_E - net.b_dec)[:4].numpy()
    for name, atoms in (("gauge", net.W_dec), ("gauge_of_random_directions", random)):
        both = np.concatenate([atoms.numpy(), -atoms.numpy()]).T
        least = [linprog(np.ones(2 * K), A_eq=both, b_eq=row).fun / np.linalg.norm(row) for row in x]
        assert line[name] == pytest.approx(np.mean(least), rel=1e-3)
        assert line[f"{name}_uncertified"] == 0


def test_atoms_that_do_not_span_the_dimensions_have_no_gauge():
    assert gauge(fitted(rows(), D - 1), rows(), 4) == {}


def test_atoms_that_were_not_learned_code_held_out_rows_about_the_mean_of_training_rows():
    data = rows()
    learned, held_out = data.W_E[~data.held_out], data.W_E[data.held_out]
    lines = unlearned(data, K, 5)
    torch.manual_seed(5)
    dictionaries = unlearned_dictionaries(learned, K, None)
    l0s = [l0 for l0 in BASELINE_L0 if l0 <= D]
    assert [(line["coder"], line["l0"]) for line in lines] == [(name, l0) for name in dictionaries for l0 in l0s]
    for line in lines:
        x, atoms = held_out - learned.mean(0), dictionaries[line["coder"]]
        found = unexplained(x, orthogonal_matching_pursuit(x, atoms, line["l0"]) @ atoms)
        assert line["fvu_debiased"] == pytest.approx(found, rel=1e-4, abs=1e-9)
