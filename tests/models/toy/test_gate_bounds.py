from math import comb

import pytest
import torch

from zoo.models.toy.gate_bounds import least_gate_loss
from zoo.models.toy.pair_bounds import least_balanced_loss
from zoo.models.toy.readoffs import all_pairs, truth_table

FOUR = [0.25] * 4


def weights_and_targets(gate, m, case_weights):
    """Weight and target of every pair in every vector with two inputs on, (M, M)."""
    pairs = all_pairs(m)
    f = torch.zeros(pairs.shape[1], m, dtype=torch.float64).scatter_(1, pairs.T, 1.0)
    on = (f[:, pairs[0]] + f[:, pairs[1]]).long()  # inputs of the pair that are on
    one = torch.tensor([case_weights[0], case_weights[1] + case_weights[2], case_weights[3]], dtype=torch.float64)
    ways = torch.tensor([comb(m - 2, 2), 2 * (m - 2), 1])
    return (one / ways)[on] / pairs.shape[1], truth_table(gate)[[0, 1, 3]][on]


def descended(weight, target, d, seed):
    """Loss of outputs of rank d after descent from random ones."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((len(target), d), (d, len(target)))
    )
    optimizer = torch.optim.LBFGS(
        [left, right], max_iter=600, tolerance_grad=1e-9, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = (weight * (left @ right - target).square()).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return loss().item()


@pytest.mark.parametrize(("d", "known"), [(12, 0.0647), (20, 0.0342), (40, 0.0099)])
def test_with_zeros_as_often_as_they_occur_it_is_the_bound_of_the_balanced_loss(d, known):
    zeros = [comb(10, 2) / 65, 10 / 65, 10 / 65]
    assert least_gate_loss("and", 12, d, [*zeros, 1.0]) == pytest.approx(least_balanced_loss(12, d))
    assert least_gate_loss("and", 12, d, [*zeros, 1.0]) == pytest.approx(known, abs=5e-5)


@pytest.mark.parametrize("gate", ["and", "or", "xor"])
@pytest.mark.parametrize("d", [2, 5, 7])
def test_no_outputs_of_this_rank_have_a_smaller_loss_and_some_are_close(gate, d):
    bound = least_gate_loss(gate, 6, d, FOUR)
    found = min(descended(*weights_and_targets(gate, 6, FOUR), d, seed) for seed in range(3))
    assert bound * (1 - 1e-6) <= found <= 1.12 * bound


def test_five_outputs_reach_the_bound_of_and_of_six_inputs_by_perfect_matchings():
    assert least_gate_loss("and", 6, 5, FOUR) == pytest.approx(1 / 16)
    weight, target = weights_and_targets("and", 6, FOUR)
    place = {tuple(pair): k for k, pair in enumerate(all_pairs(6).T.tolist())}
    matchings = [[(i, 5)] + [((i - k) % 5, (i + k) % 5) for k in (1, 2)] for i in range(5)]  # 15 pairs, each once
    member = torch.zeros(15, 5, dtype=torch.float64)
    for column, matching in enumerate(matchings):
        for pair in matching:
            member[place[tuple(sorted(pair))], column] = 1
    assert member.sum(1).tolist() == [1.0] * 15
    outputs = 0.75 * member @ member.T  # one number says in which matching the pair is that is on
    assert (weight * (outputs - target).square()).sum() == pytest.approx(1 / 16)


def test_the_bound_falls_with_width_from_the_best_constant_to_zero():
    losses = [least_gate_loss("xor", 12, d, FOUR) for d in (1, 2, 12, 30, 65, 66)]
    assert losses[0] == pytest.approx(1 / 4)  # the constant 1/2 is the best outputs of rank 1
    assert losses == sorted(losses, reverse=True)
    assert losses[-2] > 0 == losses[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("and", 3, 2, FOUR), "there are 3 inputs"),
        (("and", 6, 0, FOUR), "and 0 neurons"),
        (("and", 6, 2, [1, 1, 2, 1]), "equal for the cases 01 and 10"),
        (("and", 6, 2, [0, 1, 1, 1]), "four positive numbers"),
        (("nor", 6, 2, FOUR), "gate is 'nor'"),
    ],
)
def test_numbers_out_of_range_are_refused(refused, arguments, message):
    with refused(message):
        least_gate_loss(*arguments)


def test_xor_of_four_inputs_has_rank_three():
    _, target = weights_and_targets("xor", 4, FOUR)
    assert torch.linalg.matrix_rank(target) == 3
    assert least_gate_loss("xor", 4, 3, FOUR) == pytest.approx(0, abs=1e-12)
