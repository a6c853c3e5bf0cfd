from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.models import GateNet
from zoo.models.toy.gates import corrected
from zoo.models.toy.readoffs import truth_table

GATES = ("and", "or", "xor")


def net(n_features=6, d_mlp=8, gate="and", n_seeds=1, **options):
    torch.manual_seed(0)
    return GateNet(n_features, d_mlp, gate, n_seeds, **options)


def features(n, m, active, seed=0):
    return torch.from_numpy(active.draw(np.random.default_rng(seed), n, m)).float()


def pairs_by_hand(m, depth, n_groups):
    """Pairs of gates of every depth, as lists."""
    size = m // n_groups
    found = [[pair for g in range(n_groups) for pair in combinations(range(g * size, (g + 1) * size), 2)]]
    for _ in range(1, depth):
        half = len(found[-1]) // 2
        found.append([(k, k + half) for k in range(half)])
    return found


def cases_by_hand(f, gate, depth, n_groups):
    """Case (N, P) that every gate of every depth sees, one gate at a time."""
    values, found = f.bool().tolist(), []
    for t, pairs in enumerate(pairs_by_hand(f.shape[1], depth, n_groups)):
        table = truth_table(gate if t == 0 else "or").tolist()
        found.append([[2 * row[i] + row[j] for i, j in pairs] for row in values])
        values = [[table[case] > 0 for case in row] for row in found[-1]]
    return [torch.tensor(case) for case in found]


def errors(one, f):
    """Outputs less their truth, and cases, of every depth, for one seed."""
    with torch.no_grad():
        y = one(f)
    shape = one.config
    cases = cases_by_hand(f, shape["gate"], shape["depth"], shape["n_groups"])
    tables = [truth_table(shape["gate"] if t == 0 else "or").float() for t in range(len(y))]
    return [(out[0] - table[case], case) for out, table, case in zip(y, tables, cases, strict=True)]


def constructed(d_mlp, gate):
    one = net(30, d_mlp, gate)
    one.construct(FixedActive(3))
    return one


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("active", [FixedActive(2), FixedActive(6), BernoulliActive(2.0), BernoulliActive(9.0)])
@pytest.mark.parametrize(
    ("m", "depth", "n_groups"), [(12, 1, 1), (12, 1, 3), (12, 3, 1), (12, 4, 2), (2, 1, 1), (6, 2, 2)]
)
def test_gates_that_see_anything_but_00_are_listed_once_with_what_they_see(gate, active, m, depth, n_groups):
    one = net(m, gate=gate, depth=depth, n_groups=n_groups)
    active.n_active = min(active.n_active, m)
    f = features(20, m, active)
    for (place, case), expected in zip(one.active(f), cases_by_hand(f, gate, depth, n_groups), strict=True):
        assert len(place) == len(place.unique())
        assert case.min() > 0
        dense = torch.zeros_like(expected)
        dense.view(-1)[place] = case
        assert torch.equal(dense, expected)


def test_vectors_that_are_all_off_have_no_active_gate():
    for place, case in net(depth=2).active(torch.zeros(5, 6)):
        assert len(place) == len(case) == 0


def test_an_or_of_an_odd_number_of_outputs_leaves_the_last_one_out():
    one = net(3, depth=2)  # gates (0, 1), (0, 2) and (1, 2), then one OR of the first two
    assert one.gates(1)[0].tolist() == [[0], [1]]
    (_, _), (place, _) = one.active(torch.tensor([[0.0, 1.0, 1.0]]))
    assert len(place) == 0


@pytest.mark.parametrize(("depth", "n_groups"), [(1, 1), (1, 3), (3, 2)])
def test_gates_are_of_all_pairs_of_a_group_and_then_of_halves(depth, n_groups):
    one = net(12, depth=depth, n_groups=n_groups)
    for t, expected in enumerate(pairs_by_hand(12, depth, n_groups)):
        pairs, table = one.gates(t)
        assert [tuple(pair) for pair in pairs.T.tolist()] == expected
        assert table.tolist() == truth_table("or" if t else "and").tolist()


@pytest.mark.parametrize("n_groups", [2, 3])
def test_a_group_does_not_read_what_others_see(n_groups):
    one, f = net(12, n_groups=n_groups, n_seeds=2), torch.rand(2, 5, 12)
    [before] = one(f)
    changed = f.clone()
    changed[..., 0] += 1  # of the first group
    [after] = one(changed)
    in_first = before.shape[2] // n_groups
    assert torch.equal(before[..., in_first:], after[..., in_first:])
    assert ((before - after)[..., :in_first].abs().amax((0, 1)) > 1e-6).all()


def test_outputs_are_those_of_a_network_for_every_seed_and_group():
    one, x = net(6, 8, n_seeds=3, n_groups=2, depth=2), torch.rand(3, 5, 6)
    for p in one.parameters():
        torch.nn.init.normal_(p)
    first, second = one(x)
    for seed in range(3):
        groups = []
        for g in range(2):
            W_in, b_in, W_out, b_out = (p[2 * seed + g] for p in one.stages[0].parameters())
            groups.append(F.relu(x[seed][:, 3 * g : 3 * g + 3] @ W_in + b_in) @ W_out + b_out)
        by_hand = torch.cat(groups, 1)
        W_in, b_in, W_out, b_out = (p[seed] for p in one.stages[1].parameters())
        torch.testing.assert_close(first[seed], by_hand)
        torch.testing.assert_close(second[seed], F.relu(by_hand @ W_in + b_in) @ W_out + b_out)


