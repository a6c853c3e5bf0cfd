"""Horizons of networks in which it is known how far back every sublayer reads, and losses computed by hand."""

import itertools
import math

import pytest
import torch
from hand_made_networks import HandMade, reads_back
from small_gpt2 import network
from torch.nn.functional import cross_entropy

from zoo.analysis.layer_horizon import (
    Horizon,
    batches,
    can_freeze,
    clean_run,
    direct_effects,
    document_losses,
    fillers,
    horizon,
    last_outputs,
    loss_increases,
    mean_outputs,
    random_outputs,
    total_effects,
    truncated_input_loss,
    truncated_losses,
    values_of_k,
)
from zoo.errors import ZooError
from zoo.estimates import Estimate, mean

READINGS = ["one", "all", "recursive"]
FILLERS = ["zero", "mean", "resampled"]


def curve(increases):
    """The increase at every k; for one input at a time, that of the worst input."""
    worst = increases.amax(1) if increases.ndim == 3 else increases
    return [mean(values) for values in worst.T]


def measured(model, windows, reading, filler, **options):
    """The horizon of a model at a tolerance of 0.1 nats."""
    run = clean_run(model, windows)
    instead = fillers(run, filler, mean_outputs(model, windows))
    increases = loss_increases(run, reading, lambda k: last_outputs(k, len(run.parts)), instead, **options)
    return horizon(curve(increases), 0.1)


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("s", range(1, 8))
def test_sublayers_that_read_only_s_outputs_back_have_horizon_s(s, reading, filler):
    model, windows = reads_back(s, n_sublayers=6)  # s = 1 is a chain, s = 7 copies the embedding to the unembedding
    assert clean_run(model, windows).loss.max() < 0.01
    assert measured(model, windows, reading, filler) == (s, s)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("s", range(1, 14))
def test_with_few_values_of_k_the_horizon_lies_between_the_two_around_it(s, reading):
    model, windows = reads_back(s, n_sublayers=12)
    run, ks = clean_run(model, windows), values_of_k(4, 12)
    assert ks == (1, 5, 8, 12)
    zero = fillers(run, "zero", mean_outputs(model, windows))
    increases = loss_increases(run, reading, lambda k: last_outputs(k, 12), zero, ks=ks)
    assert increases.shape[-1] == 4
    around = {1: (1, 1), **dict.fromkeys(range(2, 6), (2, 5)), **dict.fromkeys(range(6, 9), (6, 8))}
    around |= {**dict.fromkeys(range(9, 13), (9, 12)), 13: (13, 13)}
    assert horizon(curve(increases), 0.1, (*ks, 13)) == around[s]


def test_values_of_k_are_evenly_spread_with_both_ends_and_all_of_a_shallow_model():
    assert values_of_k(None, 24) == tuple(range(1, 25))
    assert values_of_k(50, 8) == tuple(range(1, 9))
    for ks, n in ((values_of_k(None, 60), 16), (values_of_k(5, 192), 5), (values_of_k(2, 9), 2)):
        steps = {b - a for a, b in itertools.pairwise(ks)}
        assert (len(ks), ks[0]) == (n, 1)
        assert max(steps) - min(steps) <= 1
    assert (values_of_k(None, 60)[-1], values_of_k(2, 9)) == (60, (1, 9))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("s", [1, 3, 5])
def test_a_parallel_layer_is_one_sublayer(s, reading):
    model, windows = reads_back(s, n_sublayers=4, parallel=True)
    run = clean_run(model, windows)
    assert (model.n_layers, len(run.parts), len(run.outputs)) == (4, 4, 5)
    torch.testing.assert_close(run.outputs[2], model.sublayers[1](run.inputs[1]))
    assert measured(model, windows, reading, "mean") == (s, s)


def three_sublayers():
    """Output 0 is 1 in slot 0; slot 1 = slot 0; slot 2 = slots 0 + 1; slot 3 = slots 1 + 2. The logit is 1 + 3."""

    def sublayer(n, *read):
        def added(x):
            y = torch.zeros_like(x)
            y[..., n] = x[..., list(read)].sum(-1)
            return y

        return added

    W_E = torch.tensor([[1.0, 0, 0, 0]] * 2)
    parts = [sublayer(1, 0), sublayer(2, 0, 1), sublayer(3, 1, 2)]
    return HandMade(W_E, parts, lambda x: torch.stack([x[..., 1] + x[..., 3], 0 * x[..., 0]], -1), parallel=True)


