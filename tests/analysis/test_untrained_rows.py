import pytest
import torch

from zoo.analysis.untrained_rows import area_under_curve, untrained_rows


def embedding(n=800, untrained=60, d=32, seed=0):
    """Rows of heavy-tailed length, of which the last are near copies of one."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(n, d, generator=g) * torch.linspace(0.5, 2, n).unsqueeze(1)
    W[n - untrained :] = torch.randn(1, d, generator=g) * 0.6 + 0.05 * torch.randn(untrained, d, generator=g)
    return W


def test_near_copies_are_found_and_nothing_else():
    W = embedding()
    found = untrained_rows(W)
    assert found.untrained.nonzero().squeeze(1).tolist() == list(range(740, 800))
    assert area_under_curve(-found.distance, torch.arange(800) >= 740) > 0.99


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_rows_and_superpositions_are_all_trained(seed):
    from zoo.null_models import planted

    assert not untrained_rows(embedding(untrained=0, seed=seed)).untrained.any()
    rows, _, _ = planted(600, 24, 48, 3, generator=torch.Generator().manual_seed(seed))
    assert not untrained_rows(rows).untrained.any()


def test_a_token_that_never_occurs_is_untrained_wherever_its_row_is():
    counts = torch.ones(800, dtype=torch.int64)
    counts[5] = 0
    found = untrained_rows(embedding(untrained=0), counts).untrained
    assert found.nonzero().squeeze(1).tolist() == [5]
    assert untrained_rows(torch.eye(4), torch.tensor([1, 0, 2, 3])).untrained.tolist() == [False, True, False, False]


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(0)
    score = torch.randint(0, 20, (200,), generator=g).float()  # with ties
    positive = torch.rand(200, generator=g) < 0.3
    assert area_under_curve(score, positive) == pytest.approx(roc_auc_score(positive.numpy(), score.numpy()))
