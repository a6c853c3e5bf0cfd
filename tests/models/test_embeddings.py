import numpy as np
import pytest
import torch

from zoo import null_models
from zoo.models import (
    CopiedEmbedding,
    CovarianceMatchedEmbedding,
    GaussianEmbedding,
    LowCoherenceEmbedding,
    NormMatchedEmbedding,
    PermutedEmbedding,
)
from zoo.models.embeddings import row_mask

W = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "w.npy", W.numpy())
    return str(tmp_path / "w.npy")


def test_gaussian_rows_have_the_standard_deviation_asked_for():
    for std in (0.02, 1.5):
        rows = GaussianEmbedding(std, seed=0).rows(500, 100)
        assert rows.std() == pytest.approx(std, rel=5 / (2 * 500 * 100) ** 0.5)
        assert abs(rows.mean()) < 5 * std / (500 * 100) ** 0.5


def test_low_coherence_rows_have_one_length_and_keep_their_bound():
    embedding = LowCoherenceEmbedding(0.7, std=0.05, seed=0)
    rows = embedding.rows(40, 16)
    torch.testing.assert_close(rows.norm(dim=1), torch.full((40,), 0.05 * 16**0.5))
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert embedding.reached == pytest.approx((unit @ unit.T).fill_diagonal_(0).abs().max().item(), abs=1e-5)
    assert embedding.reached <= 0.7


def test_copied_rows_are_those_of_the_source(source):
    assert torch.equal(CopiedEmbedding(source).rows(40, 6), W)


@pytest.mark.parametrize(
    ("cls", "null"),
    [
        (NormMatchedEmbedding, null_models.norm_matched),
        (CovarianceMatchedEmbedding, null_models.covariance_matched),
        (PermutedEmbedding, null_models.permuted_rows),
    ],
)
def test_derived_rows_are_the_null_model_of_the_source(source, cls, null):
    rows = cls(source, seed=3).rows(40, 6)
    assert torch.equal(rows, null(W, torch.Generator().manual_seed(3)))
    assert not torch.equal(rows, W)


@pytest.mark.parametrize("cls", [CopiedEmbedding, NormMatchedEmbedding, CovarianceMatchedEmbedding, PermutedEmbedding])
def test_a_source_of_another_shape_is_refused(source, refused, cls):
    with refused(r"is 40 x 6; the model requires 50 x 6 \(vocab_size x d_model\)"):
        cls(source).rows(50, 6)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed, source: GaussianEmbedding(seed=seed),
        lambda seed, source: LowCoherenceEmbedding(0.99, seed=seed),
        lambda seed, source: NormMatchedEmbedding(source, seed=seed),
        lambda seed, source: CovarianceMatchedEmbedding(source, seed=seed),
        lambda seed, source: PermutedEmbedding(source, seed=seed),
    ],
)
def test_rows_follow_their_own_seed_or_else_that_of_the_run(source, make):
    def draw(seed, global_seed):
        torch.manual_seed(global_seed)
        return make(seed, source).rows(40, 6)

    assert torch.equal(draw(1, 10), draw(1, 11))
    assert not torch.equal(draw(1, 10), draw(2, 10))
    assert torch.equal(draw(None, 10), draw(None, 10))
    assert not torch.equal(draw(None, 10), draw(None, 11))


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ("all", range(10)),
        ("none", []),
        ([], []),
        ([3, 0, 3], [0, 3]),
        ("4", [4]),
        ("0-2", [0, 1, 2]),
        ("0-0", [0]),
        ("7-", [7, 8, 9]),
        ("0-1, 5 ,8-", [0, 1, 5, 8, 9]),
        ("2-4,3-5", [2, 3, 4, 5]),
        ("0-9", range(10)),
    ],
)
def test_row_descriptions_name_their_rows(rows, ids):
    mask = row_mask(rows, 10)
    assert mask.shape == (10,)
    assert mask.nonzero().flatten().tolist() == list(ids)


@pytest.mark.parametrize("rows", ["some", "", "1,,2", "1-2-3", "1.5", "all,3", "0:3", "-3", [-1]])
def test_row_descriptions_that_make_no_sense_are_refused(refused, rows):
    with refused("is not a token id, a range"):
        row_mask(rows, 10)


@pytest.mark.parametrize("rows", ["10", "0-10", "6-2", "12-", [3, 10]])
def test_rows_outside_the_vocabulary_are_refused(refused, rows):
    with refused("is not within the vocabulary, 0-9"):
        row_mask(rows, 10)
