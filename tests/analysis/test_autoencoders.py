from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from zoo.analysis.autoencoders import judge, train, without_learning
from zoo.analysis.baselines import unlearned_dictionaries
from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
from zoo.metrics import description_length, pca_rank_at_bits
from zoo.models import BatchTopKSAE, ReLUSAE, TopKSAE
from zoo.models.sparse_coding import orthogonal_matching_pursuit

V, D, K = 60, 8, 20


def rows():
    """Rows of which the first twelve, which are held out, are longer, and lie elsewhere; with weights."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(V, D, generator=g) + 2
    W[:12] = 2 * W[:12] + 1
    weights = torch.rand(V, generator=g)
    held_out = torch.arange(V) < 12
    return SimpleNamespace(
        W_E=W, held_out=held_out, evaluation_weights=weights, d_in=D, true_atoms=None, row_counts=None
    )


def fitted(cls, data, **options):
    torch.manual_seed(1)
    sae = cls(D, K, **options)
    sae.initialise(data.W_E[~data.held_out])
    with torch.no_grad():
        sae.W_enc.add_(0.3 * torch.randn_like(sae.W_enc))
    return sae.eval().requires_grad_(False)


def unexplained(x, x_hat, weights=None):
    w = torch.ones(len(x)) if weights is None else weights
    mean = (w[:, None] * x).sum(0) / w.sum()
    return ((w @ (x - x_hat).square().sum(1)) / (w @ (x - mean).square().sum(1))).item()


def by_components(data, bits):
    """Error of held-out rows by as many principal components of the training rows as the bits allow."""
    learned, x = data.W_E[~data.held_out], data.W_E[data.held_out]
    leading = torch.linalg.svd(learned - learned.mean(0)).Vh[: pca_rank_at_bits(bits, V, D)]
    return unexplained(x, (x - learned.mean(0)) @ leading.T @ leading + learned.mean(0))


def test_errors_are_of_rows_held_out_and_trained_on_and_bits_of_all():
    data = rows()
    sae = fitted(ReLUSAE, data)
    line, (x_hat, codes) = judge(sae, data, K), sae.reconstruct(data.W_E)
    for prefix, part in (("", data.held_out), ("train_", ~data.held_out)):
        x, weights = data.W_E[part], data.evaluation_weights[part]
        assert line[f"{prefix}fvu"] == pytest.approx(unexplained(x, x_hat[part]), rel=1e-5)
        assert line[f"{prefix}fvu_weighted"] == pytest.approx(unexplained(x, x_hat[part], weights), rel=1e-5)
        assert line[f"{prefix}l0"] == pytest.approx((codes[part] != 0).sum(1).float().mean().item())
    assert line["l0"] != pytest.approx(line["train_l0"], rel=0.01)
    bits = description_length(V, codes.count_nonzero().item() / V, K, D)
    assert line["bits_per_row"] == pytest.approx(bits / V)
    assert line["pca_fvu"] == pytest.approx(by_components(data, bits), rel=1e-4)


def test_pursuit_codes_held_out_rows_about_the_decoders_bias_in_unit_atoms():
    data = rows()
    sae = fitted(TopKSAE, data, k=3)
    sae.W_dec.mul_(torch.linspace(0.5, 2, K)[:, None])
    x, atoms = data.W_E[data.held_out] - sae.b_dec, F.normalize(sae.W_dec)
    expected = unexplained(x, orthogonal_matching_pursuit(x, atoms, 3) @ atoms)
    assert judge(sae, data, K)["fvu_by_pursuit"] == pytest.approx(expected, rel=1e-5)


def test_without_learning_held_out_rows_are_coded_about_the_mean_of_training_rows():
    data = rows()
    learned, x = data.W_E[~data.held_out], data.W_E[data.held_out]
    mean, *lines = without_learning(data, K, 5, (1, 2))
    assert mean == {"coder": "mean", "l0": 0, "fvu": pytest.approx(unexplained(x, learned.mean(0)), rel=1e-5)}
    torch.manual_seed(5)
    dictionaries = unlearned_dictionaries(learned, K, None)
    assert [(line["coder"], line["l0"]) for line in lines] == [(name, l0) for name in dictionaries for l0 in (1, 2)]
    for line in lines:
        atoms, centred = dictionaries[line["coder"]], x - learned.mean(0)
        codes = orthogonal_matching_pursuit(centred, atoms, line["l0"])
        assert line["fvu"] == pytest.approx(unexplained(centred, codes @ atoms), rel=1e-5)
        bits = description_length(V, line["l0"], K, D)
        assert line["bits_per_row"] == pytest.approx(bits / V)
        assert line["pca_fvu"] == pytest.approx(by_components(data, bits), rel=1e-4)


def test_a_trained_autoencoder_codes_as_at_inference_and_is_that_of_its_seed():
    data = EmbeddingRowsDataModule(n_rows=V, d_in=D, null_model=PlantedRows(16, 2), batch_size=16)
    one, again, other = (train(data, BatchTopKSAE, K, {"k": 2}, 3, seed) for seed in (0, 0, 1))
    assert not one.training
    assert torch.equal(one.W_dec, again.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)
    alone = torch.cat([one.encode(row[None]) for row in data.W_E])
    torch.testing.assert_close(one.encode(data.W_E), alone)
