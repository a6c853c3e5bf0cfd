from itertools import islice

import pytest
import torch

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.datamodules.sparse_features import TEST_STREAM, VALIDATION_STREAM, FeatureEvaluationLoader, FeatureLoader


def sampled(**options):
    defaults = {"n_features": 6, "values": "uniform", "n_seeds": 3, "batch_size": 8, "n_validation": 20}
    return SparseFeaturesDataModule(**defaults | options)


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_is_a_function_of_seed_step_and_rank():
    loader = FeatureLoader(sampled(), 1, 2)
    batches = [loader.batch(step) for step in range(4)]
    again = FeatureLoader(sampled(), 1, 2)
    assert all(equal(again.batch(step), batches[step]) for step in (3, 0, 2, 1))
    assert len({batch["x"].sum().item() for batch in batches}) == 4
    assert not equal(FeatureLoader(sampled(seed=1), 1, 2).batch(0), batches[0])
    assert not equal(FeatureLoader(sampled(), 0, 2).batch(0), batches[0])


@pytest.mark.parametrize("options", [{}, {"d_superposed": 4}, {"active": BernoulliActive([1.0, 2.0, 3.0])}])
def test_the_parts_of_all_ranks_make_up_the_global_batch(options):
    data = sampled(**options)
    whole = FeatureLoader(data, 0, 1).batch(5)
    parts = [FeatureLoader(data, rank, 4).batch(5) for rank in range(4)]
    for name in ("x", "f", "row"):
        by_seed = [part[name].unflatten(0, (3, 2)) for part in parts]
        torch.testing.assert_close(torch.cat(by_seed, 1).flatten(0, 1), whole[name])


def test_a_resumed_loader_goes_on_where_it_stopped():
    loader = sampled().train_dataloader()
    batches = list(islice(iter(loader), 5))
    assert all(equal(batch, FeatureLoader(sampled(), 0, 1).batch(step)) for step, batch in enumerate(batches))


def test_vectors_to_judge_by_are_always_the_same_and_are_no_training_vectors():
    data = sampled()
    val, again, test = (
        list(loader) for loader in (data.val_dataloader(), data.val_dataloader(), data.test_dataloader())
    )
    assert all(equal(one, other) for one, other in zip(val, again, strict=True))
    trained = torch.cat([FeatureLoader(data, 0, 1).batch(step)["x"] for step in range(50)])
    parts = [trained, *(torch.cat([batch["x"] for batch in batches]) for batches in (val, test))]
    parts = [part[part.any(1)] for part in parts]
    everything = torch.cat(parts)
    assert len(everything.unique(dim=0)) == len(everything)
    assert all(batch["held_out"].all() for batch in val)


@pytest.mark.parametrize("stream", [VALIDATION_STREAM, TEST_STREAM])
def test_ranks_share_all_vectors_to_judge_by_and_the_last_may_get_none(stream):
    data = sampled(n_validation=17)
    whole = list(FeatureEvaluationLoader(data, stream, 0, 1))
    assert [len(batch["row"]) for batch in whole] == [24, 24, 3]
    parts = [list(FeatureEvaluationLoader(data, stream, rank, 2)) for rank in range(2)]
    assert [len(batch["row"]) for batch in parts[1]] == [12, 12, 0]
    for batch, *shares in zip(whole, *parts, strict=True):
        x = torch.cat([share["x"].unflatten(0, (3, len(share["row"]) // 3)) for share in shares], 1)
        torch.testing.assert_close(x.flatten(0, 1), batch["x"])


def test_every_seed_has_vectors_of_its_own_which_stand_together():
    batch = FeatureLoader(sampled(active=BernoulliActive(6.0)), 0, 1).batch(0)
    assert batch["row"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert len(batch["x"].unique(dim=0)) == 24


def test_so_many_features_are_on_as_was_asked_for():
    fixed = sampled(active=FixedActive(2), batch_size=1000).train_dataloader().batch(0)["f"]
    assert ((fixed != 0).sum(1) == 2).all()
    single = sampled(active=BernoulliActive(1.5), batch_size=4000).train_dataloader().batch(0)["f"]
    assert (single != 0).float().mean(0).tolist() == pytest.approx([0.25] * 6, abs=0.02)
    numbers = [0.0, 1.5, 6.0]
    several = sampled(active=BernoulliActive(numbers), batch_size=4000).train_dataloader().batch(0)["f"]
    on = (several != 0).float().sum(1).unflatten(0, (3, -1)).mean(1)
    assert on.tolist() == pytest.approx(numbers, abs=0.1)


@pytest.mark.parametrize(
    ("values", "low", "high", "mean", "variance"),
    [("one", 1, 1, 1, 0), ("uniform", 0, 1, 0.5, 1 / 12), ("signed", -1, 1, 0, 1 / 3)],
)
def test_features_that_are_on_have_the_values_asked_for(values, low, high, mean, variance):
    f = sampled(values=values, active=FixedActive(6), batch_size=4000).train_dataloader().batch(0)["f"]
    assert low <= f.min() <= low + 0.001
    assert high - 0.001 <= f.max() <= high
    assert f.mean().item() == pytest.approx(mean, abs=0.01)
    assert f.var().item() == pytest.approx(variance, abs=0.01)


def test_superposed_features_are_sums_of_unit_directions_of_each_seed():
    data = sampled(d_superposed=4)
    assert data.d_in == 4
    assert data.directions.norm(dim=2).flatten().tolist() == pytest.approx([1] * 18)
    assert not torch.allclose(data.directions[0], data.directions[1])
    for batch in (data.train_dataloader().batch(3), next(iter(data.val_dataloader()))):
        for f, x, row in zip(batch["f"], batch["x"], batch["row"], strict=True):
            torch.testing.assert_close(x, sum(f[i] * data.directions[row, i] for i in range(6)))
    plain = sampled()
    batch = plain.train_dataloader().batch(0)
    assert plain.d_in == 6
    assert torch.equal(batch["x"], batch["f"])


def test_what_names_the_training_vectors_names_the_corpus():
    variants = [{}, {"seed": 1}, {"n_features": 7}, {"values": "one"}, {"d_superposed": 3}, {"n_seeds": 2}]
    variants += [{"batch_size": 16}, {"active": FixedActive(3)}, {"active": BernoulliActive(2.0)}]
    fingerprints = {sampled(**options).corpus_fingerprint for options in variants}
    assert len(fingerprints) == len(variants)
    assert sampled(n_validation=99).corpus_fingerprint == sampled().corpus_fingerprint


@pytest.mark.parametrize("name", ["n_features", "n_seeds", "batch_size", "n_validation", "d_superposed"])
def test_a_size_that_is_not_positive_is_refused_in_one_line(name, refused):
    with refused(f"data.{name} is 0; it must be at least 1"):
        sampled(**{name: 0})


def test_a_negative_seed_or_too_many_active_features_are_refused_in_one_line(refused):
    with refused("data.seed is -1; it must not be negative"):
        sampled(seed=-1)
    with refused("n_active is 7; it must be at most the number of features in a group, 6"):
        sampled(active=FixedActive(7))
    with refused("n_active has 2 numbers; it must have one per seed, 3"):
        sampled(active=BernoulliActive([1.0, 2.0]))
