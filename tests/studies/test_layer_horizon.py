"""The study of horizons, done on a tiny model."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from doing_studies import do_tasks
from small_corpus import make_corpus
from small_gpt2 import network
from supported.language_models import saved

from zoo import checkpoints
from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE
from zoo.models import ReLUSAE
from zoo.report import write
from zoo.running.folder import Cost, ResultsFolder
from zoo.shared_tasks import horizon as tasks
from zoo.studies.layer_horizon import LayerHorizon
from zoo.study import Work, all_tasks

SMALL = {"documents": 6, "length": 10, "seeds": 2, "batch": 3}
STEPS = (0, 4, 8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a GPT-2 of three steps (`run`), one of one step (`gpt2`), and models that do not fit."""
    home = tmp_path_factory.mktemp("home")
    text, sizes = LocalFiles([str(make_corpus(home))]), {"vocab_size": 300, "context_length": 16}
    data = TextDataModule(text, TrainedBPE(300), 16, 4, 0.2, 0.1, cache_dir=str(home / "cache"))
    data.prepare_data()
    data.setup()
    init_args = {
        "corpus": {"class_path": "LocalFiles", "init_args": {"paths": text.paths}},
        "tokenizer": {"class_path": "TrainedBPE", "init_args": {"vocab_size": 300}},
        **{"context_length": 16, "batch_size": 4, "val_fraction": 0.2, "test_fraction": 0.1},
    }
    part = {"class_path": "TextDataModule", "init_args": init_args}
    (home / "text.yaml").write_text(yaml.safe_dump({"data": part}))
    told = {"config": {"data": part}, "corpus_fingerprint": data.corpus_fingerprint}
    tokenizer = data.tokenizer.to_str()
    checkpoints.save(network(**sizes), home / "gpt2", 5, told, tokenizer)
    for step in STEPS:
        checkpoints.save(network(step, **sizes), home / "run" / f"step-{step:06}", step, told, tokenizer)
    checkpoints.save(network(**sizes), home / "untold", 5, {}, tokenizer)
    checkpoints.save(network(**sizes), home / "mute", 5)
    checkpoints.save(network(n_layers=0, **sizes), home / "flat", 5, told, tokenizer)
    checkpoints.save(ReLUSAE(8, 16), home / "sae", 5, told)
    saved(home / "neox", "GPT-NeoX, Pythia", vocab_size=300)
    (home / "neox" / "tokenizer.json").write_text(tokenizer)
    return home


@pytest.fixture(autouse=True)
def _cache(home, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(home / "cache"))