@pytest.mark.parametrize(
    ("reading", "logits"),
    [  # at k = 1, 2, 3; the clean logit is 1 + 3 = 4
        ("one", (3, 3, 4)),  # k = 1: each of sublayer 2, sublayer 3 and the unembedding alone loses 1 of 4
        ("all", (2, 3, 4)),  # k = 1: output 3 is 2, which is clean output 2, and the unembedding does not see output 1
        ("recursive", (1, 3, 4)),  # k = 1: output 2 is 1, so output 3 is 1
    ],
)
def test_the_readings_of_a_three_sublayer_network_are_those_computed_by_hand(reading, logits):
    model, windows = three_sublayers(), torch.zeros(2, 6, dtype=torch.int64)
    run = clean_run(model, windows)
    assert run.loss.tolist() == pytest.approx([math.log1p(math.exp(-4))] * 2, abs=1e-6)
    instead = fillers(run, "zero", mean_outputs(model, windows))
    increases = loss_increases(run, reading, lambda k: last_outputs(k, 3), instead)
    found = increases.amax(1) if reading == "one" else increases
    expected = [math.log1p(math.exp(-z)) - math.log1p(math.exp(-4)) for z in logits]
    assert found.tolist() == [pytest.approx(expected, abs=1e-6)] * 2


@pytest.mark.parametrize(("reading", "logit"), [("all", 4), ("recursive", 3)])
def test_an_input_that_keeps_all_outputs_is_clean_unless_the_run_is_recursive(reading, logit):
    model, windows = three_sublayers(), torch.zeros(2, 6, dtype=torch.int64)
    run = clean_run(model, windows)
    zero = fillers(run, "zero", mean_outputs(model, windows))
    kept = [range(1), (1,), range(3), range(4)]  # only sublayer 2 loses something, so that output 2 is 1, and not 2
    expected = math.log1p(math.exp(-logit))
    assert truncated_losses(run, kept, zero, reading).tolist() == pytest.approx([expected] * 2, abs=1e-6)


def test_a_horizon_needs_every_larger_k_and_so_a_curve_that_rises_again_counts():
    W_E = torch.tensor([[5.0, 0]] * 2)

    def add(value):
        return lambda x: torch.stack([torch.full_like(x[..., 0], value), 0 * x[..., 0]], -1)

    model = HandMade(W_E, [add(-5.0), add(4.0)], lambda x: x)  # logits 5, then 0, then 4; the last 2 make -1
    windows = torch.zeros(3, 5, dtype=torch.int64)
    run = clean_run(model, windows)
    zero = fillers(run, "zero", mean_outputs(model, windows))
    increases = loss_increases(run, "all", lambda k: last_outputs(k, 2), zero)
    assert increases[0].tolist() == pytest.approx([0, math.log1p(math.e) - math.log1p(math.exp(-4))], abs=1e-6)
    assert horizon(curve(increases), 0.1) == (3, 3)


def test_between_few_values_of_k_a_curve_that_rises_again_counts_from_its_last_rise():
    ends = [(1.0, 1.1), (0.01, 0.05), (0.3, 0.4), (0.0, 0.02)]
    rising = [Estimate(low, low, high) for low, high in ends]
    assert horizon(rising, 0.1, (1, 5, 9, 13, 14)) == (10, 13)
    undecided = [rising[0], Estimate(0.1, 0.05, 0.15), *rising[1:2]]
    assert horizon(undecided, 0.1, (1, 5, 9, 10)) == (2, 9)


def test_a_horizon_is_not_decided_where_an_interval_contains_the_tolerance():
    spans = [(1.0, 0.9, 1.1), (0.12, 0.08, 0.16), (0.05, 0.01, 0.09), (0.09, 0.07, 0.11), (0.0, 0.0, 0.0)]
    found = horizon([Estimate(*span) for span in spans], 0.1)
    assert found == Horizon(least=2, most=5)
    assert horizon([Estimate(0.0, -0.1, 0.05)], 0.1) == (1, 1)
    assert horizon([Estimate(0.2, 0.15, 0.25)], 0.1) == (2, 2)


@pytest.fixture
def model():
    return network(n_layers=2)


