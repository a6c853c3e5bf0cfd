from itertools import combinations

import pytest
import torch

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, UniversalGates
from zoo.models.toy.readoffs import all_pairs, least_squares_readoff, truth_table
from zoo.quiet_fit import fit

FAST = AdamLinear(0.02, 0, 0.5)
CASES = ("00", "01", "10", "11")


def sampled(m=6, active=None, n_seeds=1, batch_size=64, **options):
    return SparseFeaturesDataModule(m, active or FixedActive(2), n_seeds=n_seeds, batch_size=batch_size, **options)


def gates(m=6, d=8, n_seeds=1, gate="and", optimizer=FAST, d_in=None, **options):
    torch.manual_seed(0)
    return UniversalGates(m, d_in or m, d, n_seeds, gate, optimizer=optimizer, **options)


def weights_in(make_trainer, data, **options):
    """Weights over probabilities of the four cases, by depth, after the module has seen the data."""
    module = gates(data.n_features, n_seeds=data.n_seeds, **options)
    make_trainer(limit_val_batches=1).validate(module, data, verbose=False)
    return module.weights.double()


def shares(data, pairs, depth=1):
    """How often each case occurs at every depth, in many vectors, for AND."""
    values, found = data.vectors((9,), 0, 40_000, 40_000)["f"].bool(), []
    for t in range(depth):
        pairs = pairs if t == 0 else torch.arange(2 * (values.shape[1] // 2)).view(2, -1)
        case = 2 * values[:, pairs[0]].long() + values[:, pairs[1]].long()
        found.append(torch.bincount(case.flatten(), minlength=4) / case.numel())
        values = case == 3 if t == 0 else case > 0
    return torch.stack(found).double()


def case_errors(module, data):
    """Mean output less truth of each case, and the mean size of it, for the first seed."""
    f = module.per_seed(data.vectors((9,), 0, 3000, 3000)["f"])[0]
    pairs, table = module.net.gates(0)
    with torch.no_grad():
        y = module.net(f)[0][0]
    case = 2 * f[:, pairs[0]].long() + f[:, pairs[1]].long()
    error = y - table[case]
    return [error[case == c].mean().item() for c in range(4)], [error[case == c].abs().mean().item() for c in range(4)]


def trained(m, d, gate, steps=400, **options):
    data, module = sampled(m, batch_size=256), gates(m, d, gate=gate, **options)
    fit(module, data, steps)
    return case_errors(module, data)


class AllPairs(SparseFeaturesDataModule):
    """Every pair of inputs that are on, once in each batch."""

    def vectors(self, *args):
        f = torch.zeros(self.batch_size, self.n_features)
        for row, pair in zip(f, combinations(range(self.n_features), 2), strict=True):
            row[list(pair)] = 1
        return {"f": f, "x": f, "row": torch.zeros(len(f), dtype=torch.int64)}


@pytest.mark.parametrize("active", [FixedActive(3), BernoulliActive(3.0)])
@pytest.mark.parametrize("gate", ["and", "or", "xor"])
@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_case_weights_share_the_loss_as_they_say(make_trainer, active, gate, factor):
    data, ones = sampled(8, active), truth_table(gate) > 0
    share = shares(data, all_pairs(8))[0]
    by_value = torch.where(ones, share / share[ones].sum(), share / share[~ones].sum())
    for rule, expected in (("natural", share), ("zero_one", by_value), ("four", torch.ones(4))):
        expected = expected.double() * torch.where(ones, factor, 1.0)
        [found] = weights_in(make_trainer, data, gate=gate, case_weights=rule, weight_on_ones=factor)
        torch.testing.assert_close(found * share, expected / expected.sum(), rtol=0.05, atol=0)


@pytest.mark.parametrize("rule", ["natural", "zero_one", "four"])
def test_deeper_gates_are_weighed_by_how_often_their_own_cases_occur(make_trainer, rule):
    data = sampled(8, BernoulliActive(3.0), 2)
    found = weights_in(make_trainer, data, depth=3, case_weights=rule)
    share = shares(data, all_pairs(8), 3)
    total = (found * share).sum(1)
    assert total.tolist() == pytest.approx([1, 1, 1], rel=0.02)
    deeper_ones = (found * share)[1:, 1:].sum(1).tolist()
    expected = {"natural": share[1:, 1:].sum(1).tolist(), "zero_one": [0.5, 0.5], "four": [0.75, 0.75]}[rule]
    assert deeper_ones == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("natural", [0, 1 / 8, 1 / 8, 6 / 8]), ("zero_one", [0, 1 / 4, 1 / 4, 1 / 2]), ("four", [0, 1 / 3, 1 / 3, 1 / 3])],
)
def test_a_case_that_never_occurs_has_no_weight(make_trainer, rule, expected):
    [found] = weights_in(make_trainer, sampled(8, FixedActive(7)), case_weights=rule)
    assert (found * torch.tensor([1.0, 1 / 8, 1 / 8, 6 / 8])).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_the_loss_is_the_weighted_mean_power_over_gates_summed_over_depths(make_trainer, p):
    data, module = sampled(6, BernoulliActive(2.0), 2, 32), gates(n_seeds=2, depth=2, p=p, weight_on_ones=3.0)
    make_trainer(limit_val_batches=1).validate(module, data, verbose=False)
    batch = data.vectors((9,), 0, 32, 32)
    y, _ = module.outputs(batch)
    assert y.shape == module.targets(batch).shape == (2, 32, 15 + 7)
    total = torch.zeros(2)
    values = module.per_seed(batch["f"]).bool()
    for t, part in enumerate(y.split([15, 7], 2)):
        (i, j), table = module.net.gates(t)
        case = 2 * values[..., i].long() + values[..., j].long()
        values = table[case] > 0
        total += (module.weights[t][case] * (part - table[case]).abs() ** p).mean((1, 2))
    torch.testing.assert_close(module.losses(batch, y), total)


