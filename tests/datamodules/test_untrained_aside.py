"""Rows of an embedding without those that look untrained."""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from zoo.datamodules import CovarianceMatchedRows, EmbeddingRowsDataModule
from zoo.untrained_rows import CLUSTER, NAME, REASONS

N, D, UNTRAINED = 600, 24, 60
ASIDE = {7, *range(200, 200 + UNTRAINED)}  # a reserved name, and a cluster in the middle
KEPT = [i for i in range(N) if i not in ASIDE]
TOKENS = [f"word{i}" for i in range(N)]
TOKENS[7] = "[unused7]"


@pytest.fixture
def source(tmp_path):
    g = torch.Generator().manual_seed(0)
    W = torch.randn(N, D, generator=g)
    W[200 : 200 + UNTRAINED] = 0.3 * torch.randn(D, generator=g) + 0.1 * torch.randn(UNTRAINED, D, generator=g)
    np.save(tmp_path / "W.npy", W.numpy())
    (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS))
    (tmp_path / "W.token_counts.json").write_text(json.dumps(list(range(1, N + 1))))
    return str(tmp_path / "W.npy")


def aside(source, **options):
    return EmbeddingRowsDataModule(source, untrained="aside", batch_size=32, **options)


def test_rows_names_and_counts_are_those_of_the_same_tokens(source):
    made = aside(source)
    assert made.source_rows.tolist() == KEPT
    assert torch.equal(made.W_E, EmbeddingRowsDataModule(source).W_E[KEPT])
    assert made.row_labels == [TOKENS[i] for i in KEPT]
    assert made.row_counts.tolist() == [i + 1 for i in KEPT]
    assert len(made.held_out) == len(made.row_weights) == len(made.evaluation_weights) == len(KEPT)
    assert made.train_rows.max() < len(KEPT)


def test_how_many_rows_are_left_out_is_told_with_the_number_of_every_reason(source, caplog):
    EmbeddingRowsDataModule(source)
    assert f"of {N} rows" not in caplog.text
    aside(source)
    (told,) = [record.getMessage() for record in caplog.records if f"of {N} rows" in record.getMessage()]
    assert f"note: {len(ASIDE)} of {N} rows of {source} " in told
    assert f"{UNTRAINED} {REASONS[CLUSTER]}" in told
    assert f"1 {REASONS[NAME]}" in told


def test_by_default_all_rows_stay(source):
    made = EmbeddingRowsDataModule(source)
    assert (len(made.W_E), made.source_rows.tolist()) == (N, list(range(N)))
    assert made.corpus_fingerprint != aside(source).corpus_fingerprint


def test_a_file_of_counts_has_one_for_every_row_of_the_source(source, tmp_path, refused):
    np.save(tmp_path / "counts.npy", np.arange(N))
    made = aside(source, token_counts=str(tmp_path / "counts.npy"), frequency_power=1)
    assert made.row_counts.tolist() == [i for i in KEPT if i != 0]  # token 0 never occurs
    np.save(tmp_path / "counts.npy", np.arange(len(KEPT)))
    with refused(f"expected {N} counts, one per row"):
        aside(source, token_counts=str(tmp_path / "counts.npy"))


def test_a_null_model_is_that_of_the_rows_that_stay(source):
    made = aside(source, null_model=CovarianceMatchedRows(seed=1))
    expected = CovarianceMatchedRows(seed=1).rows(EmbeddingRowsDataModule(source).W_E[KEPT])
    assert torch.equal(made.W_E, expected)


def test_two_ranks_see_the_batches_of_one_and_a_resumed_run_those_that_were_left(source, monkeypatch):
    alone = list(islice(aside(source).train_dataloader(), 6))
    shares = []
    for rank in range(2):
        made = aside(source)
        monkeypatch.setattr(made, "_ranks", lambda rank=rank: (rank, 2))
        shares.append(list(islice(made.train_dataloader(), 6)))
    for batch, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(batch["x"], torch.cat([part["x"] for part in parts]))
    used = aside(source).train_dataloader()
    list(islice(used, 2))
    resumed = aside(source).train_dataloader()
    resumed.load_state_dict(used.state_dict())
    for left, batch in zip(alone[2:], islice(resumed, 4), strict=True):
        assert torch.equal(left["x"], batch["x"])


def test_rows_after_those_of_the_tokens_are_set_aside(source, tmp_path):
    (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS[:-5]))
    (tmp_path / "W.token_counts.json").unlink()
    assert aside(source).source_rows.tolist() == KEPT[:-5]


def test_another_word_than_keep_or_aside_is_refused(source, refused):
    with refused("untrained is 'drop'; it must be keep or aside"):
        EmbeddingRowsDataModule(source, untrained="drop")