@pytest.fixture(scope="module")
def done(home, tmp_path_factory):
    """A study of two models over training, and its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        study = LayerHorizon((str(home / "run"),), ("all",), **SMALL)
        return study, do_tasks(study, tmp_path_factory.mktemp("work"))


@pytest.fixture
def report(done):
    study, results = done
    return study.report(results)


def test_the_report_has_horizons_inputs_effects_and_training(report, tmp_path):
    assert [section.id for section in report.sections] == ["layer-horizon", "inputs", "effects", "training"]
    write(report, tmp_path)
    slug = next(chart.name for chart in report.sections[1].charts).removeprefix("inputs-")
    kinds = ["curves-all", "curves-one", "curves-recursive", "curves-fillers", "curves-norms", "inputs", "training"]
    kinds += ["effects-total", "effects-direct"]
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted(
        ["training", *(f"{kind}-{slug}" for kind in kinds)]
    )
    numbers = json.loads((tmp_path / "report.json").read_text())["sections"][0]["numbers"]
    (found,) = numbers.values()
    assert len(found["variants"]) == 3 * 3 * 2 * 2
    assert found["outputs"] == ["embedding", "attention 0", "MLP 0", "attention 1", "MLP 1"]
    assert [one["name"] for one in found["untrained"]] == ["untrained, step 0"]


def test_the_horizon_in_layers_is_that_of_the_definition(report):
    (found,) = report.verdict.numbers.values()
    assert found["largest"] == 5
    assert "of 5 sublayers" in report.verdict.headline
    if found["least"] == found["most"]:
        assert f"({(found['most'] - 1) / 2:.3g} of 2 layers)" in report.verdict.headline


def test_step_0_is_the_untrained_network_and_the_last_step_the_model(done, report):
    study, _ = done
    assert [row[1] for row in report.sections[3].tables[0].rows] == [str(step) for step in STEPS]
    steps = [task.clean.step for task in study.tasks() if isinstance(task, tasks.Truncate)]
    assert {step: steps.count(step) for step in STEPS} == {0: 3, 4: 3, 8: 36 + 3}


def test_kept_results_make_the_same_report_and_are_not_computed_again(done, home, tmp_path):
    study, results = done
    kept = ResultsFolder(tmp_path)
    kept.make()
    again = LayerHorizon((str(home / "run"),), ("0,4", "8"), **SMALL)
    for task in all_tasks(again):
        kept.put(task, results[task], Cost(1.0, 1.0, "cpu", "here"))
    assert again.report(ResultsFolder(tmp_path)) == study.report(results)
    for task in again.tasks()[::9]:
        for name, value in task.do(Work(kept, tmp_path / "work")).items():
            assert np.array_equal(value, kept[task][name])


def test_steps_can_be_models_of_their_own_whose_names_contain_the_step(done, home, tmp_path):
    for step in STEPS:
        shutil.copytree(home / "run" / f"step-{step:06}", tmp_path / f"at-{step}")
    apart = LayerHorizon((f"{tmp_path}/at-{{step}}",), tuple(map(str, STEPS)), **SMALL)
    assert {task.key for task in all_tasks(apart)} == {task.key for task in all_tasks(done[0])}


def test_a_moved_model_has_the_same_tasks_and_a_changed_setting_others(done, home, tmp_path):
    keys = {task.key for task in all_tasks(done[0])}
    shutil.copytree(home / "run", tmp_path / "moved")
    assert {task.key for task in all_tasks(LayerHorizon((str(tmp_path / "moved"),), ("all",), **SMALL))} == keys
    tolerance = LayerHorizon((str(home / "run"),), ("all",), tolerance=0.5, **SMALL)
    assert {task.key for task in all_tasks(tolerance)} == keys
    longer = LayerHorizon((str(home / "run"),), ("all",), **SMALL | {"length": 11})
    assert not keys & {task.key for task in all_tasks(longer)}


def test_evaluation_and_means_are_of_documents_that_are_not_shared(done):
    study, results = done
    found = results[study._models[study.model[0]].documents]
    evaluation, means = found["evaluation"], found["means"]
    assert evaluation.shape == means.shape == (6, 11)
    assert not {tuple(row) for row in evaluation} & {tuple(row) for row in means}


def test_without_steps_untrained_networks_have_random_weights_of_several_seeds(home):
    study = LayerHorizon((str(home / "gpt2"),), **SMALL)
    (one,) = study._models.values()
    assert [clean.untrained for clean in one.untrained] == [0, 1]
    first, again, other = (clean.network("cpu").W_E for clean in (*one.untrained[:1] * 2, one.untrained[1]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.015 < first.std() < 0.025  # GPT-2 starts with a standard deviation of 0.02


def test_a_model_that_does_not_say_its_text_reads_that_of_a_config_in_its_own_tokens(home):
    study = LayerHorizon((str(home / "untold"), str(home / "gpt2")), text_config=str(home / "text.yaml"), **SMALL)
    untold, gpt2 = (one.documents.do(Work({}, home)) for one in study._models.values())
    assert "not known" in untold["notes"][0]
    assert np.array_equal(untold["evaluation"], gpt2["evaluation"])


def test_with_few_values_of_k_the_report_gives_horizons_between_them_and_says_what_was_measured(home, tmp_path):
    settings = SMALL | {"ks": 2, "readings": ("all", "one"), "fillers": ("mean",), "norms": ("recomputed",)}
    study = LayerHorizon((str(home / "gpt2"),), tolerance=1e-9, **settings)
    results = do_tasks(study, tmp_path)
    for task in study.tasks():
        if isinstance(task, tasks.Truncate):
            found = results[task]["increases"]
            assert found.shape[-1] == 2
            found[..., 0], found[..., 1] = 1.0, 0.0  # the horizon is 2, 3 or 4
    report = study.report(results)
    assert report.verdict.headline == (
        "The effective layer horizon of gpt2 is between 2 and 4 of 5 sublayers (0.5 to 1.5 of 2 layers; of these k, "
        "only 4 was measured)."
    )
    assert "only k = 1 and 4 were measured" in report.verdict.certainty
    assert report.sections[0].tables[1].rows[0][3:] == ["2 to 4", "2 to 4"]
    of_inputs = {row[1]: row[2] for row in report.sections[1].tables[0].rows}
    assert of_inputs == {
        **{"attention 0": "1", "MLP 0": "2", "attention 1": "2 to 3"},
        **{"MLP 1": "2 to 4", "unembedding": "2 to 4"},
    }
    for task in study.tasks():
        if isinstance(task, tasks.Truncate):
            results[task]["increases"][..., 1] = 1.0
    assert "of gpt2 is 5 of 5 sublayers" in study.report(results).verdict.headline


def test_texts_have_the_last_part_of_a_path_if_it_tells_the_models_apart(home, tmp_path):
    shutil.copytree(home / "gpt2", tmp_path / "gpt2")
    alike, apart = ((str(home / "gpt2"), str(other)) for other in (tmp_path / "gpt2", home / "run"))
    assert [one.name for one in LayerHorizon(apart, **SMALL)._models.values()] == ["gpt2", "run"]
    assert tuple(one.name for one in LayerHorizon(alike, **SMALL)._models.values()) == alike


def test_equal_horizons_of_all_variants_are_one_number(done):
    study, results = done
    sharp = LayerHorizon(study.model, study.steps, tolerance=1e6, **SMALL)
    assert "In all 36 variants, the horizon of run is 1." in sharp.report(results).verdict.certainty


@pytest.fixture(scope="module")
def of_neox(home, tmp_path_factory):
    """The report on a random GPT-NeoX of `transformers`, which has 3 parallel layers, and its study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        settings = SMALL | {"fillers": ("mean",), "position_0": ("truncated",), "text_config": str(home / "text.yaml")}
        study = LayerHorizon((str(home / "neox"),), **settings)
        results = do_tasks(study, tmp_path_factory.mktemp("neox"))
        return study, results, study.report(results)