def test_validation_tells_the_errors_of_every_case_and_depth(make_trainer):
    data, module = sampled(6, BernoulliActive(3.0), 2, 32, n_validation=100), gates(n_seeds=2, depth=2)
    metrics = make_trainer(limit_val_batches=1.0).validate(module, data, verbose=False)[0]
    batches = list(data.val_dataloader())
    error = torch.cat([(module.outputs(b)[0] - module.targets(b)).detach() for b in batches], 1)
    values = torch.cat([module.per_seed(b["f"]) for b in batches], 1).bool()
    for prefix, t, part in zip(("", "depth2_"), range(2), error.split([15, 7], 2), strict=True):
        (i, j), table = module.net.gates(t)
        case = 2 * values[..., i].long() + values[..., j].long()
        values = table[case] > 0
        for c, name in enumerate(CASES):
            size = [part[seed][case[seed] == c].abs() for seed in range(2)]
            for kind, of in (("mean", torch.mean), ("max", torch.max)):
                expected = (of(size[0]) + of(size[1])).item() / 2
                assert metrics[f"val/{prefix}{kind}_error_{name}"] == pytest.approx(expected, rel=1e-4)


def test_without_weight_on_ones_the_zero_map_wins_on_sparse_inputs_and_with_it_does_not():
    bias, size = trained(30, 20, "and", case_weights="natural")
    assert bias[3] + 1 < 0.2  # mean output where it should be 1
    assert size[0] < 0.02
    bias, _ = trained(30, 20, "and", case_weights="natural", weight_on_ones=400.0)
    assert bias[3] + 1 > 0.5


def test_a_balanced_loss_learns_the_sum_in_the_place_of_xor_and_four_weights_do_not():
    bias, size = trained(20, 40, "xor", case_weights="zero_one")
    assert max(size[:3]) < 0.1
    assert bias[3] == pytest.approx(2, abs=0.4)
    _, four = trained(20, 40, "xor", case_weights="four")
    assert four[3] < 0.6
    assert four[3] < size[3] / 3


@pytest.mark.parametrize("gate", ["and", "xor"])
def test_a_readoff_of_a_frozen_layer_is_trained_to_the_least_squares(gate):
    data, module = AllPairs(12, batch_size=66, n_validation=66), gates(12, 24, gate=gate, trained_first_layer=False)
    before = [p.clone() for p in module.net.parameters()]
    fit(module, data, 1200)
    W_in, b_in, W_out, _ = module.net.parameters()
    assert torch.equal(W_in, before[0])
    assert torch.equal(b_in, before[1])
    assert not torch.allclose(W_out, before[2], atol=0.01)
    batch = data.vectors()
    pairs, table = module.net.gates(0)
    with torch.no_grad():
        found = module.losses(batch, module.outputs(batch)[0]).item()
        h = module.net.stages[0].hidden(batch["x"][None])[0]
        best, constant = least_squares_readoff(h, batch["f"], pairs, table, torch.full((4,), 0.25))
        least = module.losses(batch, (h.double() @ best + constant)[None]).item()
    assert least > 0.01
    assert least * (1 - 1e-4) < found < least * 1.05


def test_a_first_layer_that_is_trained_moves():
    data, module = sampled(), gates()
    before = module.net.stages[0].W_in.detach().clone()
    fit(module, data, 5)
    assert not torch.allclose(module.net.stages[0].W_in, before, atol=0.01)


