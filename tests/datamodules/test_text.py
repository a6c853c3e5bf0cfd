from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from supported.tokenizers import letters

from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE
from zoo.datamodules.text import EvaluationLoader, TokenLoader

TOKENS = np.arange(1000, dtype=np.uint16)  # every token is different, so a window is known by its first token


def loader(rank=0, world_size=1, seed=0, batch_size=6):
    return TokenLoader(TOKENS, 7, batch_size, seed, rank, world_size)


def starts(batch):
    return batch["input_ids"][:, 0].tolist()


def pairs(batches):
    """How often each (token, next token) is asked for."""
    rows = [(b["input_ids"][b["targets"] != -100], b["targets"][b["targets"] != -100]) for b in batches]
    return Counter((int(x), int(y)) for inputs, targets in rows for x, y in zip(inputs, targets, strict=True))


def test_a_batch_depends_on_seed_and_step_alone():
    used = loader()
    for step in (200, 0, 23, 5):
        used.batch(step)
    for step in (0, 5, 22, 23, 100):
        assert torch.equal(used.batch(step)["input_ids"], loader().batch(step)["input_ids"])
    assert starts(loader(seed=1).batch(0)) != starts(loader().batch(0))


def test_targets_are_the_tokens_that_follow():
    for step in (0, 30):
        batch = loader().batch(step)
        assert batch["input_ids"].shape == batch["targets"].shape == (6, 7)
        assert batch["input_ids"].dtype == batch["targets"].dtype == torch.int64
        assert torch.equal(batch["targets"], batch["input_ids"] + 1)
        assert torch.equal(batch["input_ids"], batch["input_ids"][:, :1] + torch.arange(7))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_out_the_batch_of_one_rank(world_size):
    ranks = [loader(rank, world_size) for rank in range(world_size)]
    for step in (0, 1, 40):
        parts = [r.batch(step)["input_ids"] for r in ranks]
        assert torch.equal(torch.cat(parts), loader().batch(step)["input_ids"])
        assert len({s for part in parts for s in part[:, 0].tolist()}) == 6


def test_no_token_is_a_target_twice_within_an_epoch():
    for epoch in range(4):
        steps = range(epoch * len(loader()), (epoch + 1) * len(loader()))
        targets = torch.cat([loader().batch(step)["targets"].flatten() for step in steps])
        assert len(targets.unique()) == len(targets) == len(loader()) * 6 * 7
        assert len(targets) > 0.9 * len(TOKENS)


def test_epochs_cut_the_corpus_at_other_places():
    offsets = {starts(loader().batch(epoch * len(loader())))[0] % 7 for epoch in range(100)}
    assert offsets == set(range(7))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_corpus_of_at_least_one_batch_gives_whole_windows(length):
    for n_tokens in range((4 + 2) * length, (4 + 5) * length):
        small = TokenLoader(np.arange(n_tokens), length, 4, seed=0)
        for step in range(50):
            assert small.batch(step)["targets"].shape == (4, length)


@pytest.mark.parametrize("drawn", [0, 5, 23, 30])
def test_a_resumed_loader_goes_on_with_the_same_batches(drawn):
    def stream(loader):
        while True:
            yield from loader

    used = loader()
    assert len(used) == 23
    list(islice(stream(used), drawn))
    resumed = loader()
    resumed.load_state_dict(used.state_dict())
    for step, a, b in zip(range(drawn, drawn + 40), stream(used), stream(resumed), strict=False):
        assert torch.equal(a["input_ids"], b["input_ids"])
        assert torch.equal(a["input_ids"], loader().batch(step)["input_ids"])


def test_an_iteration_is_one_epoch_and_ends_where_the_epoch_does():
    used = loader()
    assert [len(list(used)) for _ in range(2)] == [23, 23]
    used.load_state_dict({"position": 50})
    assert len(list(used)) == 3 * 23 - 50


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("n_tokens", [2, 8, 9, 43, 1000])
def test_evaluation_asks_for_every_next_token_once(world_size, n_tokens):
    tokens = np.random.default_rng(0).integers(0, 10, n_tokens).astype(np.uint16)
    ranks = [EvaluationLoader(tokens, 7, 6, rank, world_size) for rank in range(world_size)]
    asked = sum((pairs(r) for r in ranks), Counter())
    assert asked == Counter(pairwise(tokens.tolist()))
    assert {len(list(r)) for r in ranks} == {len(ranks[0])}


