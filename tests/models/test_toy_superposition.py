import pytest
import torch

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, ToySuperposition
from zoo.quiet_fit import fit

FAST = AdamLinear(0.02, 0, 0.5)


def sampled(n=4, active=None, values="uniform", n_seeds=3, batch_size=64, **options):
    active = BernoulliActive(1.0) if active is None else active
    return SparseFeaturesDataModule(n, active, values, n_seeds=n_seeds, batch_size=batch_size, **options)


def module(n=4, m=2, n_seeds=3, optimizer=FAST, seed=0, **options):
    torch.manual_seed(seed)
    return ToySuperposition(n, m, n_seeds, optimizer=optimizer, **options)


def start_from(one, other, seed):
    """Give a module of one network the weights that a seed of another has."""
    with torch.no_grad():
        for mine, theirs in zip(one.net.parameters(), other.net.parameters(), strict=True):
            mine.copy_(theirs[seed : seed + 1])


class OneOf(SparseFeaturesDataModule):
    """The vectors that one seed of a datamodule gets, alone."""

    def __init__(self, whole, seed):
        super().__init__(whole.n_features, whole.active, whole.values, batch_size=whole.batch_size)
        self.whole, self.chosen = whole, seed

    def vectors(self, *args):
        batch = self.whole.vectors(*args)
        return {name: values[batch["row"] == self.chosen] for name, values in batch.items()}


def test_two_features_share_a_dimension_when_they_are_sparse_and_one_gives_way_when_they_are_dense():
    densities, tries = [0.03, 0.95], 8
    p = [density for density in densities for _ in range(tries)]
    data = sampled(2, BernoulliActive([2 * density for density in p]), n_seeds=len(p), batch_size=256)
    m = module(2, 1, len(p), importance=0.5)
    fit(m, data, 800)
    x = {
        density: sampled(2, BernoulliActive(2 * density), n_seeds=1).vectors((9,), 0, 20_000, 20_000)["x"]
        for density in densities
    }
    best = {}
    for k, density in enumerate(densities):
        part = slice(k * tries, (k + 1) * tries)
        with torch.no_grad():
            losses = ((m.net(x[density])[part] - x[density]).square() * m.importance).sum(2).mean(1)
        best[density] = m.net.W_in[part][losses.argmin(), :, 0].detach()
    sparse, dense = best[0.03], best[0.95]
    assert sparse.abs().tolist() == pytest.approx([1, 1], abs=0.05)
    assert sparse.prod() < 0
    assert dense.abs().tolist() == pytest.approx([1, 0], abs=0.05)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("task", ["identity", "absolute"])
def test_a_seed_trains_side_by_side_as_it_would_alone(make_trainer, task, clip):
    data = sampled(values="signed" if task == "absolute" else "uniform")
    importance = [1.0, 0.5, 2.0]
    before, together = (module(task=task, importance=importance) for _ in range(2))
    trainer = make_trainer(max_steps=20, gradient_clip_val=clip)
    trainer.fit(together, data)
    for seed in range(3):
        alone = module(n_seeds=1, task=task, importance=importance[seed], seed=9)
        start_from(alone, before, seed)
        make_trainer(max_steps=20, gradient_clip_val=clip).fit(alone, OneOf(data, seed))
        assert not torch.allclose(alone.net.W_in[0], before.net.W_in[seed], atol=0.01)
        for one, all_ in zip(alone.net.parameters(), together.net.parameters(), strict=True):
            torch.testing.assert_close(one[0], all_[seed], atol=1e-5, rtol=1e-4)


def test_the_gradient_of_every_seed_is_clipped_by_its_own_norm(make_trainer):
    m, trainer = module(), make_trainer()
    norms = torch.tensor([0.1, 1.0, 30.0])
    for p in m.net.parameters():
        p.grad = torch.ones_like(p)
    size = torch.stack([p.grad.flatten(1).norm(dim=1) for p in m.net.parameters()]).norm(dim=0)
    for p in m.net.parameters():
        p.grad *= (norms / size).view(-1, *[1] * (p.ndim - 1))
    m.trainer = trainer
    m.configure_gradient_clipping(None, 0.5, "norm")
    clipped = torch.stack([p.grad.flatten(1).norm(dim=1) for p in m.net.parameters()]).norm(dim=0)
    assert clipped.tolist() == pytest.approx([0.1, 0.5, 0.5])


