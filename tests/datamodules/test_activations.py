from itertools import islice

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.datamodules import ActivationsDataModule, LocalFiles, TrainedBPE
from zoo.datamodules.activation_loaders import ActivationEvaluationLoader, EvaluationContexts, SiteReader
from zoo.datamodules.text import EvaluationLoader
from zoo.models import GPT2, TopKSAE

CPU = torch.device("cpu")
SIZES = {"vocab_size": 302, "context_length": 20, "d_model": 8, "n_layers": 3, "n_heads": 2}


def network(seed=0, **sizes):
    torch.manual_seed(seed)
    net = GPT2(**{**SIZES, **sizes}).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(std=0.5)
    return net


@pytest.fixture
def model(tiny_data, tmp_path):
    """A checkpoint whose tokenizer has two tokens less than its embedding has rows."""
    return str(zoo.save(network(), tmp_path / "model", tokenizer_json=tiny_data.tokenizer.to_str()))


@pytest.fixture
def make(model, tiny_corpus, tmp_path):
    """Builds the data: 3 batches of 8 contexts x 5 positions out of every refill."""

    def make(prepared=True, **options):
        defaults = {"model": model, "layer": 2, "corpus": LocalFiles([str(tiny_corpus)]), "sequence_length": 18}
        defaults |= {"batch_size": 40, "positions_per_context": 5, "skip_positions": 2, "val_contexts": 7}
        defaults |= {"val_fraction": 0.15, "test_fraction": 0.15, "cache_dir": str(tmp_path / "cache")}
        data = ActivationsDataModule(**defaults | options)
        if prepared:
            data.prepare_data()
            data.setup()
        return data

    return make


class Rank:
    """What a datamodule asks of a trainer."""

    def __init__(self, rank, world_size):
        self.global_rank, self.world_size = rank, world_size


def loader(data, rank=0, world_size=1):
    data.trainer = Rank(rank, world_size)
    return data.train_dataloader()


def nearest(x, contexts):
    """For vectors of a batch (C, P, D), the position in their context (C, T, D) that they are equal to, (C, P)."""
    distance = (x.unsqueeze(2) - contexts.unsqueeze(1)).norm(dim=3)
    assert distance.amin(2).max() < 1e-4
    return distance.argmin(2)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_batches_are_the_residual_stream_at_positions_that_come_once(make, layer):
    data = make(layer=layer)
    batches = loader(data)
    for refill in (0, 4):
        ids = batches.contexts.batch(refill)["input_ids"]
        stream = network().residual_stream(ids)[layer]
        steps = range(refill * 3, refill * 3 + 3)
        positions = torch.cat([nearest(batches.batch(s)["x"].view(8, 5, 8), stream) for s in steps], 1)
        assert positions.min() >= 2
        assert all(len(set(row)) == 15 for row in positions.tolist())
        assert len({tuple(row) for row in positions.tolist()}) == 8  # every context has an order of its own


def test_every_position_but_the_first_ones_is_used(make):
    batches = loader(make())
    seen = set()
    for refill in range(20):
        stream = network().residual_stream(batches.contexts.batch(refill)["input_ids"])[2]
        seen |= set(nearest(batches.batch(3 * refill)["x"].view(8, 5, 8), stream).flatten().tolist())
    assert seen == set(range(2, 18))


