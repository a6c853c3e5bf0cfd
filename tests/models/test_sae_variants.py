import json

import every
import pytest
import torch

from zoo import models
from zoo.models import BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE

D, K = 12, 40
VARIANTS = every.SAE_VARIANTS
LEVELS = {"k": 3, "l1_coefficient": 0.5, "l0_coefficient": 0.5}
FURTHER = {"JumpReLUSAE": {"bandwidth": 0.4}, "MatryoshkaSAE": {"prefixes": [4, 9]}}
OPTIONS = {v: every.sparse(v, LEVELS) | FURTHER.get(v, {}) for v in VARIANTS}
UNIT_NORM = [v for v in VARIANTS if getattr(models, v).unit_norm_decoder]


def rows(n=64, seed=0):
    """Data with a mean and a spread of their own, (n, D)."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, D, generator=generator) + torch.randn(D, generator=generator)


def autoencoder(variant, **options):
    """A network fitted to the data's mean and scale, moved off its symmetric start, and in eval mode."""
    torch.manual_seed(1)
    net = getattr(models, variant)(D, K, **OPTIONS[variant] | options)
    net.initialise(rows(1000))
    with torch.no_grad():
        for name in net.biases:
            getattr(net, name).add_(0.2 * net.scale * torch.randn_like(getattr(net, name)))
        net.W_enc.add_(0.1 * torch.randn_like(net.W_enc))
        net.after_optimizer_step()  # which restores the constraints
    net.loss(rows(512, seed=5))  # which gives a batch's threshold to the variants that have one
    return net.eval()


