"""Models with more rows than their tokenizer has tokens."""

import csv
import logging
import sys

import pytest
import torch
import torch.nn.functional as F
import transformers
import yaml
from small_gpt2 import network

import zoo
from zoo.__main__ import main
from zoo.callbacks import EmbeddingDrift
from zoo.datamodules import ActivationsDataModule, EmbeddingRowsDataModule, LocalFiles
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2
from zoo.shared_tasks.rows import UntrainedRows
from zoo.source import Source
from zoo.study import Work

N_TOKENS, N_ROWS = 300, 320


@pytest.fixture
def padded(tmp_path, tiny_data):
    """A folder of `transformers` with a random GPT-2 of 320 rows and the tokenizer of `tiny_data`, of 300 tokens."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**network(vocab_size=N_ROWS, context_length=16).hf_config())
    twin = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    for p in twin.parameters():
        p.normal_(std=0.3)
    twin.save_pretrained(tmp_path / "padded")
    tiny_data.tokenizer.save(str(tmp_path / "padded" / "tokenizer.json"))
    return tmp_path / "padded"


def module(init_from, **options):
    return FrozenEmbeddingGPT2(N_TOKENS, 16, init_from=str(init_from), frozen_rows="none", **options)


def test_the_loss_of_a_padded_model_is_that_of_transformers(padded, tiny_data, make_trainer, caplog):
    twin = transformers.GPT2LMHeadModel.from_pretrained(padded).eval()
    total = count = 0
    for batch in tiny_data.val_dataloader():
        logits = twin(batch["input_ids"]).logits.double()
        total += F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), reduction="sum").item()
        count += (batch["targets"] != -100).sum().item()
    with caplog.at_level(logging.INFO):
        (measured,) = make_trainer(limit_val_batches=1.0).validate(module(padded), tiny_data, verbose=False)
    assert measured["val/loss"] == pytest.approx(total / count, rel=1e-5)
    assert caplog.text.count("note: 20 rows of W_E belong to no token") == 1


def test_a_padded_model_trains_on_and_its_drift_table_knows_every_row(padded, tiny_data, make_trainer, tmp_path):
    m = module(padded, optimizer=AdamWCosine(warmup_steps=1))
    make_trainer(callbacks=[EmbeddingDrift(every_n_steps=2)]).fit(m, tiny_data)
    assert len(m.net.W_E) == N_ROWS
    with (tmp_path / "run" / "embedding_drift" / "W_E.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["count"] for row in table] == [*map(str, tiny_data.row_counts.tolist()), *["0"] * 20]
    assert {row["token"] for row in table[N_TOKENS:]} == {""}
    assert any(row["token"] for row in table[:N_TOKENS])


def test_a_row_without_a_token_is_never_predicted(padded, tiny_data, make_trainer):
    m = module(padded, temperature=0.0, max_new_tokens=30)
    with torch.no_grad():
        m.net.transformer.ln_f.weight.zero_()
        m.net.transformer.ln_f.bias.fill_(1.0)
        m.net.W_U[N_TOKENS:] = 100.0  # far more likely than all others
    predicted = torch.cat(make_trainer().predict(m, tiny_data))
    assert predicted.max() < N_TOKENS
    unrestricted = m.net.generate(predicted[:, :4], 1, temperature=0)
    assert unrestricted[0, -1] >= N_TOKENS


def test_a_tokenizer_of_the_weights_that_cannot_be_read_is_refused(padded, tiny_data, make_trainer, refused):
    (padded / "tokenizer.json").write_text('{"model": "?"}')
    with refused("the tokenizer of init_from .* cannot be read"):
        make_trainer().fit(module(padded, optimizer=AdamWCosine(warmup_steps=1)), tiny_data)


def test_fewer_rows_than_tokens_are_refused(padded, refused):
    with refused("vocab_size is 321, more than the 320 rows of init_from"):
        FrozenEmbeddingGPT2(321, 16, init_from=str(padded))


def test_activations_of_a_padded_model_have_rows_without_tokens(padded, tiny_corpus, tmp_path, caplog):
    corpus = LocalFiles([str(tiny_corpus)])
    sizes = {
        "sequence_length": 16,
        "batch_size": 16,
        "positions_per_context": 8,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
    }
    data = ActivationsDataModule(str(padded), 1, corpus=corpus, cache_dir=str(tmp_path / "c"), **sizes)
    data.prepare_data()
    with caplog.at_level(logging.INFO):
        data.setup()
    assert "note: 20 rows of W_E belong to no token" in caplog.text
    assert len(data.row_labels) == len(data.row_counts) == len(data.W_E) == N_ROWS
    assert data.row_labels[-1] == "row 319"
    assert data.row_counts[N_TOKENS:].sum() == 0


@pytest.fixture
def counted(tmp_path, tiny_data):
    """Writes a zoo checkpoint with counts of so many tokens."""

    def write(n_counts, tokenizer=True):
        counts = (tiny_data.row_counts.tolist() + [0] * 20)[:n_counts]
        text = tiny_data.tokenizer.to_str() if tokenizer else None
        return str(zoo.save(network(vocab_size=N_ROWS), tmp_path / "m", tokenizer_json=text, token_counts=counts))

    return write


def test_counts_of_the_tokenizers_tokens_are_0_for_the_rows_after_them(counted, tiny_data):
    data = EmbeddingRowsDataModule(counted(N_TOKENS), frequency_power=1.0)
    assert data.row_counts.tolist() == [*tiny_data.row_counts.tolist(), *[0] * 20]
    assert data.row_labels[N_TOKENS:] == [f"row {i}" for i in range(N_TOKENS, N_ROWS)]
    assert data.never_occurring[N_TOKENS:].all()


@pytest.mark.parametrize("read", ["rows", "study"])
def test_counts_that_fit_neither_rows_nor_tokens_are_refused(counted, tmp_path, refused, read):
    def make(source):
        if read == "rows":
            return EmbeddingRowsDataModule(source)
        return UntrainedRows((Source.open(source),), None).do(Work({}, tmp_path))

    with refused("has counts of 299 tokens and an embedding of 320 rows; its tokenizer has 300 tokens"):
        make(counted(299))
    with refused("has counts of 300 tokens and an embedding of 320 rows; it has no tokenizer"):
        make(counted(300, tokenizer=False))


def test_a_study_sets_rows_without_a_token_aside(counted, tmp_path):
    found = UntrainedRows((Source.open(counted(N_TOKENS)),), None).do(Work({}, tmp_path))
    never = int((Source.open(counted(N_TOKENS)).token_counts() == 0).sum()) + 20
    assert (found["n_tokens"], found["never_occur"]) == (N_ROWS, never)
    assert found["untrained"] >= never


# Settings that follow the data, on the command line.


@pytest.fixture
def fit(tmp_path, monkeypatch, capsys, tiny_corpus):
    """Runs `python -m zoo fit` on the tiny corpus, of 300 tokens and a context of 16: exit code, error."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["zoo"])
    config = {
        "model": {"class_path": "FrozenEmbeddingGPT2", "init_args": {"d_model": 8, "n_layers": 1, "n_heads": 1}},
        "data": {
            "class_path": "TextDataModule",
            "init_args": {
                "corpus": {"class_path": "LocalFiles", "init_args": {"paths": [str(tiny_corpus)]}},
                "tokenizer": {"class_path": "TrainedBPE", "init_args": {"vocab_size": N_TOKENS}},
                **{"context_length": 16, "batch_size": 4, "val_fraction": 0.15, "test_fraction": 0.15},
            },
        },
        "trainer": {"max_steps": 1, "limit_val_batches": 0, "accelerator": "cpu", "enable_progress_bar": False},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))

    def run(*arguments, own=()):
        start = own or ("--config", str(tmp_path / "small.yaml"), "--run_dir", str(tmp_path / "run"))
        code = main(["fit", *map(str, start), *arguments])
        return code, capsys.readouterr().err

    return run


