import math
from collections import Counter

import lightning as L
import pytest
import torch

import zoo
from zoo.callbacks import EmbeddingDrift, ReconstructionError
from zoo.datamodules import SkipBigramDataModule
from zoo.models import AdamLinear, SkipBigramAttention, SkipBigramHead


def data(**options):
    sizes = {"n_groups": 2, "group_size": 6, "n_pairs": 8, "context_length": 6, "n_seeds": 2, "batch_size": 32}
    return SkipBigramDataModule(**{**sizes, "n_validation": 200, **options})


def module(made, d_model=8, d_head=6, seed=0, **options):
    L.seed_everything(seed, verbose=False)
    return SkipBigramAttention(made.n_features, d_model, d_head, made.n_seeds, AdamLinear(**options))


def validated(trainer, m, made):
    return trainer.validate(m, made, verbose=False)[0]


def test_the_score_is_the_product_of_the_sums_of_features_as_seen_by_query_and_key():
    head = SkipBigramHead(12, 8, 3, n_seeds=2)
    contexts = torch.randint(12, (2, 5, 7, 4))
    embedded = torch.stack([head.W_E[s][contexts[s]].sum(2) for s in range(2)])  # (S, B, T + 1, D)
    queries = torch.einsum("sbd,sdh->sbh", embedded[:, :, -1], head.W_Q)
    keys = torch.einsum("sbtd,sdh->sbth", embedded[:, :, :-1], head.W_K)
    scores = torch.einsum("sbh,sbth->sbt", queries, keys)
    torch.testing.assert_close(head.scores(contexts), scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head(contexts), scores.softmax(2), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_plain_computation():
    head = SkipBigramHead(6, 4, 3).double()
    contexts = torch.randint(6, (1, 3, 5, 2))
    parameters = dict(head.named_parameters())

    def plain(W_E, W_Q, W_K):
        x = W_E[0][contexts[0]].sum(2)
        return torch.einsum("bh,bth->bt", x[:, -1] @ W_Q[0], x[:, :-1] @ W_K[0]).softmax(1).square().sum()

    expected = torch.autograd.grad(plain(*parameters.values()), list(parameters.values()))
    found = torch.autograd.grad(head(contexts).square().sum(), list(parameters.values()))
    assert list(parameters) == ["W_E", "W_Q", "W_K"]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_one_seeds_contexts_move_no_other_seeds_head():
    head = SkipBigramHead(6, 4, 3, n_seeds=3)
    head(torch.randint(6, (3, 4, 5, 2)))[1].square().sum().backward()
    for p in head.parameters():
        assert p.grad[1].any()
        assert not p.grad[[0, 2]].any()


def test_features_move_only_in_directions_that_the_head_reads():
    head = SkipBigramHead(12, 20, 3).double()
    head(torch.randint(12, (1, 50, 6, 2))).square().sum().backward()
    read = torch.cat((head.W_Q[0], head.W_K[0]), 1).detach()
    gradient = head.W_E.grad[0].T
    torch.testing.assert_close(read @ torch.linalg.lstsq(read, gradient).solution, gradient)


def test_the_loss_of_ideal_attention_is_the_logarithm_of_the_number_of_partners():
    made = data()
    batch = made.train_dataloader().batch(0)
    m, ideal = module(made), batch["ideal"].unflatten(0, (2, -1))
    partners = (ideal > 0).sum(2).double()
    torch.testing.assert_close(m.losses(batch, ideal).double(), partners.log().mean(1), rtol=1e-5, atol=1e-6)
    uniform = torch.full_like(ideal, 1 / 6)
    torch.testing.assert_close(m.losses(batch, uniform), torch.full((2,), math.log(6)))
    assert (m.losses(batch, 1 - (ideal > 0).float()) > 50).all()


def test_training_beats_the_construction_of_the_same_size(make_trainer):
    made = data(group_size=12, n_pairs=24, context_length=12, batch_size=128, n_validation=1000)
    m = module(made, 12, 6, decay_fraction=0.5)
    make_trainer(max_steps=400).fit(m, made)
    learned = validated(make_trainer(limit_val_batches=1.0), m, made)
    accuracies = m.seed_accuracies
    m.net = SkipBigramHead.constructed(24, 12, 6, made.pairs, beta=2)
    constructed = validated(make_trainer(limit_val_batches=1.0), m, made)
    assert accuracies.shape == (2,)
    assert accuracies.mean().item() == pytest.approx(learned["val/accuracy"], abs=1e-6)
    assert learned["val/accuracy"] > 0.9 > constructed["val/accuracy"] + 0.2
    assert learned["val/mass"] > constructed["val/mass"] + 0.2
    assert learned["val/loss"] < constructed["val/loss"]


def test_accuracy_and_mass_are_means_over_all_contexts_however_batched(make_trainer):
    found = []
    for batch_size in (200, 64):
        made = data(batch_size=batch_size, n_validation=200)
        m = module(made)
        batches = list(made.val_dataloader())
        x, ideal = (torch.cat([b[key].unflatten(0, (2, -1)) for b in batches], 1) for key in ("x", "ideal"))
        pattern = m.net(x).detach()
        right = (ideal > 0).gather(2, pattern.argmax(2, keepdim=True)).double().mean().item()
        mass = pattern.where(ideal > 0, 0.0).sum(2).mean().item()
        found.append(validated(make_trainer(limit_val_batches=1.0), m, made))
        assert found[-1]["val/accuracy"] == pytest.approx(right, abs=1e-6)
        assert found[-1]["val/mass"] == pytest.approx(mass, abs=1e-5)


@pytest.mark.parametrize("n_validation", [200, 33])  # 33: of the last context, the second rank gets none
def test_two_processes_train_and_judge_as_one(make_trainer, n_validation):
    made = data(n_validation=n_validation)
    metrics, weights = [], []
    for devices in (1, 2):
        m = module(made)
        trainer = make_trainer(devices=devices, max_steps=5, limit_val_batches=1.0, val_check_interval=5)
        trainer.fit(m, made)
        metrics.append({name: value.item() for name, value in trainer.callback_metrics.items() if "val" in name})
        weights.append({name: p.detach().clone() for name, p in m.net.named_parameters()})
    assert {"val/accuracy", "val/mass", "val/loss"} <= metrics[0].keys()
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4)
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-4)


