import pytest
import torch
import torch.nn.functional as F

from zoo.null_models import planted
from zoo.untrained_rows import (
    CLUSTER,
    KEPT,
    NAME,
    NEVER_OCCURS,
    NO_TEXT,
    RANDOM_START,
    area_under_curve,
    untrained_rows,
)

# Distances from the mean row as shares of the median row's, and cosines around the mean row, as measured on
# SmolLM2-135M-Instruct and all-MiniLM-L6-v2 (the commands are in docs/untrained_rows.md)
MONTHS = {"length": 1.0, "cosine": 0.82}  # SmolLM2's; its weekdays: 0.98 and 0.80
YEARS = {"length": 0.57, "cosine": 0.56}  # MiniLM's that lie nearest to the cluster, such as 1654 and 1731
FAMILIES = (7, 12, 30, 200)
UNUSED = {"length": 0.34, "spread": 0.175}  # the centre of MiniLM's [unused] rows, and how far they are from it
RARE = {"length": 0.75, "spread": 0.15}  # SmolLM2's rows that no text trained


def ordinary(n, d, seed=0, power=0.5, varied=0.15):
    """Gaussian rows of median length 1 with eigenvalues i^-power, and log-normal lengths."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(n, d, generator=g) * torch.arange(1, d + 1) ** (-power / 2)
    return W / W.norm(dim=1).median() * torch.exp(varied * torch.randn(n, 1, generator=g))


def alike(n, d, length, cosine, g):
    """Rows of one length and one cosine with each other, in expectation."""
    centre = F.normalize(torch.randn(d, generator=g), dim=0) * cosine**0.5
    return length * (centre + ((1 - cosine) / d) ** 0.5 * torch.randn(n, d, generator=g))


def cluster(n, d, length, spread, g):
    return F.normalize(torch.randn(d, generator=g), dim=0) * length + spread * d**-0.5 * torch.randn(n, d, generator=g)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("centre", [UNUSED, RARE], ids=["as MiniLM's", "as SmolLM2's"])
@pytest.mark.parametrize(("untrained", "n"), [(50, 10_000), (50, 3_000), (400, 3_000), (2_000, 3_000), (2_000, 10_000)])
def test_the_common_cluster_is_set_aside_and_no_family_beside_it(untrained, n, centre, seed):
    g = torch.Generator().manual_seed(100 + seed)
    d = (64, 128, 192)[seed]
    families = [alike(size, d, **kind, g=g) for size in FAMILIES for kind in (MONTHS, YEARS)]
    n_alike = sum(map(len, families))
    n_ordinary = n - n_alike - untrained
    mean = torch.randn(d, generator=g) * d**-0.5  # SmolLM2's is as long as its rows are from it
    W = torch.cat([ordinary(n_ordinary, d, seed), *families, cluster(untrained, d, **centre, g=g)]) + mean
    found = untrained_rows(W).reason
    assert (found[-untrained:] == CLUSTER).float().mean() >= 0.98
    assert (found[n_ordinary:-untrained] == KEPT).all()  # no month and no year
    assert (found[:n_ordinary] == KEPT).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", FAMILIES)
def test_without_a_cluster_no_family_is_taken_for_one(size, seed):
    g = torch.Generator().manual_seed(100 + seed)
    for kind in (MONTHS, YEARS):
        W = torch.cat([ordinary(3000, 96, seed), alike(size, 96, **kind, g=g)])
        found = untrained_rows(W)
        assert not found.untrained.any()
        assert found.distance.isnan().all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("power", [0, 1, 2])
def test_gaussian_rows_of_any_spectrum_and_of_varied_lengths_are_all_trained(power, seed):
    for varied in (0.0, 0.5):
        assert not untrained_rows(ordinary(1500, 32, seed, power, varied)).untrained.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("atoms", "sparsity"), [(64, 1), (48, 3), (128, 8)])
def test_superpositions_are_all_trained(atoms, sparsity, seed):
    g = torch.Generator().manual_seed(seed)
    for noise in (0.0, 0.1):
        assert not untrained_rows(planted(1500, 32, atoms, sparsity, noise, generator=g)[0]).untrained.any()


@pytest.mark.parametrize("seed", range(3))
def test_rows_still_at_their_random_start_are_told_from_trained_ones(seed):
    g = torch.Generator().manual_seed(100 + seed)
    family = alike(30, 192, length=0.45, cosine=0.7, g=g)  # as short as the random start
    W = torch.cat([ordinary(2000, 192, seed), family, 0.45 * 192**-0.5 * torch.randn(150, 192, generator=g)])
    found = untrained_rows(W)
    assert (found.reason[:2030] == KEPT).all()
    assert (found.reason[2030:] == RANDOM_START).float().mean() >= 0.98
    assert found.norm == pytest.approx(0.45, rel=0.03)
    assert not untrained_rows(torch.randn(1000, 192, generator=g)).untrained.any()  # nothing decides


def test_a_token_that_never_occurs_is_untrained_wherever_its_row_is():
    counts = torch.ones(800, dtype=torch.int64)
    counts[5] = 0
    found = untrained_rows(ordinary(800, 32), counts)
    assert found.reason.nonzero().squeeze(1).tolist() == [5]
    assert found.reason[5] == NEVER_OCCURS
    assert untrained_rows(torch.eye(4), torch.tensor([1, 0, 2, 3])).untrained.tolist() == [False, True, False, False]


def test_names_and_tokens_that_no_text_has_are_reasons_where_nothing_else_is():
    tokens = ["[unused12]", "<|reserved_special_token_7|>", "<unk_7>", "unused", "[7]", "1785", " May", "<s>", "[UNK]"]
    tokens += ["never"] * (798 - len(tokens))
    found = untrained_rows(ordinary(800, 32), None, tokens, torch.tensor([False] * 9 + [True])).reason
    assert found[:10].tolist() == [NAME] * 3 + [KEPT] * 6 + [NO_TEXT]
    assert (found[10:] == KEPT).all()


def test_rows_that_are_all_the_same_or_few_are_kept():
    for W in (torch.ones(500, 8), torch.zeros(500, 8), torch.ones(3, 2), torch.randn(150, 16)):
        assert not untrained_rows(W).untrained.any()


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(0)
    score = torch.randint(0, 20, (200,), generator=g).float()  # with ties
    positive = torch.rand(200, generator=g) < 0.3
    assert area_under_curve(score, positive) == pytest.approx(roc_auc_score(positive.numpy(), score.numpy()))