def test_a_batch_depends_on_seed_and_step_alone(make):
    used, fresh = loader(make()), loader(make())
    for step in (100, 0, 7, 1, 3):
        assert torch.equal(used.batch(step)["x"], loader(make()).batch(step)["x"])
    for step in (100, 99, 3):
        assert torch.equal(used.batch(step)["x"], fresh.batch(step)["x"])
    assert not torch.equal(loader(make(seed=1)).batch(0)["x"], fresh.batch(0)["x"])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_out_the_batch_of_one_rank(make, world_size):
    data = make()
    ranks = [loader(data, rank, world_size) for rank in range(world_size)]
    assert {len(r) for r in ranks} == {len(loader(data))}
    for step in (0, 1, 5, 40):
        parts = [r.batch(step)["x"] for r in ranks]
        assert {len(part) for part in parts} == {40 // world_size}
        torch.testing.assert_close(torch.cat(parts), loader(data).batch(step)["x"])


@pytest.mark.parametrize("drawn", [0, 3, 7, 8])
def test_a_loader_resumed_within_a_refill_goes_on_with_the_same_bits(make, drawn):
    def stream(loader):
        while True:
            yield from loader

    used, resumed = loader(make()), loader(make())
    n = 2 * len(used) + drawn
    list(islice(stream(used), n))
    resumed.load_state_dict(used.state_dict())
    for a, b in zip(islice(stream(used), 9), stream(resumed), strict=False):
        assert torch.equal(a["x"], b["x"])


def test_an_epoch_is_every_context_once(make):
    batches = loader(make())
    assert len(batches) == 3 * len(batches.contexts) == len(list(batches))


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("n_contexts", [1, 12, 13, 500])
def test_evaluation_asks_the_first_contexts_for_all_but_their_first_positions(world_size, n_contexts):
    net = network(vocab_size=1000)
    tokens = np.arange(1000, dtype=np.uint16)  # every token is different, so a vector is known by its token
    windows = [EvaluationLoader(tokens, 18, 6, rank, world_size) for rank in range(world_size)]
    ranks = [EvaluationContexts(w, n_contexts, CPU, skip_positions=2) for w in windows]
    loaders = [ActivationEvaluationLoader(contexts, SiteReader(net, ["blocks.2.hook_resid_pre"])) for contexts in ranks]
    batches = [list(each) for each in loaders]
    assert {len(b) for b in batches} == {len(each) for each in loaders} == {min(-(-n_contexts // 6), 10)}
    seen = {key: torch.cat([b[key] for part in batches for b in part]) for key in batches[0][0]}
    starts = np.random.default_rng(0).permutation(56)[:n_contexts] * 18
    wanted = {s + i for s in starts for i in range(2, 18) if s + i < 999}
    assert sorted(seen["row"].tolist()) == sorted(wanted)
    assert seen["held_out"].all()
    assert (seen["weight"] == 1).all()
    assert seen["weight"].dtype == torch.float32
    whole = EvaluationContexts(EvaluationLoader(tokens, 18, 6), n_contexts, CPU)
    stream = {
        int(i): x
        for b in whole
        for ids, xs in zip(b["input_ids"], net.residual_stream(b["input_ids"])[2], strict=True)
        for i, x in zip(ids, xs, strict=True)
        if int(i)
    }
    for row, x in zip(seen["row"].tolist(), seen["x"], strict=True):
        torch.testing.assert_close(x, stream[row])


def test_evaluation_is_of_the_split_asked_for(make):
    data = make()
    for split, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        tokens = data.text.cache.tokens(split).tolist()
        windows = {tuple(tokens[i : i + 18]) for i in range(0, len(tokens), 18)}
        ids = torch.cat([b["input_ids"][(b["targets"] != -100).all(1)] for b in data.evaluation_contexts(split)])
        assert 6 <= len(ids) <= 7  # the last window may be shorter
        assert {tuple(row) for row in ids.tolist()} <= windows
        assert 7 * 16 - 18 <= sum(len(b["x"]) for b in batches) <= 7 * 16


def test_a_sample_is_the_first_global_batch_on_every_rank(make):
    data = make()
    whole = loader(data).batch(0)["x"]
    for rank in range(2):
        data.trainer = Rank(rank, 2)
        assert torch.equal(data.sample(), whole)


def test_rows_are_the_models_tokens(make, tiny_data):
    data = make()
    assert data.d_in == 8
    assert torch.equal(data.W_E, network().W_E)
    assert data.row_labels == [*tiny_data.row_labels, "row 300", "row 301"]
    assert data.row_counts[300:].tolist() == [0, 0]
    assert data.row_counts.sum() == len(data.text.cache.tokens("train"))
    assert data.true_atoms is None
    names = ("vocab_size", "context_length", "tokenizer")
    assert not any(hasattr(data, name) for name in names)


def test_the_fingerprint_follows_weights_layer_and_text(make, tiny_corpus, tiny_data, tmp_path):
    before = make().corpus_fingerprint
    assert make(seed=1, val_contexts=3).corpus_fingerprint == before
    other = str(zoo.save(network(1), tmp_path / "other", tokenizer_json=tiny_data.tokenizer.to_str()))
    for change in ({"model": other}, {"layer": 1}, {"skip_positions": 1}):
        assert make(**change).corpus_fingerprint != before
    (tiny_corpus / "00.txt").write_text("another story\n")
    assert make().corpus_fingerprint != before


def test_stored_activations_are_read_back_bit_by_bit(make, tmp_path):
    store = str(tmp_path / "store")
    written = loader(make(activations_dir=store))
    first = [written.batch(step)["x"] for step in range(6)]
    (folder,) = (tmp_path / "store").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == [f"refill-00000{r}-rank-0-of-1.safetensors" for r in (0, 1)]
    read = loader(make(activations_dir=store))
    read.stream = SiteReader(network(seed=1), ["blocks.2.hook_resid_pre"])  # would give other activations
    for step, x in enumerate(first):
        assert torch.equal(read.batch(step)["x"], x)
        assert torch.equal(loader(make()).batch(step)["x"], x)


def test_ranks_and_data_do_not_share_stored_activations(make, tmp_path):
    store = str(tmp_path / "store")
    data = make(activations_dir=store)
    for rank in range(2):
        loader(data, rank, 2).batch(0)
    (folder,) = (tmp_path / "store").iterdir()
    assert len(list(folder.iterdir())) == 2
    for change in ({"layer": 1}, {"seed": 1}, {"batch_size": 20}):
        loader(make(activations_dir=store, **change)).batch(0)
    assert len(list((tmp_path / "store").iterdir())) == 4


def test_nothing_is_written_unless_a_folder_is_named(make, tmp_path):
    data = make()
    before = sorted(tmp_path.rglob("*"))
    loader(data).batch(0)
    assert sorted(tmp_path.rglob("*")) == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        lambda path: save_file(load_file(path), path),
        lambda path: save_file({"y": torch.zeros(2)}, path),
        lambda path: path.replace(path.with_name("refill-000001-rank-0-of-1.safetensors")),
    ],
    ids=["flipped", "truncated", "empty", "unsigned", "other", "renamed"],
)
def test_stored_activations_that_are_damaged_or_foreign_are_refused(make, tmp_path, refused, damage):
    store = str(tmp_path / "store")
    loader(make(activations_dir=store)).batch(0)
    (path,) = (tmp_path / "store").rglob("*.safetensors")
    damage(path)
    batches = loader(make(activations_dir=store))
    with refused("safetensors is damaged,? or"):
        batches.batch(0)
        batches.batch(3)


class Mean(L.LightningModule):
    """Learns the mean of its batches."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(8))

    def training_step(self, batch, batch_idx):
        return (batch["x"] - self.mean).square().sum(1).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_two_processes_train_as_one(make, make_trainer):
    means = []
    for devices in (1, 2):
        m = Mean()
        make_trainer(max_steps=8, devices=devices, limit_val_batches=1.0).fit(m, make(prepared=False))
        means.append(m.mean.detach().clone())
    torch.testing.assert_close(means[0], means[1])
    assert means[0].any()


def test_a_fit_resumed_within_a_refill_ends_in_the_same_bits(make, make_trainer, tmp_path):
    whole, first, second = Mean(), Mean(), Mean()
    make_trainer(max_steps=11).fit(whole, make())
    trainer = make_trainer(max_steps=7, limit_val_batches=1.0)
    trainer.fit(first, make())
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    make_trainer(max_steps=11).fit(second, make(), ckpt_path=tmp_path / "seven.ckpt")
    assert torch.equal(second.mean, whole.mean)
    assert not torch.equal(first.mean, whole.mean)


def test_a_lightning_checkpoint_is_read_with_its_own_tokenizer(make, tiny_data, tmp_path):
    part = {"class": "GPT2", "init_args": network().config, "tokenizer_json": tiny_data.tokenizer.to_str()}
    state = {f"net.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save({"state_dict": state, "zoo": part}, tmp_path / "last.ckpt")
    data = make(model=str(tmp_path / "last.ckpt"))
    assert torch.equal(loader(data).batch(0)["x"], loader(make()).batch(0)["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 4}, "layer is 4; .* has 3 layers: 0 to 2 means before that layer, 3 means after the last layer"),
        ({"layer": -1}, "layer is -1"),
        ({"sequence_length": 21}, "sequence_length is 21, more than the 20 positions"),
        ({"batch_size": 42}, "42 is not a multiple of positions_per_context 5"),
        ({"skip_positions": 14}, "at most sequence_length - positions_per_context, .* - 5"),
        ({"skip_positions": -1}, "skip_positions is -1"),
        ({"val_contexts": 0}, "val_contexts is 0"),
        ({"positions_per_context": 0}, "positions_per_context is 0"),
        ({"val_fraction": 0.0}, "leave a split empty"),
        ({"seed": -1}, "data.seed is -1"),
        ({"model": "no-such-model"}, "no checkpoint 'no-such-model'"),
        ({"tokenizer": TrainedBPE(303)}, "the tokenizer has 303 tokens, more than the 302 rows of W_E"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, refused, options, message):
    with refused(message):
        make(prepared=False, **options)


def test_a_model_without_a_residual_stream_or_a_tokenizer_is_refused(make, tmp_path, refused):
    sae = zoo.save(TopKSAE(8, 16, k=2), tmp_path / "sae")
    with refused("is a TopKSAE; data.model must be a language model"):
        make(model=str(sae))
    bare = zoo.save(network(), tmp_path / "bare")
    with refused("has no tokenizer.json; set data.tokenizer"):
        make(model=str(bare))
    assert loader(make(model=str(bare), tokenizer=TrainedBPE(300))).batch(0)["x"].shape == (40, 8)


def test_a_tokenizer_other_than_the_models_is_refused(make, refused):
    with refused("data.tokenizer is not the tokenizer that is stored with"):
        make(tokenizer=TrainedBPE(290))


def test_positions_of_special_tokens_are_left_out(make):
    data, every = (make(skip_special_tokens=skip, val_contexts=500) for skip in (True, False))
    (end,) = data.skip_tokens
    assert data.text.tokenizer.id_to_token(end) == "<|endoftext|>"
    assert data.corpus_fingerprint != every.corpus_fingerprint
    rows = [torch.cat([batch["row"] for batch in each.val_dataloader()]) for each in (data, every)]
    assert (rows[1] == end).any()
    assert torch.equal(rows[0], rows[1][rows[1] != end])
    left, batches = 0, loader(data)
    for refill in range(len(batches.contexts)):
        ids, positions = batches.contexts.batch(refill)["input_ids"], batches._positions(refill)
        used = ids.gather(1, positions.flatten(1))
        spare = ids.shape[1] - data.skip_positions - used.shape[1]
        n_ends = (ids[:, data.skip_positions :] == end).sum(1)
        assert torch.equal((used == end).sum(1), (n_ends - spare).clamp(min=0))
        assert all(len(set(row.tolist())) == len(row) for row in positions.flatten(1))
        left += int(n_ends.sum())
    assert left > 0


def test_a_corpus_smaller_than_one_refill_is_refused(make, refused):
    with refused("lower batch_size or sequence_length, or raise positions_per_context"):
        make(batch_size=5_000)


def test_contexts_that_do_not_divide_by_the_devices_are_refused(make, refused):
    with refused("makes 8 contexts, which is not a multiple of the number of devices, 3"):
        loader(make(), 0, 3)
