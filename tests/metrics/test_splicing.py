import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from zoo.metrics import LossRecovered


def logits(seed, shape=(6, 5, 11)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


TARGETS = torch.arange(30).reshape(6, 5) % 11


def measure(*batches):
    metric = LossRecovered()
    for batch in batches:
        metric.update(*batch)
    return {k: v.item() for k, v in metric.compute().items()}


def test_losses_are_torchs_cross_entropy_and_kl_over_the_targets_that_count():
    targets = TARGETS.masked_fill(TARGETS > 8, -100)
    clean, spliced, ablated = (logits(seed) for seed in range(3))
    batches = [(clean[a:b], spliced[a:b], ablated[a:b], targets[a:b]) for a, b in ((0, 1), (1, 1), (1, 6))]
    measured = measure(*batches)
    flat = [x.double().flatten(0, 1) for x in (clean, spliced, ablated)]
    expected = [F.cross_entropy(x, targets.flatten()).item() for x in flat]
    assert [measured[f"ce_{k}"] for k in ("clean", "spliced", "ablated")] == pytest.approx(expected, rel=1e-6)
    kept = targets.flatten() != -100
    kl = kl_divergence(Categorical(logits=flat[0][kept]), Categorical(logits=flat[1][kept])).mean().item()
    assert measured["kl"] == pytest.approx(kl, rel=1e-6)
    c, s, a = expected
    assert measured["loss_recovered"] == pytest.approx((a - s) / (a - c), rel=1e-4)


def test_the_clean_model_recovers_all_and_the_ablated_one_nothing():
    clean, ablated = 5 * F.one_hot(TARGETS, 11).float(), logits(1)
    perfect, useless = measure((clean, clean, ablated, TARGETS)), measure((clean, ablated, ablated, TARGETS))
    assert (perfect["loss_recovered"], perfect["kl"]) == (1, 0)
    assert useless["loss_recovered"] == 0
    assert useless["kl"] > 0.5


def test_kl_sees_a_change_that_leaves_the_targets_loss_alone():
    clean = torch.tensor([[0.7, 0.2, 0.1]]).log()
    spliced = torch.tensor([[0.7, 0.1, 0.2]]).log()
    ablated = torch.full((1, 3), 1 / 3).log()
    measured = measure((clean, spliced, ablated, torch.tensor([0])))
    assert measured["loss_recovered"] == pytest.approx(1)
    assert measured["kl"] == pytest.approx(0.1 * math.log(2), rel=1e-5)


def test_a_token_ruled_out_by_both_models_adds_nothing():
    clean = torch.tensor([[0.5, 0.5, 0.0]]).log()
    spliced = torch.tensor([[0.25, 0.75, 0.0]]).log()
    measured = measure((clean, spliced, torch.zeros(1, 3), torch.tensor([0])))
    assert measured["kl"] == pytest.approx(0.5 * math.log(4 / 3), rel=1e-5)


def test_tokens_count_the_same_whatever_their_batch():
    a, b, c = (logits(seed) for seed in range(3))
    whole = measure((a, b, c, TARGETS))
    parts = measure((a[:5], b[:5], c[:5], TARGETS[:5]), (a[5:], b[5:], c[5:], TARGETS[5:]))
    assert parts == pytest.approx(whole, rel=1e-12)


def test_no_targets_give_nan():
    x = logits(0)
    assert all(map(math.isnan, measure((x, x, x, torch.full_like(TARGETS, -100))).values()))
