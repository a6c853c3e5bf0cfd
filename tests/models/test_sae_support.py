import every
import pytest
import torch
import torch.nn.functional as F

from zoo import models
from zoo.models.sae.support import Everywhere, Support, support_where

B, D, K = 64, 16, 96
VARIANTS = every.SAE_VARIANTS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b):
    """Equal to 1e-5 of the largest entry."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def autoencoder(variant, dense):
    """A network in training mode with every parameter away from where it starts."""
    torch.manual_seed(1)
    net = getattr(models, variant)(D, K, **every.sparse(variant, {"k": 30 if dense else 5}), aux_k=3)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.add_(torch.randn(p.shape) / 4)
            if name in ("b_enc", "b_gate"):
                p.sub_(0 if dense else 2)
            if name == "threshold":
                p.abs_()
    net.scale.fill_(1.7)
    return net.train()


def dense_loss(net, p, x, dead, sparsity):
    """The variant's loss of the docstrings on dense matrices; p are its parameters, in double precision."""
    variant, scale = type(net).__name__, net.scale.item()

    def error(x_hat, x=x):
        return (x - x_hat).square().mean() / scale**2

    bias = p["b_gate"] if variant == "GatedSAE" else p["b_enc"]
    pre = (x - p["b_dec"]) @ p["W_enc"] + bias
    codes, penalty = pre.relu(), torch.zeros(())
    if variant == "ReLUSAE":
        penalty = net.l1_coefficient * (codes * p["W_dec"].norm(dim=1)).sum() / scale
    elif variant == "JumpReLUSAE":
        threshold, width = p["threshold"], net.bandwidth * scale
        on = (pre > threshold).double()
        moved = (threshold - threshold.detach()) / width * ((pre - threshold).abs() <= width / 2)  # 0, with a gradient
        codes = pre * on - threshold.detach() * moved
        penalty = net.l0_coefficient * (on - moved).sum()
    elif variant == "GatedSAE":
        magnitudes = (x - p["b_dec"]) @ (p["W_enc"] * p["r_mag"].exp()) + p["b_mag"]
        codes, gates = (pre > 0) * magnitudes.relu(), pre.relu()
        penalty = net.l1_coefficient * gates.sum() / scale
    elif variant == "TopKSAE":
        codes = codes * torch.zeros_like(pre).scatter(1, pre.topk(net.k).indices, 1)
    else:
        codes = codes * (pre >= pre.flatten().topk(net.k * len(x)).values.min())
    total = error(codes @ p["W_dec"] + p["b_dec"]) + sparsity * penalty / (len(x) * D)
    if variant == "GatedSAE":
        total = total + error(gates @ p["W_dec"].detach() + p["b_dec"].detach())
    if variant == "MatryoshkaSAE":
        ends = [*net.prefixes, K]
        total = torch.stack([error(codes[:, :end] @ p["W_dec"][:end] + p["b_dec"]) for end in ends]).mean()
    if len(dead):
        residual = (x - codes @ p["W_dec"] - p["b_dec"]).detach()
        kept = torch.zeros(len(x), len(dead)).scatter(1, pre[:, dead].topk(3).indices, 1)
        revived = (pre[:, dead].relu() * kept).detach().requires_grad_()
        aux = net.aux_coefficient * error(revived @ p["W_dec"][dead], residual)
        (grad,) = torch.autograd.grad(aux, revived, retain_graph=True)
        above = pre[:, dead] > 0
        stuck = ~(above & (kept > 0)).any(0)
        raised = (pre[:, dead] * grad * kept * (above | (stuck & (grad < 0)))).sum()  # only for its gradient
        total = total + aux + raised - raised.detach()
    return total, codes


@pytest.mark.parametrize("n_dead", [0, 7])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_those_of_the_dense_formula(variant, dense, n_dead):
    net, dead = autoencoder(variant, dense), torch.arange(n_dead) * 13
    x = torch.randn(B, D, generator=generator())
    assert isinstance(net.codes(x).support, Everywhere) == (dense and variant != "TopKSAE")
    loss = net.loss(x, dead, sparsity=0.3)
    loss.total.backward()
    parameters = {name: p.detach().double().requires_grad_() for name, p in net.named_parameters()}
    expected, codes = dense_loss(net, parameters, x.double(), dead, 0.3)
    expected.backward()
    close(loss.total.detach().double(), expected.detach())
    assert torch.equal(loss.fired, (codes > 0).sum(0))
    for name, p in net.named_parameters():
        assert parameters[name].grad.abs().max() > 0
        close(p.grad.double(), parameters[name].grad)
        assert p.grad.stride() == p.stride()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_products_on_a_support_are_the_dense_ones(share):
    mask = torch.rand(B, K, generator=generator(2)) < share
    mask[5] = False
    support, codes = Support.of_mask(mask), torch.randn(B, K, generator=generator(3)) * mask
    values, rows = support.take(codes), torch.randn(B, D, generator=generator(4))
    W_dec, per_latent = torch.randn(K, D, generator=generator(5)), torch.randn(K, generator=generator(6))
    assert torch.equal(support.dense(values), codes)
    assert torch.equal(support.counts(values), (codes != 0).sum(0))
    assert torch.equal(support.rows, mask.nonzero()[:, 0])
    assert torch.equal(support.latents, mask.nonzero()[:, 1])
    expected = [codes @ W_dec, codes.T @ rows, codes.sum(0), (codes * per_latent).sum()]
    found = [support.decode(values, W_dec), support.rows_by_latent(values, rows), support.sum_by_latent(values)]
    for a, b in zip([*found, support.total(values, per_latent)], expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_part_of_a_support_has_the_pairs_of_the_part():
    mask = torch.rand(B, K, generator=generator(7)) < 0.1
    support = Support.of_mask(mask)
    part = support.where(support.latents < 20)
    left = mask & (torch.arange(K) < 20)
    assert torch.equal(part.latents, left.nonzero()[:, 1])
    assert torch.equal(part.rows, left.nonzero()[:, 0])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 1.0])
def test_everywhere_gives_what_a_support_gives(share):
    mask = torch.rand(B, K, generator=generator(8)) < share
    support, everywhere = support_where(mask), Everywhere()
    assert isinstance(support, Everywhere) == (share > 0.1)
    support, codes = Support.of_mask(mask), torch.randn(B, K, generator=generator(9)).relu() * mask
    W_dec, per_latent = torch.randn(K, D, generator=generator(10)), torch.randn(K, generator=generator(11))
    values = support.take(codes)
    assert torch.equal(everywhere.counts(codes), support.counts(values))
    torch.testing.assert_close(everywhere.decode(codes, W_dec), support.decode(values, W_dec))
    torch.testing.assert_close(everywhere.total(codes, per_latent), support.total(values, per_latent))


def test_a_batch_without_a_code_leaves_only_the_decoders_bias_a_gradient():
    net = models.ReLUSAE(D, K)
    with torch.no_grad():
        net.b_enc.fill_(-100)
    x = torch.randn(B, D, generator=generator(12))
    loss = net.loss(x)
    loss.total.backward()
    torch.testing.assert_close(loss.total, F.mse_loss(x, torch.zeros(B, D)))
    assert loss.fired.sum() == 0
    torch.testing.assert_close(net.b_dec.grad, -2 * x.mean(0) / D)
    assert not any(p.grad.any() for p in (net.W_enc, net.W_dec, net.b_enc))