def test_callbacks_follow_the_features_and_the_attention_of_every_seed(make_trainer, tmp_path):
    made = data()
    m = module(made)
    callbacks = [EmbeddingDrift(2), ReconstructionError()]
    trainer = make_trainer(limit_val_batches=1.0, val_check_interval=4, callbacks=callbacks)
    trainer.fit(m, made)
    assert callbacks[0].latest["W_E"]["relative_distance"].shape == (2 * 12,)
    batches = list(made.val_dataloader())
    x, ideal = (torch.cat([b[key].unflatten(0, (2, -1)) for b in batches], 1).flatten(0, 1) for key in ("x", "ideal"))
    pattern, scores = m.reconstruct(x)
    torch.testing.assert_close(pattern, scores.softmax(1))
    error = (pattern - ideal).square().unflatten(0, (2, -1)).sum((1, 2)) / ideal.square().unflatten(0, (2, -1)).sum(
        (1, 2)
    )
    torch.testing.assert_close(callbacks[1].latest["relative_error"].float(), error.detach(), rtol=1e-4, atol=1e-5)
    rows = (tmp_path / "run" / "reconstruction_error" / "rows.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + 2


def test_a_checkpoint_rebuilds_the_head(make_trainer, tmp_path):
    made = data()
    m = module(made)
    trainer = make_trainer()
    trainer.fit(m, made)
    trainer.save_checkpoint(tmp_path / "head.ckpt")
    loaded = zoo.load(tmp_path / "head.ckpt")
    assert loaded.config == {"n_features": 12, "d_model": 8, "d_head": 6, "n_seeds": 2}
    x = made.train_dataloader().batch(9)["x"].unflatten(0, (2, -1))
    assert torch.equal(loaded(x), m.net(x))


def test_data_of_other_features_or_seeds_are_refused(make_trainer, refused):
    for other, message in (({"group_size": 7}, "n_features is 12, .* have 14"), ({"n_seeds": 3}, "n_seeds is 2, .* 3")):
        with refused(f"model.{message}"):
            make_trainer().fit(module(data()), data(**other))


@pytest.mark.parametrize("size", ["n_features", "d_model", "d_head", "n_seeds"])
def test_sizes_below_one_are_refused(size, refused):
    sizes = {"n_features": 4, "d_model": 3, "d_head": 2, "n_seeds": 1}
    assert SkipBigramHead(**sizes).config == sizes
    with refused(f"{size} is 0; it must be at least 1"):
        SkipBigramHead(**{**sizes, size: 0})


def test_constructed_heads_have_unit_features_and_seeds_of_their_own():
    pairs = torch.tensor([[[0, 1]], [[2, 3]]])
    head = SkipBigramHead.constructed(4, 300, 200, pairs)
    torch.testing.assert_close(head.W_E.norm(dim=2), torch.ones(2, 4))
    highest = [divmod(int(table.argmax()), 4) for table in head.feature_scores()]
    assert Counter(highest) == Counter([(0, 1), (2, 3)])
    doubled = SkipBigramHead.constructed(4, 300, 200, pairs, beta=2)
    torch.testing.assert_close(doubled.feature_scores(), 2 * head.feature_scores())