def test_rows_that_are_asked_for_are_made_and_stay_when_the_run_is_resumed(fit, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert fit("--model.vocab_size", "320")[0] == 0
    assert "note: 20 rows of W_E belong to no token" in caplog.text
    assert len(zoo.embedding(tmp_path / "run")) == N_ROWS
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]["vocab_size"] == N_ROWS
    resumed = ("--ckpt_path", tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert fit("--trainer.max_steps", "2", own=resumed)[0] == 0
    assert len(zoo.embedding(tmp_path / "run")) == N_ROWS


def test_a_written_setting_that_is_the_classs_default_is_followed_or_named(fit, tmp_path):
    code, err = fit("--model.context_length", "256")
    assert code == 2
    assert "error: model.context_length is 256, and the data's context_length is 16" in err
    assert fit("--model.vocab_size", "4096")[0] == 0
    assert len(zoo.embedding(tmp_path / "run")) == 4096


@pytest.mark.parametrize(("rows", "message"), [("299", "model.vocab_size is 299"), ("310", "model.vocab_size is 310")])
def test_other_rows_than_there_can_be_are_named(fit, padded, rows, message):
    init_from = ("--model.init_from", str(padded), "--model.d_model=16", "--model.n_layers=2", "--model.n_heads=2")
    code, err = fit("--model.vocab_size", rows, *(init_from if rows == "310" else ()))
    assert code == 2
    assert f"error: {message}, and the data's vocab_size is 300" in err


def test_a_printed_config_leaves_out_what_follows_the_data(fit, capsys):
    with pytest.raises(SystemExit):
        fit("--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert "d_model" in printed
    assert not {"vocab_size", "context_length"} & printed.keys()
