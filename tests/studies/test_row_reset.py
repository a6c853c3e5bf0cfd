import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from doing_studies import do_tasks
from small_corpus import make_corpus
from small_gpt2 import network

from zoo import checkpoints
from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE
from zoo.estimates import UNKNOWN, Estimate
from zoo.models import ReLUSAE
from zoo.report import write
from zoo.running.folder import Cost, ResultsFolder
from zoo.source import Source
from zoo.studies import row_reset
from zoo.studies.row_reset import FineTune, RowReset
from zoo.study import Work
from zoo.training_text import training_text

SMALL = {"rows": 10, "steps": 3, "seeds": 2}
CONTEXTS = {"LENGTH": 8, "TRAIN": 8, "EVALUATION": 4, "CHUNK": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, a GPT-2 (`gpt2`) whose text it is, and a config (`text.yaml`) on it."""
    home = tmp_path_factory.mktemp("home")
    corpus = make_corpus(home)
    text = LocalFiles([str(corpus)])
    data = TextDataModule(text, TrainedBPE(300), 16, 4, 0.2, 0.1, cache_dir=str(home / "cache"))
    data.prepare_data()
    data.setup()
    init_args = {
        "corpus": {"class_path": "LocalFiles", "init_args": {"paths": [str(corpus)]}},
        "tokenizer": {"class_path": "TrainedBPE", "init_args": {"vocab_size": 300}},
        "context_length": 16,
        "batch_size": 4,
        "val_fraction": 0.2,
        "test_fraction": 0.1,
    }
    part = {"class_path": "TextDataModule", "init_args": {**init_args, "cache_dir": "/nowhere"}}
    model = network(vocab_size=300, context_length=16, tied=False)
    provenance = {"config": {"data": part}, "corpus_fingerprint": data.corpus_fingerprint}
    tokenizer = data.tokenizer.to_str()
    checkpoints.save(model, home / "gpt2", 5, provenance, tokenizer)
    checkpoints.save(model, home / "changed", 5, {**provenance, "corpus_fingerprint": "another"}, tokenizer)
    checkpoints.save(model, home / "untold", 5)
    checkpoints.save(network(vocab_size=301, context_length=16), home / "wide", 5, provenance, tokenizer)
    checkpoints.save(ReLUSAE(8, 16), home / "sae", 5, provenance)
    base = {"data": {"class_path": "TextDataModule", "init_args": {"cache_dir": str(home / "cache"), **init_args}}}
    (home / "base.yaml").write_text(yaml.safe_dump(base))
    child = {"base": "base.yaml", "data": {"init_args": {"context_length": 12}}, "model": {"class_path": "GPT2"}}
    (home / "text.yaml").write_text(yaml.safe_dump(child))
    wide = {"base": "base.yaml", "data": {"init_args": {"tokenizer": {"init_args": {"vocab_size": 310}}}}}
    (home / "wide.yaml").write_text(yaml.safe_dump(wide))
    other = {"class_path": "EmbeddingRowsDataModule", "init_args": {"source": "x"}}
    (home / "rows.yaml").write_text(yaml.safe_dump({"data": other}))
    (home / "none.yaml").write_text(yaml.safe_dump({"model": {}}))
    return home


@pytest.fixture(autouse=True)
def _small(home, monkeypatch):
    """Few and short contexts, and several chunks."""
    monkeypatch.setenv("ZOO_CACHE", str(home / "cache"))
    for name, value in CONTEXTS.items():
        monkeypatch.setattr(row_reset, name, value)


@pytest.fixture(scope="module")
def done(home, tmp_path_factory):
    """A study and its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        for name, value in CONTEXTS.items():
            patch.setattr(row_reset, name, value)
        study = RowReset(str(home / "gpt2"), **SMALL)
        return study, do_tasks(study, tmp_path_factory.mktemp("work"))


@pytest.fixture
def numbers(done):
    """All numbers of the report."""
    study, results = done
    return study.report(results).sections[0].numbers


def measured(done, mode, seed, first):
    """Result of a chunk."""
    study, results = done
    return next(results[t] for t in study.tasks() if (t.mode, t.seed, t.first) == (mode, seed, first))


def test_the_control_starts_from_the_untouched_model_and_the_reset_from_a_random_row(done, numbers):
    assert [g["n"] for g in numbers["groups"]] == [10, 3, 3, 2, 2]
    for mode in ("row", "rest"):
        curves = numbers["curves"][mode]
        assert curves["control"][0].mean == 0
        assert curves["reset"][0].mean == pytest.approx(numbers["groups"][0][mode]["damage"].mean)
    first, second = (measured(done, "row", seed, 0) for seed in (None, 0))
    assert np.allclose(first["own"][0], 1)
    assert np.all(first["nearest"][0] == 1)
    assert np.abs(second["own"][0]).max() < 0.9
    row, rest = (measured(done, mode, 1, 4) for mode in ("row", "rest"))
    np.testing.assert_allclose(row["loss"][0], rest["loss"][0], rtol=1e-4)
    assert np.array_equal(rest["own"][0], rest["own"][-1])


def test_contexts_to_judge_by_are_none_that_were_trained_on(done, numbers, home):
    data, _ = training_text(str(home / "gpt2"), None, 300)
    cut = {}  # every window of each split, of which there is none in both
    for split in ("train", "val"):
        ids = np.asarray(data.cache.tokens(split))
        cut[split] = {tuple(w) for w in ids[: len(ids) // 9 * 9].reshape(-1, 9).tolist()}
    study, results = done
    found = results[study.tasks()[0].contexts]
    assert numbers["groups"][0]["on_validation"] == found["from_val"].sum()
    for i, token in enumerate(found["tokens"]):
        train, evaluation = found["train"][i], found["evaluation"][i]
        assert (train[:, :4] == token).any(1).all()
        assert (evaluation[:, :4] == token).any(1).all()
        assert {tuple(w) for w in train.tolist()} <= cut["train"]
        assert {tuple(w) for w in evaluation.tolist()} <= cut["val" if found["from_val"][i] else "train"]
        if not found["from_val"][i]:
            assert not {tuple(w) for w in train.tolist()} & {tuple(w) for w in evaluation.tolist()}
    assert found["train"].shape == (10, 8, 9)
    assert found["evaluation"].shape == (10, 4, 9)


def test_strata_are_of_rising_frequency(numbers):
    for rarer, commoner in zip(range(3), range(1, 4), strict=True):
        most, least = ([r["count"] for r in numbers["rows"] if r["stratum"] == s] for s in (rarer, commoner))
        assert max(most) <= min(least)


def test_page_tables_and_pictures_are_written(done, tmp_path):
    study, results = done
    report = study.report(results)
    write(report, tmp_path)
    assert [section.id for section in report.sections] == ["row-reset"]
    charts = [f"row-reset-{name}" for name in ("loss-row", "loss-rest", "recovered", "cosine")]
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted(charts)
    text = (tmp_path / "table.md").read_text()
    assert report.sections[0].finding in text
    assert "everything but the reset row is trained | rows | on validation text" in text
    assert "first occurrence in a context of 8 tokens on." in text


def test_results_that_were_kept_make_the_same_report_without_text_or_network_in_the_tasks_that_tune(
    done, tmp_path, home
):
    study, results = done
    kept = ResultsFolder(tmp_path)
    kept.make()
    again = RowReset(str(home / "gpt2"), **SMALL)
    assert len(again.tasks()) == 3 * 2 * 3
    for task in (*again.tasks()[0].needs(), *again.tasks()):
        kept.put(task, results[task], Cost(1.0, 1.0, "cpu", "here"))
    assert again.report(ResultsFolder(tmp_path)) == study.report(results)
    task = again.tasks()[-1]
    assert task in kept
    for name, value in task.do(Work(kept, tmp_path / "work")).items():
        assert np.array_equal(value, kept[task][name])


def test_the_finding_follows_the_numbers(done, numbers):
    study, everything = done[0], numbers["groups"][0]

    def told(**changed):
        return study._finding({**everything, "row": {**everything["row"], **changed}}, 300)

    half = Estimate(0.5, 0.4, 0.6)
    assert "recover 50 % [40, 60]" in told(recovered=half, drift=Estimate(0.3, 0.2, 0.4))
    assert "turns towards its original" in told(recovered=half, drift=Estimate(0.3, 0.2, 0.4))
    assert "turns away from its original" in told(recovered=half, drift=Estimate(-0.3, -0.4, -0.2))
    assert "does not turn towards its original" in told(recovered=half, drift=Estimate(0.0, -0.1, 0.1))
    assert "does not clearly increase the loss" in told(recovered=UNKNOWN)
    assert math.isnan(UNKNOWN.mean)


def test_a_tied_model_can_be_studied(home, tmp_path):
    source = tmp_path / "tied"
    part = json.loads((home / "gpt2" / "config.json").read_text())["zoo"]["provenance"]
    tokenizer = (home / "gpt2" / "tokenizer.json").read_text()
    checkpoints.save(network(vocab_size=300, context_length=16, tied=True), source, 5, part, tokenizer)
    study = RowReset(str(source), rows=8, steps=1, seeds=1)
    assert "layers, tied)" in study.report(do_tasks(study, tmp_path)).subject


def test_the_text_is_that_of_the_models_training_or_of_a_config_with_its_bases(home):
    ids = [
        training_text(str(home / "gpt2"), config, 300)[0].cache.tokens("val")
        for config in (None, str(home / "text.yaml"))
    ]
    assert np.array_equal(*ids)
    assert training_text(str(home / "gpt2"), str(home / "text.yaml"), 300)[0].context_length == 12


def test_other_text_is_read_in_the_models_own_tokens_and_noted(home):
    data, notes = training_text(str(home / "changed"), None, 300)
    assert "not the one the model was trained on" in notes[0]
    assert data.tokenizer.to_str() == Source.open(home / "gpt2").tokenizer_json()
    assert "no tokenizer of its own" in training_text(str(home / "untold"), str(home / "text.yaml"), 300)[1][0]


@pytest.mark.parametrize(
    ("source", "changed", "words"),
    [
        ("gpt2", {"rows": 7}, "rows is 7; an interval in each of 4 strata needs at least 8"),
        ("gpt2", {"steps": 0}, "steps is 0"),
        ("gpt2", {"seeds": 0}, "seeds is 0"),
        ("sae", {}, "is a ReLUSAE; the study needs a GPT2"),
        ("wide", {}, "has 300 tokens, and .* knows 301"),
        ("gpt2", {"text_config": "wide.yaml"}, "wide.yaml has 310 tokens, and .* knows 300"),
        ("gpt2", {"text_config": "rows.yaml"}, "is a EmbeddingRowsDataModule; text is needed"),
        ("gpt2", {"text_config": "none.yaml"}, "does not say on what text"),
        ("gpt2", {"text_config": "missing.yaml"}, "cannot be read"),
        ("untold", {}, "does not say on what text; name a config"),
        ("absent", {}, "absent"),
    ],
)
def test_wrong_input_is_one_line(home, refused, source, changed, words):
    if "text_config" in changed:
        changed = {"text_config": str(home / changed["text_config"])}
    with refused(words):
        RowReset(str(home / source), **SMALL | changed).tasks()


def test_a_text_with_too_few_contexts_is_one_line(home, tmp_path, refused):
    contexts = RowReset(str(home / "gpt2"), **SMALL | {"rows": 299}).tasks()[0].contexts
    with refused("contexts of 8 tokens in the text, fewer than the 299 rows"):
        contexts.do(Work({}, tmp_path))


def test_changed_settings_name_other_tasks_and_unchanged_ones_the_same(done, home):
    before = {task.key for task in done[0].tasks()}
    more_seeds, more_steps, more_rows = (
        RowReset(str(home / "gpt2"), **SMALL | changed).tasks()
        for changed in ({"seeds": 3}, {"steps": 4}, {"rows": 11})
    )
    assert before < {task.key for task in more_seeds}
    assert not before & {task.key for task in (*more_steps, *more_rows)}
    same = RowReset(str(home / "gpt2"), str(home / "text.yaml"), **SMALL)  # the same text by another name
    assert {task.key for task in same.tasks()} == before


def test_random_rows_do_not_depend_on_the_chunks(done, tmp_path):
    study, results = done
    for seed in range(2):
        parts = [t for t in study.tasks() if (t.mode, t.seed) == ("row", seed)]
        whole = replace(parts[0], n=10).do(Work(results, tmp_path))
        assert isinstance(parts[0], FineTune)
        for name in ("loss", "own"):
            both = (
                torch.from_numpy(np.concatenate([results[t][name] for t in parts], 1)),
                torch.from_numpy(whole[name]),
            )
            torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)
