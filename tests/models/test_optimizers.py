import math

import pytest
import torch

from zoo.models import GPT2, AdamLinear, AdamWCosine

EMBEDDINGS = {"transformer.wte.weight", "transformer.wpe.weight"}


@pytest.fixture
def net():
    return GPT2(vocab_size=20, context_length=8, d_model=8, n_layers=2, n_heads=2, tied=False)


def test_the_schedule_rises_linearly_peaks_after_warmup_and_ends_at_the_final_ratio():
    optimizer = AdamWCosine(warmup_steps=4, final_ratio=0.1)
    factors = [optimizer.factor(step, total_steps=24) for step in range(30)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[14] == pytest.approx(0.55)
    assert factors[24:] == pytest.approx([0.1] * 6)
    assert factors[4:25] == sorted(factors[4:25], reverse=True)


def test_decay_steps_end_the_cosine_before_the_run_does():
    optimizer = AdamWCosine(warmup_steps=0, decay_steps=10, final_ratio=0.0)
    assert optimizer.factor(0, 100) == 1.0
    assert optimizer.factor(5, 100) == pytest.approx(0.5)
    assert optimizer.factor(10, 100) == optimizer.factor(99, 100) == pytest.approx(0)


def test_a_run_without_an_end_stays_at_the_peak_unless_decay_steps_say_otherwise():
    assert AdamWCosine(warmup_steps=4).factor(10**6, math.inf) == 1.0
    assert AdamWCosine(warmup_steps=4, decay_steps=24).factor(10**6, math.inf) == pytest.approx(0.1)


def test_a_warmup_as_long_as_the_run_never_divides_by_zero():
    assert AdamWCosine(warmup_steps=5).factor(4, 5) == pytest.approx(5 / 6)
    assert AdamWCosine(warmup_steps=5).factor(5, 5) == 1.0


def test_the_optimizer_follows_the_schedule(net):
    configured = AdamWCosine(learning_rate=0.5, warmup_steps=3).configure(net, EMBEDDINGS, total_steps=10)
    assert configured["lr_scheduler"]["interval"] == "step"
    for step in range(12):
        rates = {group["lr"] for group in configured["optimizer"].param_groups}
        assert rates == {0.5 * AdamWCosine(warmup_steps=3).factor(step, 10)}
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()


@pytest.mark.parametrize("embedding_decay", [0.0, 0.03])
def test_matrices_decay_vectors_never_do_and_embeddings_have_a_decay_of_their_own(net, embedding_decay):
    recipe = AdamWCosine(weight_decay=0.1, embedding_weight_decay=embedding_decay, beta1=0.8, beta2=0.9)
    optimizer = recipe.configure(net, EMBEDDINGS, 10)["optimizer"]
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in net.named_parameters():
        expected = embedding_decay if name in EMBEDDINGS else 0.1 if p.ndim == 2 else 0.0
        assert decay[id(p)] == expected, name
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}


def test_every_trained_parameter_is_optimized_once_and_frozen_ones_not_at_all(net):
    net.W_E.requires_grad_(False)
    optimizer = AdamWCosine().configure(net, EMBEDDINGS, 10)["optimizer"]
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(optimized) == len(list(net.parameters())) - 1
    assert {id(p) for p in optimized} == {id(p) for p in net.parameters()} - {id(net.W_E)}


def test_a_step_without_gradient_shrinks_matrices_alone(net):
    torch.manual_seed(0)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = AdamWCosine(learning_rate=0.5, warmup_steps=0, weight_decay=0.1).configure(net, EMBEDDINGS, 10)[
        "optimizer"
    ]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        factor = 1 - 0.5 * 0.1 if p.ndim == 2 and name not in EMBEDDINGS else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, msg=name)


def test_the_linear_schedule_rises_stays_and_falls_to_zero_at_the_end():
    optimizer = AdamLinear(warmup_steps=4, decay_fraction=0.25)
    factors = [optimizer.factor(step, total_steps=40) for step in range(42)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:31] == [1.0] * 27
    assert factors[30:41] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    assert factors[41] == 0


def test_a_linear_schedule_without_decay_or_without_an_end_stays_up():
    assert AdamLinear(warmup_steps=4, decay_fraction=0).factor(99, 100) == 1.0
    assert AdamLinear(warmup_steps=4).factor(10**6, math.inf) == 1.0
    assert AdamLinear(warmup_steps=4).factor(1, math.inf) == pytest.approx(0.4)


@pytest.mark.parametrize(("warmup_steps", "decay_fraction"), [(0, 1.0), (100, 1.0), (100, 0.2), (5, 0.9)])
def test_a_linear_schedule_is_the_lower_of_its_rise_and_its_fall(warmup_steps, decay_fraction):
    optimizer = AdamLinear(warmup_steps=warmup_steps, decay_fraction=decay_fraction)
    for step in range(10):
        rise, fall = (step + 1) / (warmup_steps + 1), (10 - step) / (10 * decay_fraction)
        assert optimizer.factor(step, 10) == pytest.approx(min(1, rise, fall))


def test_adam_keeps_the_rates_of_its_groups_in_proportion(net):
    recipe = AdamLinear(warmup_steps=1, decay_fraction=0.5, beta1=0.8, beta2=0.99)
    groups = [{"params": [net.W_E], "lr": 0.5}, {"params": [net.lm_head.weight], "lr": 2.0}]
    configured = recipe.configure(groups, total_steps=8)
    optimizer = configured["optimizer"]
    assert configured["lr_scheduler"]["interval"] == "step"
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.99)}
    for step in range(9):
        factor = recipe.factor(step, 8)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5 * factor, 2.0 * factor])
        optimizer.step()
        configured["lr_scheduler"]["scheduler"].step()


def test_the_first_step_of_adam_moves_by_the_learning_rate_and_nothing_decays(net):
    before, idle = net.W_E.detach().clone(), net.lm_head.weight.detach().clone()
    groups = [{"params": [net.W_E, net.lm_head.weight], "lr": 0.5}]
    optimizer = AdamLinear(warmup_steps=0, decay_fraction=0).configure(groups, 10)["optimizer"]
    net.W_E.grad = torch.linspace(-3, 3, net.W_E.numel()).view_as(net.W_E)
    net.lm_head.weight.grad = torch.zeros_like(idle)
    optimizer.step()
    torch.testing.assert_close(net.W_E.detach(), before - 0.5 * net.W_E.grad.sign())
    assert torch.equal(net.lm_head.weight, idle)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "optimizer.learning_rate is -1.0; it must be finite and not negative"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps is -1"),
        ({"beta1": 1.0}, "optimizer.beta1 is 1.0; it must be at least 0 and below 1"),
        ({"beta2": -0.1}, "optimizer.beta2 is -0.1"),
        ({"decay_fraction": 1.1}, "optimizer.decay_fraction is 1.1; it must be at least 0 and at most 1"),
    ],
)
def test_settings_of_adam_out_of_range_are_refused(options, message, refused):
    with refused(message):
        AdamLinear(**options)