def test_evaluation_ranks_share_out_the_batches_of_one_rank():
    ranks = [EvaluationLoader(TOKENS, 7, 6, rank, 3) for rank in range(3)]
    for whole, *parts in zip(EvaluationLoader(TOKENS, 7, 6), *ranks, strict=True):
        assert torch.equal(torch.cat([p["targets"] for p in parts]), whole["targets"])


def test_evaluation_of_a_prepared_split_covers_its_tokens(tiny_data):
    for split, batches in (("val", tiny_data.val_dataloader()), ("test", tiny_data.test_dataloader())):
        tokens = tiny_data.cache.tokens(split).tolist()
        assert pairs(batches) == Counter(pairwise(tokens))


def test_training_windows_are_pieces_of_the_training_split(tiny_data):
    tokens = tiny_data.cache.tokens("train").tolist()
    pieces = {tuple(tokens[i : i + 16]) for i in range(len(tokens))}
    assert all(tuple(row) in pieces for batch in tiny_data.train_dataloader() for row in batch["input_ids"].tolist())


def test_the_vocabulary_has_one_string_and_one_count_per_token(tiny_data):
    assert len(tiny_data.row_labels) == len(tiny_data.row_counts) == tiny_data.vocab_size == 300
    assert tiny_data.row_labels[0] == "<|endoftext|>"
    assert tiny_data.row_counts.sum() == len(tiny_data.cache.tokens("train"))


def test_prompts_are_encoded_without_an_end_of_text(tiny_data):
    (batch,) = tiny_data.predict_dataloader()
    assert tiny_data.tokenizer.decode(batch["input_ids"][0].tolist(), skip_special_tokens=False) == "the cat "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 0}, "context_length is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"val_fraction": 0.0}, "leave a split empty"),
        ({"test_fraction": -0.1}, "leave a split empty"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave a split empty"),
    ],
)
def test_arguments_out_of_range_are_refused(tiny_corpus, tmp_path, refused, options, message):
    with refused(message):
        TextDataModule(LocalFiles([str(tiny_corpus)]), TrainedBPE(300), cache_dir=str(tmp_path), **options)


def test_a_corpus_smaller_than_one_batch_is_refused(tiny_data, refused):
    tiny_data.batch_size = 10_000
    with refused("lower batch_size or context_length"):
        tiny_data.setup()


def test_prompts_are_read_as_documents_are(tiny_data, caplog):
    tiny_data.prompts = ["a<|endoftext|>b"]
    (batch,) = tiny_data.predict_dataloader()
    assert 0 not in batch["input_ids"]
    tiny_data.cache.special_tokens = True
    (batch,) = tiny_data.predict_dataloader()
    assert batch["input_ids"].tolist()[0].count(0) == 1
    assert not caplog.text


def test_a_prompt_of_no_tokens_is_refused_and_one_that_loses_letters_is_pointed_out(tiny_data, refused, caplog):
    tiny_data.tokenizer = letters(None)(["the cat"])
    tiny_data.prompts = ["the cät"]
    tiny_data.predict_dataloader()
    assert "loses 2 of the 8 bytes of prompt 'the cät'" in caplog.text
    tiny_data.prompts = ["the cat", "漢字"]
    with refused("has no token for any part of prompt '漢字'"):
        tiny_data.predict_dataloader()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(refused, share):
    with refused("max_lost is .*; it is a share"):
        TextDataModule(max_lost=share)


def test_the_bytes_of_targets_come_with_an_evaluation_batch(tiny_data):
    for split, loader in (("val", tiny_data.val_dataloader()), ("test", tiny_data.test_dataloader())):
        batches = list(loader)
        n_bytes = tiny_data.cache.token_bytes(split)
        assert sum(batch["target_bytes"].sum() for batch in batches) == n_bytes[1:].sum()
        assert all((batch["target_bytes"][batch["targets"] == -100] == 0).all() for batch in batches)


@pytest.mark.parametrize("prompts", [[], ["fine", ""]])
def test_no_prompt_and_an_empty_prompt_are_refused(refused, prompts):
    with refused("give at least one text, and none that is empty"):
        TextDataModule(prompts=prompts)
