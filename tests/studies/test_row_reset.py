import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from small_corpus import make_corpus
from small_gpt2 import network

from zoo import checkpoints, sources
from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE
from zoo.models import ReLUSAE
from zoo.report import read
from zoo.studies import row_reset
from zoo.studies.row_reset_report import finding, table
from zoo.studies.training_text import training_text

SMALL = {"rows": 10, "steps": 3, "seeds": 2}


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
def small(home, monkeypatch):
    """Everything small and in this process; a list of what is done."""
    done = []

    def do_all(do, tasks, out, jobs):
        for task in tasks:
            do(task, out)
            done.append(task)

    monkeypatch.setenv("ZOO_CACHE", str(home / "cache"))
    monkeypatch.setattr(row_reset, "do_all", do_all)
    for name, value in {"LENGTH": 8, "TRAIN": 8, "EVALUATION": 4, "CHUNK": 4}.items():
        monkeypatch.setattr(row_reset, name, value)
    return done


@pytest.fixture(scope="module")
def study(home, tmp_path_factory):
    """A finished study and its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        patch.setattr(row_reset, "do_all", lambda do, tasks, out, jobs: [do(task, out) for task in tasks])
        for name, value in {"LENGTH": 8, "TRAIN": 8, "EVALUATION": 4, "CHUNK": 4}.items():
            patch.setattr(row_reset, name, value)
        out = tmp_path_factory.mktemp("out") / "study"
        return out, row_reset.run(out, str(home / "gpt2"), **SMALL)


def test_the_control_starts_from_the_untouched_model_and_the_reset_from_a_random_row(study):
    out, results = study
    assert [g["n"] for g in results["groups"]] == [10, 3, 3, 2, 2]
    for mode in ("row", "rest"):
        curves = results["curves"][mode]
        assert curves["control"][0]["mean"] == 0
        assert curves["reset"][0]["mean"] == pytest.approx(results["groups"][0][mode]["damage"]["mean"])
    first, second = (
        json.loads((out / "runs" / f"row_{arm}_chunk-000.json").read_text()) for arm in ("control", "seed-0")
    )
    assert np.allclose(first["own"][0], 1)
    assert np.all(np.array(first["nearest"][0]) == 1)
    assert np.abs(second["own"][0]).max() < 0.9
    both = [json.loads((out / "runs" / f"{m}_seed-1_chunk-001.json").read_text()) for m in ("row", "rest")]
    np.testing.assert_allclose(both[0]["loss"][0], both[1]["loss"][0], rtol=1e-4)
    assert both[1]["own"][0] == both[1]["own"][-1]


def test_contexts_to_judge_by_are_none_that_were_trained_on(study, home):
    data, _ = training_text(str(home / "gpt2"), None, 300)
    cut = {}  # every window of each split, of which there is none in both
    for split in ("train", "val"):
        ids = np.asarray(data.cache.tokens(split))
        cut[split] = {tuple(w) for w in ids[: len(ids) // 9 * 9].reshape(-1, 9).tolist()}
    with np.load(study[0] / "contexts.npz", allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert study[1]["groups"][0]["on_validation"] == found["from_val"].sum()
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


def test_strata_are_of_rising_frequency(study):
    rows = study[1]["rows"]
    for rarer, commoner in zip(range(3), range(1, 4), strict=True):
        most, least = ([r["count"] for r in rows if r["stratum"] == s] for s in (rarer, commoner))
        assert max(most) <= min(least)


def test_table_picture_and_page_are_written(study):
    out, results = study
    assert (out / "row_reset.png").stat().st_size > 10_000
    assert (out / "table.md").read_text() == table(results)
    assert json.loads((out / "results.json").read_text()) == results
    page = read(out)
    assert [s["id"] for s in page["sections"]] == ["A6"]
    assert page["sections"][0]["finding"] == finding(results)
    assert (out / "report.html").stat().st_size > 10_000


def test_a_finished_study_is_not_made_again_and_an_interrupted_one_goes_on(study, home, tmp_path, small):
    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    times = {f.name: f.stat().st_mtime_ns for f in (out / "runs").iterdir()}
    assert len(times) == 3 * 2 * 3
    (out / "runs" / "rest_seed-1_chunk-002.json").unlink()
    again = row_reset.run(out, str(home / "gpt2"), **SMALL)
    assert [(t.mode, t.seed, t.chunk) for t in small] == [("rest", 1, 2)]
    left = {f.name: f.stat().st_mtime_ns for f in (out / "runs").iterdir()}
    assert {name for name in left if left[name] != times[name]} == {"rest_seed-1_chunk-002.json"}
    assert again == study[1]


def test_the_finding_follows_the_numbers(study):
    results = json.loads(json.dumps(study[1]))
    row = results["groups"][0]["row"]
    row |= {"recovered": {"mean": 0.5, "low": 0.4, "high": 0.6}, "drift": {"mean": 0.3, "low": 0.2, "high": 0.4}}
    assert "make good 50 % [40, 60]" in finding(results)
    assert "turns towards its original" in finding(results)
    row["drift"] = {"mean": 0.0, "low": -0.1, "high": 0.1}
    assert "does not turn towards its original" in finding(results)
    row["recovered"] = None
    assert "no clear damage" in finding(results)


def test_a_tied_model_can_be_studied(home, tmp_path):
    source = tmp_path / "tied"
    part = json.loads((home / "gpt2" / "config.json").read_text())["zoo"]["provenance"]
    tokenizer = (home / "gpt2" / "tokenizer.json").read_text()
    checkpoints.save(network(vocab_size=300, context_length=16, tied=True), source, 5, part, tokenizer)
    results = row_reset.run(tmp_path / "study", str(source), rows=8, steps=1, seeds=1)
    assert results["model"]["tied"]


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
    assert data.tokenizer.to_str() == sources.tokenizer_json(home / "gpt2")
    assert "no tokenizer of its own" in training_text(str(home / "untold"), str(home / "text.yaml"), 300)[1][0]


@pytest.mark.parametrize(
    ("source", "changed", "words"),
    [
        ("gpt2", {"rows": 7}, "rows is 7; an interval in each of 4 strata needs at least 8"),
        ("gpt2", {"steps": 0}, "steps is 0"),
        ("gpt2", {"seeds": 0}, "seeds 0"),
        ("gpt2", {"jobs": 0}, "jobs 0"),
        ("gpt2", {"rows": 299}, "contexts of 8 tokens in the text, fewer than the 299 rows"),
        ("sae", {}, "is a ReLUSAE; the study needs a GPT2"),
        ("wide", {}, "has 300 tokens, and .* knows 301"),
        ("gpt2", {"config": "wide.yaml"}, "wide.yaml has 310 tokens, and .* knows 300"),
        ("gpt2", {"config": "rows.yaml"}, "is a EmbeddingRowsDataModule; text is needed"),
        ("gpt2", {"config": "none.yaml"}, "does not say on what text"),
        ("gpt2", {"config": "missing.yaml"}, "cannot be read"),
        ("untold", {}, "does not say on what text; name a config"),
        ("absent", {}, "absent"),
    ],
)
def test_wrong_input_is_one_line(home, tmp_path, refused, source, changed, words):
    if "config" in changed:
        changed = {"config": str(home / changed["config"])}
    with refused(words):
        row_reset.run(tmp_path / "study", str(home / source), **SMALL | changed)
    assert not (tmp_path / "study" / "runs").exists()


def test_other_settings_in_the_same_folder_are_refused(study, home, refused):
    with refused("a study with steps 3, and steps is 4 now"):
        row_reset.run(study[0], str(home / "gpt2"), **SMALL | {"steps": 4})


def test_random_rows_do_not_depend_on_the_chunks(study, home, tmp_path, monkeypatch):
    monkeypatch.setattr(row_reset, "CHUNK", 10)
    whole = row_reset.run(tmp_path / "study", str(home / "gpt2"), **SMALL)
    a, b = (torch.tensor([r["row"]["after"] for r in results["rows"]]) for results in (whole, study[1]))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
