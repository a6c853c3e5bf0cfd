import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_gpt2 import network, same

from zoo.analysis import row_reset
from zoo.analysis.row_recovery import cosines, recovered
from zoo.analysis.row_reset import counted, measured_at, random_rows, token_losses, train_rest, train_rows
from zoo.analysis.token_contexts import contexts, windows_per_token

T, POINTS = 8, [0, 1, 4]
TUNE = {"row": train_rows, "rest": train_rest}


def resets(model, n_train=6, n_eval=3, seed=0):
    """Three tokens, random rows for them, and windows with them among the first inputs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([3, 17, 41])
    windows = torch.randint(50, (3, n_train + n_eval, T + 1), generator=generator)
    places = torch.randint(T // 2, (3, n_train + n_eval, 1), generator=generator)
    windows.scatter_(2, places, tokens[:, None, None].expand_as(places))
    return tokens, random_rows(model.W_E, tokens, generator), windows[:, :n_train], windows[:, n_train:]


def one_reset(model, mode, token, row, train, evaluation, batch, learning_rate):
    """The same by hand, with a model of its own and nothing that is not of the model."""
    model = copy.deepcopy(model).requires_grad_()
    with torch.no_grad():
        model.W_E[token] = row
    parameters = [model.W_E] if mode == "row" else list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    is_own = torch.arange(len(model.W_E)) == token
    frozen = ~is_own if mode == "row" else is_own

    def loss(windows):
        losses = F.cross_entropy(model(windows[:, :-1]).transpose(1, 2), windows[:, 1:], reduction="none")
        return losses[(windows[:, :-1] == token).cumsum(1) > 0].mean()

    found = []
    for step in range(POINTS[-1] + 1):
        if step in POINTS:
            found.append((loss(evaluation).item(), model.W_E[token].detach().clone()))
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / POINTS[-1])
        optimizer.zero_grad()
        loss(train[torch.arange(step * batch, (step + 1) * batch) % len(train)]).backward()
        model.W_E.grad[frozen] = 0
        optimizer.step()
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mode", TUNE)
@pytest.mark.parametrize("bytes_at_once", [1, 2**27])
def test_resets_side_by_side_are_those_made_one_by_one(monkeypatch, mode, tied, bytes_at_once):
    monkeypatch.setattr(row_reset, "BYTES_AT_ONCE", bytes_at_once)
    model = network(tied=tied)
    tokens, rows, train, evaluation = resets(model)
    rate = {"row": 0.5, "rest": 0.05}[mode]
    tuned = TUNE[mode](model, tokens, rows, train, evaluation, POINTS, 4, rate)
    assert tuned.loss.shape == (3, 3)
    for i, token in enumerate(tokens):
        alone = one_reset(model, mode, token, rows[i], train[i], evaluation[i], 4, rate)
        torch.testing.assert_close(tuned.loss[:, i], torch.tensor([loss for loss, _ in alone]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tuned.rows[:, i], torch.stack([row for _, row in alone]), rtol=1e-3, atol=1e-3)
    assert (tuned.loss[0] - tuned.loss[-1]).abs().max() > 0.01


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mode", TUNE)
def test_the_model_is_left_as_it_is(mode, tied):
    model = network(tied=tied)
    TUNE[mode](model, *resets(model), POINTS, 4, 0.05)
    assert same(model, network(tied=tied))


@pytest.mark.parametrize("tied", [False, True])
def test_a_row_that_is_not_trained_does_not_move_at_all_while_the_rest_learns(tied):
    model = network(tied=tied)
    tokens, rows, train, _ = resets(model)
    tuned = train_rest(model, tokens, rows, train, train, POINTS, 6, 0.01)
    assert torch.equal(tuned.rows, rows.expand(3, -1, -1))
    assert (tuned.loss[-1] < tuned.loss[0] - 0.1).all()


def test_training_a_row_lowers_its_loss():
    model = network(tied=False)
    tokens, rows, train, _ = resets(model)
    tuned = train_rows(model, tokens, rows, train, train, [0, 30], 6, 0.1)
    assert (tuned.loss[-1] < tuned.loss[0]).all()


@pytest.mark.parametrize("mode", TUNE)
def test_a_reset_to_the_own_row_does_no_damage(mode):
    model = network()
    tokens, _, train, evaluation = resets(model)
    tuned = TUNE[mode](model, tokens, model.W_E[tokens], train, evaluation, [0, 2], 4, 0.0)
    logits = model(evaluation[..., :-1].flatten(0, 1))
    losses = F.cross_entropy(logits.transpose(1, 2), evaluation[..., 1:].flatten(0, 1), reduction="none")
    mask = counted(evaluation, tokens)
    before = (losses.view_as(mask) * mask).sum((1, 2)) / mask.sum((1, 2))
    torch.testing.assert_close(tuned.loss, before.expand(2, -1), rtol=1e-5, atol=1e-5)
    share = recovered(*(tuned.loss[i].double().numpy() for i in (0, 0, 1, 1)))
    assert np.isnan(share).all()


def test_a_row_has_no_influence_before_its_token_and_none_where_there_is_no_token():
    model = network(tied=False)
    tokens, rows, windows, _ = resets(model)
    windows[:, 0] = 7  # the token does not occur
    windows[:, 1, :-1], windows[:, 1, -1] = 7, tokens  # only as the last target
    own, other = (token_losses(model, windows, tokens, r) for r in (model.W_E[tokens], rows))
    mask = counted(windows, tokens)
    assert not mask[:, :2].any()
    assert torch.equal(own[~mask], other[~mask])
    assert ((own - other).abs() > 1e-6)[mask].float().mean() > 0.9


def test_a_tied_row_matters_for_predictions_before_its_token():
    model = network(tied=True)
    tokens, rows, windows, _ = resets(model)
    own, other = (token_losses(model, windows, tokens, r) for r in (model.W_E[tokens], rows))
    assert (own != other)[~counted(windows, tokens)].any()


def test_random_rows_are_as_far_from_the_mean_as_the_own_ones():
    W_E = network().W_E + 3.0
    tokens = torch.arange(50).repeat(40)
    found, mean = random_rows(W_E, tokens, torch.Generator().manual_seed(0)), W_E.mean(0)
    torch.testing.assert_close((found - mean).norm(dim=1), (W_E[tokens] - mean).norm(dim=1))
    assert F.cosine_similarity(found - mean, W_E[tokens] - mean).mean().abs() < 0.03


def test_contexts_hold_their_token_early_and_share_nothing():
    rng = np.random.default_rng(0)
    ids = np.arange(9 * 300) + 1000  # every place of the text is known by its token
    ids[rng.choice(len(ids), 900, replace=False)] = 5
    found = contexts(ids, [5, 5], 20, 8, np.random.default_rng(1))
    assert found.shape == (2, 20, 9)
    assert (found[..., :4] == 5).any(-1).all()
    apart = contexts(ids, [5], windows_per_token(ids, 8, 10_000)[5], 8, rng)[0]
    starts = [w[w != 5][0] - 1000 - np.flatnonzero(w != 5)[0] for w in apart]
    assert len(set(starts)) == len(starts)
    assert all(start % 9 == 0 for start in starts)


def test_a_token_with_too_few_contexts_is_named(refused):
    ids = np.tile(np.arange(9), 10)
    assert windows_per_token(ids, 8, 12).tolist() == [10] * 4 + [0] * 8
    with refused("token 2 is in the first half of 10 windows of 8 tokens, fewer than 11"):
        contexts(ids, [2], 11, 8, np.random.default_rng(0))
    with refused("token 7 is in the first half of 0 windows"):
        contexts(ids, [0, 7], 1, 8, np.random.default_rng(0))


def test_putting_the_row_back_recovers_everything_and_leaving_it_nothing():
    rng = np.random.default_rng(0)
    before, control = rng.normal(3, 1, 50), rng.normal(3, 1, 50)
    reset = before + rng.uniform(0.1, 1, 50)
    assert recovered(before, reset, before, before) == pytest.approx((1, 1, 1))
    assert recovered(before, reset, control, control) == pytest.approx((1, 1, 1))
    assert recovered(before, reset, reset, before) == pytest.approx((0, 0, 0), abs=1e-12)
    half = recovered(before, reset, before + (reset - before) * rng.uniform(0, 1, 50), before)
    assert half.low < half.value < half.high
    assert half.value == pytest.approx(0.5, abs=0.15)


def test_what_fine_tuning_alone_changes_is_no_part_of_the_damage():
    # A reset costs 1 or 3 nats; fine-tuning without one gains 0.5, and with one ends 0.4 above that: 1 - 0.4 / 2.
    before = np.full(40, 5.0)
    reset = before + np.tile([1.0, 3.0], 20)
    assert recovered(before, reset, before - 0.1, before - 0.5).value == pytest.approx(0.8)


def test_what_is_recovered_of_unclear_damage_is_not_told():
    before, few = np.zeros(4), np.array([0.001, 0.002, 0.015, 0.018])  # a bootstrap alone would take it for clear
    assert np.isnan(recovered(before, few, before, before)).all()
    assert recovered(before, few + 0.02, before, before).value == 1


def test_a_put_back_row_has_no_loss_left():
    model = network(tied=True)
    tokens, rows, train, evaluation = resets(model)
    before, back = (train_rows(model, tokens, model.W_E[tokens].clone(), train, evaluation, [0]).loss[0] for _ in "ab")
    reset = train_rows(model, tokens, rows, train, evaluation, [0]).loss[0]
    assert torch.equal(before, back)
    assert (reset != before).all()


def test_the_interval_of_what_is_recovered_covers_it_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for i in range(100):
        damage = rng.gamma(2, 0.2, 40)
        left = 0.3 * damage + rng.normal(0, 0.1, 40)
        share = recovered(np.zeros(40), damage, left, np.zeros(40), draws=400, seed=i)
        covered += share.low <= 0.7 <= share.high
    assert 85 <= covered <= 100


def test_cosines_are_about_the_mean_and_others_leave_the_own_out():
    W_E = network().W_E + 2.0
    tokens, groups = torch.tensor([4, 9]), torch.arange(50) % 5
    found = cosines(torch.stack([W_E[tokens], W_E[[9, 4]]]), W_E, tokens, groups)
    torch.testing.assert_close(found.own[0], torch.ones(2))
    assert found.nearest.tolist() == [[True, True], [False, False]]
    centred = F.normalize(W_E - W_E.mean(0), dim=1)
    others = [i for i in range(50) if i % 5 == 4 and i != 4]
    assert found.others[0, 0].item() == pytest.approx((centred[others] @ centred[4]).mean().item(), abs=1e-5)


@pytest.mark.parametrize(("steps", "points"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (50, [0, 1, 4, 14, 50])])
def test_losses_are_measured_at_the_start_the_end_and_between(steps, points):
    found = measured_at(steps)
    assert found[0] == 0
    assert found[-1] == steps
    assert found == sorted(set(found))
    assert len(found) == len(points)


def test_shapes_that_do_not_fit_are_refused(refused):
    model = network()
    tokens, rows, train, evaluation = resets(model)
    with refused("3 tokens of a model of width 16 need"):
        train_rows(model, tokens, rows[:2], train, evaluation, [0])
    with refused("train is .* expected windows for 3 tokens"):
        train_rows(model, tokens, rows, train[:2], evaluation, [0])
    with refused("evaluation has windows whose inputs do not contain their token"):
        train_rest(model, tokens, rows, train, torch.full_like(evaluation, 2), [0])
    with refused("at most 12 inputs"):
        train_rest(model, tokens, rows, train, evaluation.repeat(1, 1, 2), [0])