def test_one_batch_for_all_seeds_is_the_same_batch_for_each():
    one, x = net(n_seeds=3), torch.rand(5, 6)
    torch.testing.assert_close(one(x)[0], one(x.expand(3, 5, 6))[0])


def test_first_layers_start_with_standard_normal_weights_and_no_bias():
    one = net(30, 400, n_seeds=4)
    assert one.stages[0].W_in.std().item() == pytest.approx(1, abs=0.02)
    assert one.stages[0].W_in.mean().item() == pytest.approx(0, abs=0.02)
    assert not one.stages[0].b_in.any()


@pytest.mark.parametrize("gate", GATES)
def test_a_constructed_network_is_right_on_average_in_every_case(gate):
    found, case = errors(constructed(8192, gate), features(300, 30, FixedActive(3)))[0]
    for c in range(4):
        assert found[case == c].mean().item() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("gate", GATES)
def test_errors_of_a_constructed_network_halve_with_four_times_the_neurons(gate):
    f = features(200, 30, FixedActive(3))
    narrow, wide = (errors(constructed(d, gate), f)[0][0].square().mean().sqrt().item() for d in (512, 2048))
    assert narrow / wide == pytest.approx(2, rel=0.08)


def test_every_group_and_depth_of_a_constructed_network_is_right_on_average():
    one = net(16, 8192, depth=2, n_groups=2)
    one.construct(FixedActive(2), FixedActive(2))
    with torch.no_grad():
        for stage in one.stages:
            assert not stage.b_in.any()
            assert not stage.b_out.any()
    for found, case in errors(one, features(300, 16, FixedActive(2, n_groups=2))):
        for c in case.unique():
            assert found[case == c].mean().item() == pytest.approx(0, abs=0.06)


def test_small_errors_are_corrected_and_what_is_between_stays_in_order():
    z = torch.linspace(-1, 2, 3001)
    fixed = corrected(z)
    assert fixed[z <= 0.25].abs().max() < 1e-6
    assert (fixed[z >= 0.75] - 1).abs().max() < 1e-6
    between = (z > 0.26) & (z < 0.74)
    torch.testing.assert_close(fixed[between], 2 * z[between] - 0.5)


def test_with_error_correction_errors_stay_as_they_are_in_depth_and_without_they_grow():
    growth, f = {}, features(100, 32, FixedActive(2, n_groups=4))
    for correction in (False, True):
        one = net(32, 8192, depth=4, n_groups=4, error_correction=correction)
        one.construct(FixedActive(2), *[FixedActive(4)] * 3)
        rms = [found.square().mean().sqrt().item() for found, _ in errors(one, f)]
        growth[correction] = rms[3] / rms[1]
    assert growth[True] == pytest.approx(1, abs=0.15)
    assert growth[False] > 2


@pytest.mark.parametrize("error_correction", [False, True])
def test_the_loss_of_a_deeper_gate_does_not_reach_earlier_depths(error_correction):
    one = net(depth=3, error_correction=error_correction)
    one(torch.rand(5, 6))[1].square().sum().backward()
    assert all(p.grad is None for t in (0, 2) for p in one.stages[t].parameters())
    assert one.stages[1].W_out.grad.abs().sum() > 0


def test_a_frozen_first_layer_gets_no_gradient():
    one = net()
    one.stages[0].freeze_first_layer()
    one(torch.rand(5, 6))[0].square().sum().backward()
    assert one.stages[0].W_in.grad is None
    assert one.stages[0].b_in.grad is None
    assert one.stages[0].W_out.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_features": 0}, "n_features is 0; it must be at least 1"),
        ({"d_mlp": 0}, "d_mlp is 0; it must be at least 1"),
        ({"n_seeds": 0}, "n_seeds is 0; it must be at least 1"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"n_groups": 0}, "n_groups is 0; it must be at least 1"),
        ({"d_in": -1}, "d_in is -1"),
        ({"n_features": 1}, "1 features cannot be divided into 1 equal groups of at least 2"),
        ({"n_groups": 4}, "6 features cannot be divided into 4 equal groups of at least 2"),
        ({"n_groups": 6}, "6 features cannot be divided into 6 equal groups of at least 2"),
        ({"n_groups": 2, "d_in": 4}, "cannot be divided into groups; set n_groups to 1"),
        ({"n_features": 3, "depth": 3}, "depth is 3, and depth 3 has only one input left; use a smaller depth"),
        ({"gate": "nand"}, "gate is 'nand'; it must be one of and, or, xor"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(refused, options, message):
    with refused(message):
        net(**options)


def test_a_network_of_superposed_features_is_not_constructed(refused):
    with refused("the features are superposed: use explicit_readoff"):
        net(d_in=4).construct(FixedActive(2))


def test_a_saved_network_computes_what_it_did(tmp_path):
    one = net(6, 8, "xor", 2, depth=2, n_groups=2, error_correction=True)
    for p in one.parameters():
        torch.nn.init.normal_(p)
    other = zoo.load(zoo.save(one, tmp_path / "model"))
    assert isinstance(other, GateNet)
    assert other.config == one.config
    x = torch.rand(2, 5, 6)
    for mine, theirs in zip(one(x), other(x), strict=True):
        assert torch.equal(mine, theirs)
    f = features(5, 6, BernoulliActive(2.0))
    for mine, theirs in zip(one.active(f), other.active(f), strict=True):
        assert all(map(torch.equal, mine, theirs))


def test_a_saved_network_of_superposed_features_is_read_again(tmp_path):
    one = net(d_in=4)
    other = zoo.load(zoo.save(one, tmp_path / "model"))
    x = torch.rand(1, 5, 4)
    assert torch.equal(one(x)[0], other(x)[0])
