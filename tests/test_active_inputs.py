from itertools import combinations, product

import numpy as np
import pytest
import torch

from zoo import ZooError
from zoo.active_inputs import BernoulliActive, FixedActive

M = 7  # features
DISTRIBUTIONS = [
    FixedActive(0),
    FixedActive(1),
    FixedActive(3),
    FixedActive(M),
    BernoulliActive(0.7),
    BernoulliActive(3),
]


def everything(active):
    """All Boolean vectors of M features, (2^M, M), and their probabilities by definition."""
    vectors = np.array(list(product([0, 1], repeat=M)))
    on = vectors.sum(1)
    if isinstance(active, FixedActive):
        weight = (on == active.n_active).astype(float)
    else:
        weight = (active.n_active / M) ** on * (1 - active.n_active / M) ** (M - on)
    return vectors, weight / weight.sum()


def label(active):
    return f"{type(active).__name__} {active.n_active}"


@pytest.mark.parametrize("active", DISTRIBUTIONS, ids=label)
def test_pair_probabilities_are_sums_over_all_vectors(active):
    vectors, weight = everything(active)
    for i, j in ((0, 1), (2, 6)):
        case = 2 * vectors[:, i] + vectors[:, j]
        expected = [weight[case == c].sum() for c in range(4)]
        assert active.pair_probabilities(M).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("active", DISTRIBUTIONS, ids=label)
def test_counts_are_those_of_all_vectors_with_so_many_of_a_pair_on(active):
    vectors, weight = everything(active)
    for on in range(3):
        chosen = vectors[:, :2].sum(1) == on
        if not weight[chosen].sum():
            continue
        total = vectors[chosen].sum(1)
        expected = np.bincount(total, weight[chosen], M + 1) / weight[chosen].sum()
        values, probabilities = active.counts(M, on)
        found = np.bincount(values.long().numpy(), probabilities.numpy(), M + 1)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("active", DISTRIBUTIONS, ids=label)
def test_drawn_vectors_are_as_frequent_as_they_should_be(active):
    n = 100_000
    drawn = active.draw(np.random.default_rng(0), n, M)
    assert drawn.shape == (n, M)
    assert drawn.dtype == bool
    _, weight = everything(active)
    found = np.bincount(drawn @ (1 << np.arange(M))[::-1], minlength=2**M)
    error = np.sqrt(n * weight * (1 - weight))
    assert (np.abs(found - n * weight) <= 5 * error + 1e-9).all()


def test_subsets_of_many_features_are_drawn_without_a_feature_twice_and_each_as_often():
    # Two of ten features, which are few enough that subsets are drawn by rejection.
    drawn = FixedActive(2).draw(np.random.default_rng(1), 90_000, 10)
    assert (drawn.sum(1) == 2).all()
    found = [(drawn[:, i] & drawn[:, j]).sum() for i, j in combinations(range(10), 2)]
    assert np.abs(np.array(found) - 2000).max() < 5 * 2000**0.5


def test_so_many_features_are_on_in_every_group():
    drawn = FixedActive(2, n_groups=3).draw(np.random.default_rng(2), 30_000, 12).reshape(-1, 3, 4)
    assert (drawn.sum(2) == 2).all()
    assert drawn.mean(0).ravel() == pytest.approx([0.5] * 12, abs=0.02)
    first_with_last = (drawn[:, :, 0] & drawn[:, :, 3]).mean()
    assert first_with_last == pytest.approx(FixedActive(2, n_groups=3).pair_probabilities(12)[3].item(), abs=0.01)


def test_every_seed_of_a_list_is_drawn_by_its_own_number():
    active = BernoulliActive([0.0, 2.0, 8.0])
    drawn = active.draw(np.random.default_rng(0), 30_000, 8).reshape(3, 10_000, 8)
    assert not drawn[0].any()
    assert drawn[1].mean(0) == pytest.approx([0.25] * 8, abs=0.025)
    assert drawn[2].all()


def test_pair_probabilities_of_a_list_are_the_mean_over_seeds():
    one, two = (BernoulliActive(n).pair_probabilities(8) for n in (1.0, 4.0))
    torch.testing.assert_close(BernoulliActive([1.0, 4.0]).pair_probabilities(8), (one + two) / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedActive(-1), "n_active is -1"),
        (lambda: BernoulliActive(-0.5), "n_active is -0.5; it must be finite and not negative"),
        (lambda: BernoulliActive(float("nan")), "n_active is nan"),
        (lambda: BernoulliActive([1.0, float("inf")]), "n_active is inf"),
        (lambda: FixedActive(1, 0), "n_groups is 0"),
        (lambda: FixedActive(1, 2).check(5), "5 features cannot be divided into 2 equal groups"),
        (lambda: FixedActive(4).check(3), "n_active is 4; it must be at most the number of features in a group, 3"),
        (lambda: BernoulliActive(3.5).check(3), "n_active is 3.5; it must be at most the number of features, 3"),
        (lambda: BernoulliActive([1.0, 3.5]).check(3, 2), "n_active is 3.5; it must be at most the number of feat"),
        (lambda: BernoulliActive([1.0, 2.0]).check(3, 3), "n_active has 2 numbers; it must have one per seed, 3"),
        (lambda: BernoulliActive([]).check(3, 3), "n_active has 0 numbers; it must have one per seed, 3"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(refused, make, message):
    with refused(message):
        make()


def test_how_many_inputs_are_on_is_not_one_distribution_where_seeds_differ():
    with pytest.raises(ZooError, match="one number for all seeds"):
        BernoulliActive([1.0, 2.0]).counts(5, 1)
