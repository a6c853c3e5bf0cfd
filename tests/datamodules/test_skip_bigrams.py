from itertools import islice

import pytest
import torch

from zoo.datamodules import SkipBigramDataModule

SMALL = {"n_groups": 3, "group_size": 5, "n_pairs": 12, "context_length": 7, "n_seeds": 2, "batch_size": 24}


def data(**options):
    return SkipBigramDataModule(**{**SMALL, "n_validation": 50, **options})


def batch(made, step=0):
    return made.train_dataloader().batch(step)


def test_every_position_holds_one_feature_of_each_group():
    x = batch(data())["x"]
    assert x.shape == (2 * 24, 8, 3)
    assert torch.equal(x // 5, torch.arange(3).expand_as(x))


def test_ideal_attention_is_uniform_over_the_positions_that_hold_a_partner():
    made = data()
    found = batch(made)
    for x, ideal, seed in zip(found["x"].tolist(), found["ideal"], found["row"].tolist(), strict=True):
        pairs = {tuple(pair) for pair in made.pairs[seed].tolist()}
        matching = [any((i, j) in pairs for i in x[-1] for j in position) for position in x[:-1]]
        assert sum(matching) > 0
        expected = torch.tensor(matching).float() / sum(matching)
        torch.testing.assert_close(ideal, expected)


def test_every_pair_is_asked_for_and_the_position_of_its_partner_is_uniform():
    made = data(group_size=50, n_pairs=6, batch_size=4000, n_seeds=1)
    found = batch(made)
    asked = (found["x"][:, -1, :, None] == made.pairs[0, :, 0]).any(1).sum(0)  # of each pair
    assert (asked > 400).all()
    share = found["ideal"].mean(0)
    torch.testing.assert_close(share, torch.full((7,), 1 / 7), atol=0.02, rtol=0)


def test_seeds_have_pairs_of_their_own_and_no_pair_twice():
    made = data(n_pairs=225)  # all there are
    for pairs in made.pairs:
        assert len({tuple(pair) for pair in pairs.tolist()}) == 225
    assert not torch.equal(*data().pairs)
    assert data().pairs.shape == (2, 12, 2)


def test_a_batch_depends_on_seed_and_step_alone():
    used = data().train_dataloader()
    for step in (9, 0, 4):
        used.batch(step)
    assert all(torch.equal(used.batch(3)[key], batch(data(), 3)[key]) for key in ("x", "ideal", "row"))
    assert not torch.equal(batch(data(seed=1))["x"], batch(data())["x"])
    assert not torch.equal(batch(data(), 1)["x"], batch(data())["x"])


def test_a_resumed_loader_goes_on_with_the_same_batches():
    used, resumed = data().train_dataloader(), data().train_dataloader()
    list(islice(used, 5))
    resumed.load_state_dict(used.state_dict())
    assert torch.equal(next(iter(resumed))["x"], batch(data(), 5)["x"])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_out_the_contexts_of_every_seed(world_size, monkeypatch):
    made, ranks = data(), []
    for rank in range(world_size):
        monkeypatch.setattr(SkipBigramDataModule, "_ranks", lambda self, rank=rank: (rank, world_size))
        ranks.append((batch(made, 3), list(made.val_dataloader())))
    monkeypatch.undo()
    whole = {key: rows.unflatten(0, (2, -1)) for key, rows in batch(made, 3).items()}
    for key, rows in whole.items():
        assert torch.equal(torch.cat([part[key].unflatten(0, (2, -1)) for part, _ in ranks], 1), rows)
    judged = sum(len(b["row"]) for _, batches in ranks for b in batches)
    assert judged == 2 * 50


def test_validation_is_held_out_always_the_same_and_other_than_the_test():
    made = data()
    first, again, test = (
        torch.cat([b["x"] for b in loader])
        for loader in (made.val_dataloader(), made.val_dataloader(), made.test_dataloader())
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, test)
    assert all(b["held_out"].all() for b in made.val_dataloader())


def test_what_names_the_contexts_changes_the_fingerprint_and_what_judges_them_does_not():
    others = ({"seed": 1}, {"n_pairs": 13}, {"n_groups": 4}, {"group_size": 6}, {"context_length": 8}, {"n_seeds": 3})
    prints = [data(**o).corpus_fingerprint for o in ({}, *others)]
    assert len(set(prints)) == len(prints)
    assert data(n_validation=7).corpus_fingerprint == prints[0]


def test_the_model_can_follow_the_numbers_of_features_and_seeds():
    made = data()
    assert (made.n_features, made.n_seeds, made.row_counts) == (15, 2, None)
    assert made.row_labels == ["seed 0", "seed 1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_groups": 0}, "data.n_groups is 0; it must be at least 1"),
        ({"context_length": 0}, "data.context_length is 0; it must be at least 1"),
        ({"n_seeds": 0}, "data.n_seeds is 0; it must be at least 1"),
        ({"n_pairs": 226}, "data.n_pairs is 226; 3 groups of 5 features have at most 225 different pairs"),
        ({"seed": -1}, "data.seed is -1; it must not be negative"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message, refused):
    with refused(message):
        data(**options)
