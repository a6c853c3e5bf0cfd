import pytest
import torch

from zoo.models.toy.gate_loss import gate_losses

POWERS = [1, 1.5, 2, 3, 4, 6]
SEEDS, B, P, LISTED = 3, 4, 10, 17


def case(listed=LISTED, dtype=torch.float64):
    """Outputs, none of them near 0 or 1, and the arguments that `gate_losses` needs beside them."""
    g = torch.Generator().manual_seed(0)
    y = torch.randn(SEEDS, B, P, generator=g, dtype=dtype)
    y = y + 0.1 * y.sign() + 0.2 * ((y - 1).abs() < 0.1)
    place = torch.randperm(y.numel(), generator=g)[:listed]
    target = torch.randint(2, (listed,), generator=g).to(dtype)
    weight = torch.rand(listed, generator=g, dtype=dtype) * 5
    return y, place, target, weight, torch.tensor(0.7, dtype=dtype)


def dense(y, place, target, weight, weight_of_00, p):
    """The same loss of matrices of all targets and weights."""
    t, w = torch.zeros_like(y), weight_of_00 * torch.ones_like(y)
    t.view(-1)[place], w.view(-1)[place] = target, weight
    return (w * (y - t).abs() ** p).mean((1, 2))


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("listed", [0, LISTED, SEEDS * B * P])
def test_the_loss_of_listed_gates_is_the_weighted_power_of_all_errors(p, listed):
    arguments = case(listed)
    torch.testing.assert_close(gate_losses(*arguments, p), dense(*arguments, p))


@pytest.mark.parametrize("p", POWERS)
def test_the_gradient_is_that_of_the_dense_loss_for_every_seed(p):
    y, *rest = case()
    mine, theirs = y.clone().requires_grad_(), y.clone().requires_grad_()
    scale = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (scale * gate_losses(mine, *rest, p)).sum().backward()
    (scale * dense(theirs, *rest, p)).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("p", POWERS)
def test_the_gradient_is_that_of_finite_differences(p):
    y, *rest = case()
    assert torch.autograd.gradcheck(lambda y: gate_losses(y, *rest, p), y.requires_grad_())


@pytest.mark.parametrize("p", POWERS)
def test_where_there_is_no_error_there_is_no_slope(p):
    y, place, target, *rest = case()
    y.zero_().view(-1)[place] = target
    gate_losses(y.requires_grad_(), place, target, *rest, p).sum().backward()
    assert not y.grad.any()


@pytest.mark.parametrize("p", POWERS)
def test_outputs_and_weights_are_not_changed(p):
    arguments = case()
    before = [a.clone() for a in arguments]
    arguments[0].requires_grad_()
    gate_losses(*arguments, p).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


@pytest.mark.parametrize("p", POWERS)
def test_single_precision_loses_little(p):
    single, double = case(dtype=torch.float32), [a.double() if a.is_floating_point() else a for a in case()]
    double[0] = single[0].double()
    single = [single[0], *(a.float() if a.is_floating_point() else a for a in double[1:])]
    found = gate_losses(*single, p)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), dense(*double, p), rtol=1e-5, atol=0)
