import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.models import GPT2, unembedded_loss
from zoo.models.unembedded_loss import tokens_at_once, unembedded_nats

N, D, V = 30, 8, 101
CHUNKS = [(V, 0), (4 * V, 0), (5 * V, 27), (10**6, 0), (10**6, 27)]  # logits at once; rows of zeros


@pytest.fixture(params=CHUNKS, ids=str)
def chunks(request, monkeypatch):
    """Logits of so many at once, and W_U filled up as on an accelerator or not."""
    at_once, fill = request.param
    monkeypatch.setattr(unembedded_loss, "rows_of_zeros", lambda V, kind: fill)
    monkeypatch.setattr(unembedded_loss, "LOGITS_AT_ONCE", {"cpu": at_once})


def inputs(dtype=torch.float32, left_out=(), scale=1.0):
    generator = torch.Generator().manual_seed(0)
    x, W = (scale * torch.randn(n, D, generator=generator) for n in (N, V))
    targets = torch.randint(V, (N,), generator=generator)
    targets[list(left_out)] = -100
    return x.to(dtype).requires_grad_(), W.to(dtype).requires_grad_(), targets


def formula(x, W, targets):
    """The sum of the losses and its gradients, in float64."""
    x, W = (p.detach().double().requires_grad_() for p in (x, W))
    kept = targets != -100
    log_p = (x @ W.T).log_softmax(1)[kept]
    nats = -log_p[range(len(log_p)), targets[kept]].sum()
    return nats.detach(), *torch.autograd.grad(nats, (x, W))


def relative(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-14), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("left_out", [(), (0, 7, 29)], ids=str)
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_loss_and_gradients_are_those_of_the_formula(chunks, dtype, rounding, left_out, scale):
    x, W, targets = inputs(dtype, left_out, scale)
    nats = unembedded_nats(x, W, targets)
    assert nats.dtype == dtype
    (0.5 * nats).backward()
    wanted, dx, dW = formula(x, W, targets)
    assert relative(nats.detach(), wanted) < rounding
    assert relative(x.grad, 0.5 * dx) < rounding
    assert relative(W.grad, 0.5 * dW) < rounding
    with torch.no_grad():
        assert torch.equal(unembedded_nats(x, W, targets), nats)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_loss_in_half_precision_is_summed_in_float32(chunks, dtype):
    x, W, targets = inputs(left_out=(3,))
    with torch.autocast("cpu", dtype):
        nats = unembedded_nats(x, W, targets)
    assert nats.dtype == torch.float32
    nats.backward()
    wanted, dx, dW = formula(x, W, targets)
    eps = torch.finfo(dtype).eps
    assert relative(nats.detach(), wanted) < eps
    assert relative(x.grad, dx) < 2 * eps
    assert relative(W.grad, dW) < 2 * eps
    assert x.grad.dtype == W.grad.dtype == torch.float32
    many = unembedded_nats(x.detach().to(dtype).repeat(5000, 1), W.detach().to(dtype), targets.repeat(5000))
    assert many.item() == pytest.approx(5000 * wanted.item(), rel=2 * eps)  # beyond the largest float16


def test_without_a_target_that_counts_loss_and_gradients_are_0(chunks):
    x, W, targets = inputs(left_out=range(N))
    nats = unembedded_nats(x, W, targets)
    nats.backward()
    assert nats == 0
    assert not x.grad.any()
    assert not W.grad.any()


def test_a_matrix_that_does_not_move_gets_no_gradient(chunks):
    x, W, targets = inputs()
    unembedded_nats(x, W.detach(), targets).backward()
    assert W.grad is None
    assert relative(x.grad, formula(x, W, targets)[1]) < 2e-6


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


def test_all_logits_are_never_in_memory(monkeypatch):
    monkeypatch.setattr(unembedded_loss, "LOGITS_AT_ONCE", {"cpu": 16 * V})
    x, W = torch.randn(512, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    targets = torch.zeros(512, dtype=torch.int64)
    with Largest() as made:
        unembedded_nats(x, W, targets).backward()
    assert made.numel == max(16 * V, 512 * D)
    with Largest() as made:
        F.cross_entropy(x @ W.T, targets).backward()
    assert made.numel == 512 * V


def test_it_cannot_be_differentiated_twice():
    x, W, targets = inputs()
    (dx,) = torch.autograd.grad(unembedded_nats(x, W, targets).square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize("tied", [True, False])
def test_a_network_given_targets_returns_their_loss_and_its_gradients(tied, monkeypatch):
    monkeypatch.setattr(unembedded_loss, "LOGITS_AT_ONCE", {"cpu": 200})
    torch.manual_seed(0)
    net = GPT2(50, 12, 16, 2, 2, tied=tied)
    exact = copy.deepcopy(net).double()
    input_ids, targets = torch.randint(50, (2, 3, 12))
    targets[0, :4] = -100
    nats = net(input_ids, targets)
    nats.backward()
    wanted = F.cross_entropy(exact(input_ids).flatten(0, 1), targets.flatten(), reduction="sum")
    wanted.backward()
    assert nats.item() == pytest.approx(wanted.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), exact.parameters(), strict=True):
        assert relative(ours.grad, theirs.grad) < 1e-5


def test_a_compiled_network_does_not_break_at_the_loss(monkeypatch):
    monkeypatch.setattr(unembedded_loss, "LOGITS_AT_ONCE", {"cpu": 400})
    monkeypatch.setattr(unembedded_loss, "rows_of_zeros", lambda V, kind: 14)
    torch.manual_seed(0)
    net = GPT2(50, 12, 16, 1, 2)
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    input_ids, targets = torch.randint(50, (2, 3, 12))
    compiled(input_ids, targets).backward()
    twin(input_ids, targets).backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_compiled_network_takes_more_tokens_at_a_time_on_an_accelerator_only():
    def at_once(x):
        return x.new_tensor([tokens_at_once(50257, kind) for kind in ("cuda", "cpu")])

    assert at_once(torch.ones(1)).tolist() == [4096, 32]
    assert torch.compile(at_once, backend="eager")(torch.ones(1)).tolist() == [32768, 32]