@pytest.fixture
def windows():
    return torch.randint(50, (6, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(model, windows):
    return clean_run(model, windows)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("filler", FILLERS)
def test_all_outputs_kept_give_the_clean_loss_bit_for_bit(model, windows, run, filler, frozen):
    clean = cross_entropy(model(windows[:, :-1])[:, 1:].transpose(1, 2), windows[:, 2:], reduction="none").mean(1)
    torch.testing.assert_close(run.loss, clean.double(), rtol=1e-6, atol=0)
    instead = fillers(run, filler, mean_outputs(model, windows))
    for reading in ("all", "recursive"):
        assert torch.equal(truncated_losses(run, last_outputs(5, 4), instead, reading, frozen), run.loss)
        assert not torch.equal(truncated_losses(run, last_outputs(4, 4), instead, reading, frozen), run.loss)
    for n in range(1, 6):
        assert torch.equal(truncated_input_loss(run, n, range(n), instead, frozen), run.loss)


def test_the_outputs_add_up_to_every_input_in_the_order_of_the_stream(run):
    for n, x in enumerate(run.inputs, 1):
        total = torch.zeros_like(x)
        for output in run.outputs[:n]:
            total = total + output
        assert torch.equal(total, x)


def test_documents_that_are_all_the_same_are_resampled_without_any_change(model, windows):
    run = clean_run(model, windows[:1].expand(4, -1))
    instead = fillers(run, "resampled", mean_outputs(model, windows), seed=3)
    for reading in READINGS:
        assert loss_increases(run, reading, lambda k: last_outputs(k, 4), instead).abs().max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_no_document_stands_for_itself(run, model, windows, seed):
    instead = fillers(run, "resampled", mean_outputs(model, windows), seed)
    origin = [[torch.equal(x, y) for y in run.outputs[1]] for x in instead[1]]
    assert torch.tensor(origin).sum(0).tolist() == torch.tensor(origin).sum(1).tolist() == [1] * 6
    assert not torch.tensor(origin).diagonal().any()


def test_the_mean_of_a_constant_output_stands_for_it_exactly_and_zero_does_not():
    constant = torch.tensor([0.0, 2.0, 0.0])
    parts = [lambda x: constant.expand_as(x), lambda x: torch.zeros_like(x)]
    model = HandMade(torch.eye(3), parts, lambda x: 3 * x)
    windows = torch.arange(8).remainder(3).expand(4, -1)
    run = clean_run(model, windows)
    means = mean_outputs(model, windows)
    without_1 = [range(1), range(2), (0, 2)]  # of what the unembedding reads
    for filler, changes in (("mean", False), ("zero", True)):
        losses = truncated_losses(run, without_1, fillers(run, filler, means), "all")
        assert torch.equal(losses, run.loss) != changes


def test_means_are_over_all_positions_but_0_which_has_its_own(model, windows, run):
    means = mean_outputs(model, windows, batch=4)
    for n, output in enumerate(run.outputs):
        torch.testing.assert_close(means[n, 0], output[:, 0].mean(0))
        torch.testing.assert_close(means[n, 1], output[:, 1:].mean((0, 1)))
    instead = fillers(run, "mean", means)[2]
    assert torch.equal(instead[0, 0], means[2, 0])
    assert torch.equal(instead[0, 1:], means[2, 1].expand(10, -1))


def test_with_frozen_layer_norms_the_logits_are_affine_in_what_the_unembedding_reads(model, windows, run):
    x, norm = run.outputs[3] + run.outputs[4], model.transformer.ln_f
    scale = (run.inputs[-1].var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    predicted = model.lm_head((x - x.mean(-1, keepdim=True)) / scale * norm.weight + norm.bias)
    expected = cross_entropy(predicted[:, 1:].transpose(1, 2), windows[:, 2:], reduction="none").mean(1)
    zero = fillers(run, "zero", mean_outputs(model, windows))
    found = truncated_input_loss(run, 5, (3, 4), zero, frozen=True)
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, truncated_input_loss(run, 5, (3, 4), zero), rtol=1e-2)


class Watched:
    """A model that records what its sublayers read and add at position 0."""

    def __init__(self, model):
        self.model, self.seen = model, {}
        self.n_layers, self.sites, self.W_E, self.context_length = model.n_layers, model.sites, model.W_E, None

    def run(self, input_ids, edits=None, start=None):
        def watched(name):
            def keep(x):
                x = edits[name](x) if name in edits else x
                self.seen[name] = x[:, 0]
                return x

            return keep

        first = start[0] if start else 0
        names = [s for s in self.sites if "scale" not in s and "resid" not in s and int(s.split(".")[1]) >= first]
        return self.model.run(input_ids, {**(edits or {}), **{name: watched(name) for name in names}}, start)


@pytest.mark.parametrize("reading", ["all", "recursive"])
def test_position_0_keeps_its_clean_inputs_unless_it_is_truncated(model, windows, reading):
    watched = Watched(model)
    run = clean_run(watched, windows)
    clean, zero = dict(watched.seen), fillers(run, "zero", mean_outputs(watched, windows))
    for position_0 in (False, True):
        truncated_losses(run, last_outputs(1, 4), zero, reading, position_0=position_0)
        for site in ("attn_in", "mlp_in", "attn_out", "mlp_out"):
            name = f"blocks.1.hook_{site}"
            assert torch.allclose(watched.seen[name], clean[name]) != position_0


def test_one_input_is_truncated_as_if_its_stream_were_edited_by_hand(model, windows, run):
    means = mean_outputs(model, windows)
    x = means[0, 1].expand(6, 11, -1).clone()
    x[:, 0] = means[0, 0]
    expected = document_losses(model, windows, {"blocks.0.hook_mlp_in": lambda _: x + run.outputs[1]})
    torch.testing.assert_close(truncated_input_loss(run, 2, (1,), fillers(run, "mean", means)), expected)


@pytest.mark.parametrize("s", [1, 2, 3])
def test_an_output_has_an_effect_on_those_to_which_a_path_leads_and_on_no_other(s):
    model, windows = reads_back(s, n_sublayers=4)
    run = clean_run(model, windows)
    zero = fillers(run, "zero", mean_outputs(model, windows))
    read = {n: max(0, n - s) for n in range(1, 6)}
    ancestors = {0: {0}}
    for n in range(1, 6):
        ancestors[n] = {n} | ancestors[read[n]]
    total, total_loss = total_effects(run, zero)
    direct, direct_loss = direct_effects(run, zero)
    for m in range(5):
        for n in range(5):
            assert (total[:, m, n] == (1.0 if m < n and m in ancestors[n] else 0.0)).all()
            assert (direct[:, m, n] == (1.0 if n and m == read[n] else 0.0)).all()
        assert ((total_loss[:, m] > 1) == (m in ancestors[5])).all()
        assert ((direct_loss[:, m] > 1) == (m == read[5])).all()


def test_of_a_parallel_layer_the_whole_output_is_left_out():
    model, windows = reads_back(1, n_sublayers=3, parallel=True)
    run = clean_run(model, windows)
    means = mean_outputs(model, windows)
    total, _ = total_effects(run, fillers(run, "zero", means))
    assert torch.equal(total[0], torch.ones(4, 4, dtype=torch.float64).triu(1))
    unchanged, loss = total_effects(run, run.outputs)
    assert unchanged.abs().max() < 1e-6
    assert loss.abs().max() < 1e-6


def test_random_outputs_are_k_of_the_earlier_ones_and_all_of_them_if_there_are_no_more():
    drawn = [random_outputs(3, 6, seed) for seed in range(200)]
    for kept in drawn:
        assert [len(one) for one in kept] == [1, 2, 3, 3, 3, 3, 3]
        assert all(sorted(set(one)) == one and max(one) < n for n, one in enumerate(kept, 1))
    times = torch.bincount(torch.tensor([i for kept in drawn for i in kept[6]]), minlength=7) / 200
    assert (times - 3 / 7).abs().max() < 0.15  # every output equally often, the latest too
    assert random_outputs(3, 6, 0) == random_outputs(3, 6, 0)


def test_batches_have_at_least_two_documents_and_change_no_loss(model, windows, run):
    assert [len(part) for part in batches(windows[:5], 2)] == [3, 2]
    assert [len(part) for part in batches(windows, 4)] == [3, 3]
    parts = [clean_run(model, part).loss for part in batches(windows, 2)]
    torch.testing.assert_close(torch.cat(parts), run.loss, rtol=1e-6, atol=0)
    with pytest.raises(ZooError, match="1 document is given"):
        list(batches(windows[:1], 2))


def test_a_model_without_the_scales_of_layer_norms_cannot_freeze_them(model):
    hand_made, windows = reads_back(1, 2)
    assert can_freeze(model)
    assert not can_freeze(hand_made)
    run = clean_run(hand_made, windows)
    with pytest.raises(ZooError, match="they cannot be frozen"):
        truncated_losses(run, last_outputs(1, 2), run.outputs, "all", frozen=True)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ZooError, match="no layer"):
        clean_run(network(n_layers=0), torch.zeros(2, 4, dtype=torch.int64))
