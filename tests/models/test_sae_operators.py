"""How many operators a training step launches on an accelerator, where each costs the host some microseconds."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from pretended_device import DEVICE, PretendedDevice
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.callbacks import FiniteLoss
from zoo.models import ReLUSAE, TopKSAE
from zoo.models.sae import dispatch

D, K = 16, 512


class Operators(TorchDispatchMode):
    """Counts the operators that compute; views and `detach` do not."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += not (func.is_view or func is torch.ops.aten.detach.default)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch):
    monkeypatch.setattr(dispatch, "by_kernels", lambda device: False)


def dense_loss(net, x):
    """The loss with codes as a matrix (B, K), as one would write it."""
    pre = torch.addmm(net.b_enc - net.b_dec @ net.W_enc, x, net.W_enc)
    if isinstance(net, TopKSAE):
        values, indices = pre.topk(net.k)
        codes, penalty = torch.zeros_like(pre).scatter(1, indices, values.relu()), 0.0
    else:
        codes = pre.relu()
        penalty = net.l1_coefficient * (codes * net.W_dec.norm(dim=1)).sum() / (len(x) * net.scale * net.d_in)
    fired = (codes > 0).sum(0)
    return F.mse_loss(codes @ net.W_dec + net.b_dec, x) / net.scale**2 + penalty, fired


def counts(net, batch_size):
    """Operators of the forward and backward pass of the zoo on an accelerator, and of the dense formula."""
    x = torch.randn(batch_size, D, generator=torch.Generator().manual_seed(0))
    with Operators() as dense:
        loss, fired = dense_loss(net, x)
        loss.backward()
    with PretendedDevice():
        net.zero_grad()
        net, on_device = net.to(DEVICE), x.to(DEVICE)
        with Operators() as ours:
            found = net.loss(on_device)
            found.total.backward()
    assert torch.equal(found.fired, fired)
    torch.testing.assert_close(found.total, loss)
    return ours.n, dense.n


@pytest.mark.parametrize(
    ("make", "most", "more_than_dense"), [(lambda: TopKSAE(D, K, 4), 56, 23), (lambda: ReLUSAE(D, K), 52, 7)]
)
def test_operators_of_a_step_do_not_grow_with_the_batch(make, most, more_than_dense):
    small, large = counts(make(), 64), counts(make(), 4096)
    assert small == large
    ours, dense = small
    assert ours <= most
    assert ours - dense <= more_than_dense


def test_a_loss_that_is_not_checked_costs_no_operator():
    trainer = SimpleNamespace(global_step=3, log_every_n_steps=10, world_size=1)
    with PretendedDevice():
        loss = torch.ones(()).to(DEVICE)
        with Operators() as counted:
            FiniteLoss().on_train_batch_end(trainer, None, {"loss": loss}, None, 0)
    assert counted.n == 0