@pytest.mark.parametrize("options", [{}, {"depth": 2, "n_groups": 2, "error_correction": True}])
def test_a_seed_does_not_depend_on_the_weights_of_another(options):
    found = []
    for scale in (1.0, 3.0):
        data, module = sampled(n_seeds=2), gates(n_seeds=2, **options)
        before = [p.clone() for p in module.net.parameters()]
        with torch.no_grad():
            for p in module.net.parameters():
                p[: len(p) // 2] *= scale
        fit(module, data, 20)
        found.append([p.detach() for p in module.net.parameters()])
    for one, other, start in zip(*found, before, strict=True):
        half = len(one) // 2
        torch.testing.assert_close(one[half:], other[half:], atol=1e-6, rtol=1e-5)
        assert not torch.allclose(one[half:], start[half:], atol=0.01)
    assert not torch.allclose(found[0][0][0], found[1][0][0], atol=0.01)


@pytest.mark.parametrize("shape", [{}, {"n_groups": 2}, {"depth": 2}, {"depth": 2, "n_groups": 2}])
def test_the_gradient_of_every_seed_is_clipped_by_its_own_norm(make_trainer, shape):
    module = gates(n_seeds=3, **shape)
    module.trainer = make_trainer()

    def norms():
        return torch.stack([p.grad.unflatten(0, (3, -1)).flatten(1).norm(dim=1) for p in parameters]).norm(dim=0)

    parameters, wanted = list(module.net.parameters()), torch.tensor([0.1, 1.0, 30.0])
    for p in parameters:
        p.grad = torch.rand_like(p)
    scale = wanted / norms()
    for p in parameters:
        p.grad *= scale.repeat_interleave(len(p) // 3).view(-1, *[1] * (p.ndim - 1))
    module.configure_gradient_clipping(None, 0.5, "norm")
    assert norms().tolist() == pytest.approx([0.1, 0.5, 0.5])


@pytest.mark.parametrize("options", [{}, {"depth": 2, "n_groups": 2, "trained_first_layer": False}])
def test_two_processes_reach_the_result_of_one_at_equal_global_batch(make_trainer, options):
    results = []
    for devices in (1, 2):
        data = sampled(8, n_seeds=2, n_validation=129)  # of whose last batch one rank gets nothing
        module = gates(8, n_seeds=2, gate="xor", **options)
        trainer = make_trainer(devices=devices, max_steps=10, limit_val_batches=1.0)
        trainer.fit(module, data)
        results.append((module.state_dict(), trainer.validate(module, data, verbose=False)[0]))
    (one, metrics_one), (two, metrics_two) = results
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert metrics_two == pytest.approx(metrics_one, rel=1e-4)
    assert {f"val/{kind}_error_{case}" for kind in ("mean", "max") for case in CASES} < set(metrics_one)


def test_superposed_features_are_trained_on(make_trainer):
    data, module = sampled(8, d_superposed=5, n_seeds=2), gates(8, d_in=5, n_seeds=2)
    assert module.net.stages[0].W_in.shape == (2, 5, 8)
    trainer = make_trainer(limit_val_batches=1.0, max_steps=200)
    before = trainer.validate(module, data, verbose=False)[0]["val/loss"]
    trainer.fit(module, data)
    assert trainer.validate(module, data, verbose=False)[0]["val/loss"] < before


@pytest.mark.parametrize("values", ["uniform", "signed"])
def test_inputs_that_are_not_boolean_are_refused_in_one_line(make_trainer, refused, values):
    with refused(f"gates require Boolean inputs: data.values is {values}, not one"):
        make_trainer().fit(gates(), sampled(values=values))


def test_inputs_of_which_no_two_are_on_at_once_are_refused_in_one_line(make_trainer, refused):
    with refused("the two inputs of a gate at once"):
        make_trainer().fit(gates(), sampled(active=FixedActive(1)))


def test_inputs_in_other_groups_than_the_networks_are_refused_in_one_line(make_trainer, refused):
    with refused("data.active has 2 groups of inputs, but model.n_groups is 3"):
        make_trainer().fit(gates(12, n_groups=3), sampled(12, FixedActive(2, n_groups=2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0.5}, "p is 0.5; it must be a number of at least 1"),
        ({"p": float("nan")}, "p is nan; it must be a number of at least 1"),
        ({"p": float("inf")}, "p is inf; it must be a number of at least 1"),
        ({"weight_on_ones": -1.0}, "weight_on_ones is -1.0; it must be a number of at least 0"),
        ({"n_seeds": 0}, "n_seeds is 0; it must be at least 1"),
        ({"n_groups": 4}, "6 features cannot be divided into 4 equal groups"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(refused, options, message):
    with refused(message):
        gates(**options)