def descend(net, x, steps, lr=0.05):
    """A few steps of gradient descent under the variant's constraints."""
    optimizer = torch.optim.Adam(net.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss(x).total.backward()
        net.before_optimizer_step()
        optimizer.step()
        net.after_optimizer_step()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_codes_are_nonnegative_sparse_and_decode_to_the_reconstruction(variant, training):
    net, x = autoencoder(variant).train(training), rows()
    codes = net.encode(x)
    assert (codes >= 0).all()
    assert 0.01 < (codes > 0).float().mean() < 0.7
    if variant == "BatchTopKSAE" and training:
        net.load_state_dict(autoencoder(variant).state_dict())
    x_hat, same_codes = net.reconstruct(x)
    torch.testing.assert_close(same_codes, codes)
    torch.testing.assert_close(net.decode(codes), x_hat)
    torch.testing.assert_close(net(x), x_hat)
    torch.testing.assert_close(x_hat, codes @ net.W_dec + net.b_dec)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_examples_come_in_any_shape(variant, shape):
    net = autoencoder(variant)
    x = rows(24)[: torch.Size(shape).numel()].view(*shape, D)
    flat = x.reshape(-1, D)
    assert net.encode(x).shape == (*shape, K)
    for result, expected in zip((net(x), *net.reconstruct(x)), (net(flat), *net.reconstruct(flat)), strict=True):
        assert result.shape[:-1] == shape
        torch.testing.assert_close(result, expected.view_as(result))
    torch.testing.assert_close(net.decode(net.encode(x)), net(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_evaluation_the_codes_of_an_example_do_not_depend_on_its_batch(variant):
    net, x = autoencoder(variant), rows()
    alone = torch.cat([net.encode(row.unsqueeze(0)) for row in x])
    beside_large_ones = net.encode(torch.cat([x, 100 * x]))[: len(x)]
    torch.testing.assert_close(net.encode(x), alone)
    torch.testing.assert_close(beside_large_ones, alone)


@pytest.mark.parametrize("k", [1, 3, 17, K])
def test_top_k_keeps_the_k_largest_codes_of_every_example(k):
    net, x = autoencoder("TopKSAE", k=k), rows()
    codes = net.encode(x)
    pre = ((x - net.b_dec) @ net.W_enc + net.b_enc).relu()
    assert (codes > 0).sum(1).max() <= k
    torch.testing.assert_close(codes.sort(1).values[:, -k:], pre.topk(k).values.flip(1))
    torch.testing.assert_close(codes[codes > 0], pre[codes > 0])


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("variant", ["BatchTopKSAE", "MatryoshkaSAE"])
def test_batch_top_k_keeps_k_codes_per_example_on_average_in_training(variant, k):
    net, x = autoencoder(variant, k=k).train(), rows()
    codes = net.encode(x)
    assert (codes > 0).sum() == k * len(x)
    pre = ((x - net.b_dec) @ net.W_enc + net.b_enc).detach()
    torch.testing.assert_close(codes[codes > 0].sort().values, pre.flatten().sort().values[-k * len(x) :])


def test_the_threshold_of_inference_is_the_running_mean_of_the_batches_least_codes():
    net = autoencoder("BatchTopKSAE", threshold_decay=0.75).train()
    net.threshold.fill_(-1)  # none yet
    least = [codes[codes > 0].min().item() for codes in map(net.encode, rows(96).chunk(3))]
    mean = 0.75 * (0.75 * least[0] + 0.25 * least[1]) + 0.25 * least[2]
    assert net.threshold.item() == pytest.approx(mean)
    codes, x = net.eval().encode(rows()), rows()
    pre = (x - net.b_dec) @ net.W_enc + net.b_enc
    torch.testing.assert_close(codes, pre * (pre >= mean))


def test_batch_top_k_without_a_threshold_yet_lets_every_positive_code_pass():
    net, x = BatchTopKSAE(D, K, k=3).eval(), rows()
    torch.testing.assert_close(net.encode(x), (x @ net.W_enc).relu())


@pytest.mark.parametrize("k", [3, 30])  # sparse and dense products
def test_matryoshka_minimises_the_mean_error_of_its_nested_dictionaries(k):
    net, x = autoencoder("MatryoshkaSAE", k=k).train(), rows()
    codes = net.encode(x)
    errors = [(x - codes[:, :n] @ net.W_dec[:n] - net.b_dec).square().mean() / net.scale**2 for n in (4, 9, K)]
    net = autoencoder("MatryoshkaSAE", k=k).train()
    torch.testing.assert_close(net.loss(x).total, sum(errors) / 3)


@pytest.mark.parametrize(("d_sae", "prefixes"), [(64, [4, 8, 16, 32]), (8, [1, 2, 4]), (3, [1]), (1, [])])
def test_matryoshka_nests_in_halves_unless_told_otherwise(d_sae, prefixes):
    assert MatryoshkaSAE(4, d_sae, k=1).prefixes == prefixes


def test_jump_relu_thresholds_get_the_pseudo_gradients_of_the_paper():
    # arXiv 2407.14435, equations 11 and 12: d JumpReLU(z) / d theta = -theta/epsilon rect((z - theta) / epsilon) and
    # d Step(z - theta) / d theta = -1/epsilon rect((z - theta) / epsilon), with rect = 1 within 1/2 of 0.
    net = JumpReLUSAE(1, 1, l0_coefficient=1.0, initial_threshold=0.5, bandwidth=0.2).train()
    with torch.no_grad():
        for p in (net.W_enc, net.W_dec):
            p.fill_(1)
    z = torch.tensor([[0.45], [0.55], [0.7], [0.2]])  # below, above, far above, far below the threshold
    error = net.loss(z, sparsity=0.0)
    (from_error,) = torch.autograd.grad(error.total, net.threshold)
    # Of the two in the window, the one below is reconstructed as 0: d error / d code = -2 * 0.45 / 4.
    assert error.total.item() == pytest.approx((0.45**2 + 0.2**2) / 4)
    assert from_error.item() == pytest.approx(-2 * 0.45 / 4 * (-0.5 / 0.2))
    penalty = net.loss(z, sparsity=1.0).terms["l0"]
    (from_penalty,) = torch.autograd.grad(penalty, net.threshold)
    assert penalty.item() == pytest.approx(2 / 4)
    assert from_penalty.item() == pytest.approx(2 * (-1 / 0.2) / 4)


def test_jump_relu_thresholds_stay_nonnegative():
    net = autoencoder("JumpReLUSAE", l0_coefficient=0.0, initial_threshold=0.02).train()
    descend(net, rows(), 20)
    assert (net.threshold == 0).any()
    assert (net.threshold >= 0).all()
    assert (net.encode(rows()) >= 0).all()


def test_a_gated_autoencoder_with_equal_paths_is_a_relu_autoencoder():
    gated, relu = autoencoder("GatedSAE"), autoencoder("ReLUSAE")
    state = {name: getattr(gated, name) for name in ("W_enc", "W_dec", "b_dec", "scale")} | {"b_enc": gated.b_gate}
    relu.load_state_dict(state)
    with torch.no_grad():
        gated.b_mag.copy_(gated.b_gate)
    torch.testing.assert_close(gated.encode(rows()), relu.encode(rows()))


def test_the_l1_penalty_does_not_see_an_atom_grow_as_its_code_shrinks():
    net, x = autoencoder("ReLUSAE"), rows()
    before, x_hat = net.loss(x), net(x)
    factor = torch.linspace(0.1, 10, K)
    with torch.no_grad():
        net.W_enc /= factor
        net.b_enc /= factor
        net.W_dec *= factor.unsqueeze(1)
    torch.testing.assert_close(net(x), x_hat)
    torch.testing.assert_close(net.loss(x).terms, before.terms)
    assert before.terms["l1"] > 0


@pytest.mark.parametrize("variant", UNIT_NORM)
def test_atoms_keep_unit_length_through_training(variant):
    net = autoencoder(variant).train()
    before = net.W_dec.detach().clone()
    descend(net, rows(), 10)
    assert ((net.W_dec - before).norm(dim=1) > 0.1).float().mean() > 0.7
    torch.testing.assert_close(net.W_dec.norm(dim=1), torch.ones(K))


@pytest.mark.parametrize("variant", UNIT_NORM)
def test_the_gradient_of_an_atom_is_orthogonal_to_it(variant):
    net = autoencoder(variant).train()
    net.loss(rows()).total.backward()
    net.before_optimizer_step()
    along = (net.W_dec.grad * net.W_dec).sum(1)
    assert along.abs().max() < 1e-5 * net.W_dec.grad.norm(dim=1).max()
    assert net.W_dec.grad.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_config_and_the_tensors_rebuild_the_network(variant):
    net = autoencoder(variant, aux_k=2, aux_coefficient=0.5)
    config = json.loads(json.dumps(net.config))
    again = type(net)(**config)
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(rows()), net(rows()))
    assert torch.equal(again.train().loss(rows()).total, net.train().loss(rows()).total)


@pytest.mark.parametrize("variant", VARIANTS)
def test_initialising_takes_mean_and_spread_from_the_data(variant):
    net, x = getattr(models, variant)(D, K, **OPTIONS[variant]), rows(500)
    net.initialise(x)
    torch.testing.assert_close(net.b_dec.detach(), x.mean(0))
    assert net.scale.item() == pytest.approx(x.var(0, correction=0).mean().sqrt().item())
    nothing = net.eval().squared_error(x, net.b_dec.expand_as(x))
    assert nothing.item() == pytest.approx(1)  # errors are shares of the variance


@pytest.mark.parametrize("variant", VARIANTS)
def test_shifted_data_have_the_same_codes_and_the_shifted_reconstruction(variant):
    net, shifted, x = autoencoder(variant), autoencoder(variant), rows()
    with torch.no_grad():
        shifted.b_dec += 5
    torch.testing.assert_close(shifted.encode(x + 5), net.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shifted(x + 5), net(x) + 5, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_without_any_spread_have_a_finite_loss(variant):
    net, x = getattr(models, variant)(D, K, **OPTIONS[variant]), torch.zeros(8, D)
    net.initialise(x)
    loss = net.loss(x).total
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        (TopKSAE, {"k": 0}, "k is 0; it must be a whole number, at least 1 and at most d_sae, which is 40"),
        (TopKSAE, {"k": 41}, "k is 41"),
        (TopKSAE, {"d_in": 0}, "d_in is 0"),
        (BatchTopKSAE, {"d_sae": -1}, "d_sae is -1"),
        (BatchTopKSAE, {"k": 3, "threshold_decay": 1.0}, "threshold_decay is 1.0"),
        (MatryoshkaSAE, {"k": 3, "prefixes": [4, 4]}, "prefixes is .*must ascend from at least 1 to at most 39"),
        (MatryoshkaSAE, {"k": 3, "prefixes": [8, 40]}, "prefixes is"),
        (MatryoshkaSAE, {"k": 3, "prefixes": [0, 8]}, "prefixes is"),
        (ReLUSAE, {"l1_coefficient": -1.0}, "l1_coefficient is -1.0"),
        (ReLUSAE, {"aux_k": 0}, "aux_k is 0"),
        (ReLUSAE, {"aux_coefficient": -0.1}, "aux_coefficient is -0.1"),
        (GatedSAE, {"l1_coefficient": -1.0}, "l1_coefficient is -1.0"),
        (JumpReLUSAE, {"l0_coefficient": -1.0}, "l0_coefficient is -1.0"),
        (JumpReLUSAE, {"initial_threshold": -1.0}, "initial_threshold is -1.0"),
        (JumpReLUSAE, {"bandwidth": 0.0}, "bandwidth is 0.0"),
        (JumpReLUSAE, {"threshold_rate": -1.0}, "threshold_rate is -1.0"),
    ],
)
def test_sizes_and_coefficients_out_of_range_are_refused(variant, options, message, refused):
    with refused(message):
        variant(**{"d_in": D, "d_sae": K} | options)


@pytest.mark.parametrize("call", ["forward", "encode", "reconstruct"])
def test_data_of_another_width_are_refused(refused, call):
    with refused("the data have 32 dimensions, but d_in of the autoencoder is 16"):
        getattr(models.TopKSAE(16, 24, k=4), call)(torch.randn(10, 32))