def test_attention_and_mlp_of_a_parallel_layer_are_one_sublayer(of_neox):
    _, _, report = of_neox
    assert report.subject == (
        "neox (3 layers, 3 sublayers: attention and MLP of a layer read the same stream and are one)"
    )
    numbers = report.sections[0].numbers["neox"]
    assert numbers["outputs"] == ["embedding", "layer 0", "layer 1", "layer 2"]
    assert report.verdict.numbers["neox"]["largest"] == 4
    assert {one["norm"] for one in numbers["variants"]} == {"recomputed", "frozen"}


def test_the_untrained_network_of_a_model_of_transformers_has_its_shape_and_other_weights(of_neox):
    study, results, report = of_neox
    (one,) = study._models.values()
    assert [row[0] for row in report.sections[0].tables[2].rows[2:]] == ["untrained, seed 0", "untrained, seed 1"]
    trained, *untrained = (clean.network("cpu").W_E for clean in (one.last, *one.untrained))
    assert {W_E.shape for W_E in (trained, *untrained)} == {(300, 16)}
    assert not torch.equal(*untrained)
    for clean in one.untrained:  # all tokens are about as likely at the beginning of training
        assert results[clean]["loss"] == pytest.approx(np.log(300), abs=0.1)
    assert results[one.last]["loss"].mean() > np.log(300) + 0.1


@pytest.mark.parametrize(
    ("model", "changed", "words"),
    [
        ("absent", {}, "absent"),
        ("sae", {}, "is a ReLUSAE; the study needs a language model"),
        ("flat", {}, "has no layer"),
        ("mute", {"text_config": "text.yaml"}, "has no tokenizer.json"),
        ("gpt2", {"steps": ("all",)}, "holds one step only; do not set steps"),
        ("gpt2", {"steps": ("5",)}, "holds one step only; do not set steps"),
        ("run", {"steps": ("0", "5")}, "has no step 5; it has 0, 4, 8"),
        ("run", {"steps": ("8", "4")}, "steps must be ascending"),
        ("run", {"steps": ("late",)}, "steps is late; expected whole numbers, or all"),
        ("gpt2", {"tolerance": 0.0}, "tolerance is 0"),
        ("gpt2", {"documents": 1}, "documents is 1; it must be at least 2"),
        ("gpt2", {"documents": 50}, "documents of at least 11 tokens, fewer than the 50 documents"),
        ("gpt2", {"ks": 1}, "ks is 1; it must be at least 2"),
        ("gpt2", {"length": 2}, "length is 2; it must be at least 3"),
        ("gpt2", {"readings": ("each",)}, "readings has 'each'; expected some of all, one, recursive"),
        ("gpt2", {"fillers": ("mean", "mean")}, "fillers has a value twice"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_computed(home, refused, model, changed, words):
    if "text_config" in changed:
        changed = {"text_config": str(home / changed["text_config"])}
    with refused(words):
        LayerHorizon((str(home / model),), **SMALL | changed).tasks()