@pytest.mark.parametrize("loss", ["sampled", "one_sparse"])
def test_two_processes_reach_the_result_of_one_at_equal_global_batch(make_trainer, loss):
    results = []
    for devices in (1, 2):
        active = FixedActive(1) if loss == "one_sparse" else None
        data = sampled(active=active, n_validation=129)  # of whose last batch one rank gets nothing
        m = module(loss=loss)
        trainer = make_trainer(devices=devices, max_steps=10, limit_val_batches=1.0, gradient_clip_val=0.1)
        trainer.fit(m, data)
        results.append((m.state_dict(), trainer.validate(m, data, verbose=False)[0]))
    (one, metrics_one), (two, metrics_two) = results
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert metrics_two == pytest.approx(metrics_one, rel=1e-4)


def test_validation_tells_the_loss_of_every_seed(make_trainer):
    data, m = sampled(n_validation=100), module(importance=0.5)
    metrics = make_trainer(limit_val_batches=1.0).validate(m, data, verbose=False)[0]
    x = torch.cat([m.per_seed(batch["x"]) for batch in data.val_dataloader()], 1)
    assert x.shape == (3, 100, 4)
    squared = (m.net(x) - x).square() * 0.5 ** torch.arange(4)
    expected = squared.sum(2).mean(1).double().detach()
    torch.testing.assert_close(m.seed_losses, expected, rtol=1e-5, atol=0)
    assert metrics["val/loss"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert metrics["val/loss_best"] == pytest.approx(expected.min().item(), rel=1e-5)


def test_absolute_values_are_learned_far_better_than_any_linear_map_could():
    # E|x| x = 0, so that a linear map's best guess of |x| is its mean: a share of 1 of the variance is unexplained.
    data = sampled(3, BernoulliActive(0.6), "signed", 8, 256)
    m = module(3, 6, 8, task="absolute")
    fit(m, data, 1000)
    x = sampled(3, BernoulliActive(0.6), "signed", 1).vectors((9,), 0, 20_000, 20_000)["x"]
    with torch.no_grad():
        unexplained = (m.net(x) - x.abs()).square().sum((1, 2)) / (x.abs() - x.abs().mean(0)).square().sum()
    linear = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), x.abs())
    guess = torch.cat([x, torch.ones(len(x), 1)], 1) @ linear.solution
    assert (guess - x.abs()).square().sum() / (x.abs() - x.abs().mean(0)).square().sum() > 0.99
    assert unexplained.min() < 0.01
    assert unexplained.max() < 0.9


@pytest.mark.parametrize(
    ("options", "data_options", "message"),
    [
        ({"task": "absolute"}, {}, "task absolute requires values of both signs: data.values is uniform, not signed"),
        ({}, {"values": "signed"}, "task identity ends in a ReLU and cannot give negative values"),
        ({}, {"d_superposed": 3}, "omit data.d_superposed"),
        ({"loss": "one_sparse"}, {}, "requires data.values uniform and data.active FixedActive with n_active 1"),
        ({"loss": "one_sparse"}, {"active": FixedActive(2)}, "FixedActive with n_active 1"),
        ({"loss": "one_sparse"}, {"active": FixedActive(1, n_groups=2)}, "FixedActive with n_active 1"),
        ({"loss": "one_sparse"}, {"active": FixedActive(1), "values": "one"}, "requires data.values uniform"),
    ],
)
def test_data_that_the_task_or_the_loss_is_not_about_are_refused_in_one_line(
    make_trainer, refused, options, data_options, message
):
    with refused(message):
        make_trainer().fit(module(**options), sampled(**data_options))


def test_the_exact_loss_is_refused_for_absolute_values(refused):
    with refused("loss one_sparse is defined only for task identity; use sampled"):
        module(task="absolute", loss="one_sparse")


@pytest.mark.parametrize("importance", [0.0, -1.0, float("nan"), [1.0, 2.0], [1.0, 1.0, -1.0]])
def test_importances_that_are_not_positive_or_not_one_per_seed_are_refused_in_one_line(refused, importance):
    with refused("it must be positive: one number, or one for each of 3 seeds"):
        module(importance=importance)


def test_no_network_is_refused_in_one_line(refused):
    with refused("n_seeds is 0; it must be at least 1"):
        module(n_seeds=0)
