"""The study of perturbations, done on a tiny model and tiny autoencoders."""

import json

import numpy as np
import pytest
import torch
import yaml
from doing_studies import do_tasks
from small_corpus import make_corpus
from small_gpt2 import network

from zoo import checkpoints
from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE
from zoo.models import Dictionary, ReLUSAE, TopKSAE
from zoo.report import write
from zoo.running.folder import Cost, ResultsFolder
from zoo.shared_tasks.perturbations import ErrorEffects
from zoo.studies.perturbations import EXPERIMENTS, Perturbations
from zoo.study import Work, all_tasks

D = 16
SMALL = {
    **{"documents": 6, "length": 10, "positions": 20, "pairs": 12, "norms": (0.1, 1.0), "exponent_radii": (0.5,)},
    **{"sphere_positions": 4, "radii": (0.05, 0.5), "directions": 60, "atoms": 6, "starts": 2, "ascent_steps": 3},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a GPT-2, autoencoders of two of its layers, and autoencoders that do not fit."""
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
    told = {"config": {"data": part}, "corpus_fingerprint": data.corpus_fingerprint}
    (home / "text.yaml").write_text(yaml.safe_dump({"data": part}))
    checkpoints.save(network(**sizes), home / "gpt2", 5, told, data.tokenizer.to_str())

    def keep(net, name, model="gpt2", hook_name="blocks.1.hook_resid_pre"):
        checkpoints.save(net, home / name, 5, {"model": model, "hook_name": hook_name})

    def sae(seed, cls=TopKSAE, d=D, **options):
        torch.manual_seed(seed)
        return cls(d, 40, **options)

    keep(sae(0, k=4), "first")
    keep(sae(1, k=4), "first.null")
    keep(sae(2, k=4), "last", hook_name="blocks.1.hook_resid_post")
    keep(sae(3, k=4), "after", hook_name="blocks.0.hook_resid_post")
    keep(sae(4, d=8, k=4), "narrow")
    keep(sae(5, k=4), "other", model="gpt3")
    keep(sae(6, k=4), "of-scale", hook_name="ln_final.hook_scale")
    keep(sae(7, k=4), "deep", hook_name="blocks.7.hook_resid_pre")
    keep(Dictionary(D, 40, 0.1), "signed")
    checkpoints.save(sae(8, k=4), home / "mute", 5)
    identity = ReLUSAE(D, 2 * D)
    eye = torch.eye(D)
    identity.load_state_dict(
        {"W_dec": torch.cat([eye, -eye]), "W_enc": torch.cat([eye, -eye], 1), "b_enc": torch.zeros(2 * D)}
        | {"b_dec": torch.zeros(D), "scale": torch.ones(())}
    )
    keep(identity, "identity")
    return home


@pytest.fixture(autouse=True)
def _cache(home, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(home / "cache"))


def made(home, *saes, **changed):
    return Perturbations(str(home / "gpt2"), tuple(str(home / name) for name in saes), **SMALL | changed)


@pytest.fixture(scope="module")
def done(home, tmp_path_factory):
    """A study of two autoencoders, and its results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        study = made(home, "last", "first")
        return study, do_tasks(study, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def report(done):
    study, results = done
    return study.report(results)


def test_the_report_has_a_section_and_figures_of_every_experiment(report, tmp_path):
    assert [section.id for section in report.sections] == [*EXPERIMENTS, "comparisons"]
    write(report, tmp_path)
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted(
        [
            *("errors-all", "errors-at", "exponents", "exchange"),
            *(f"{kind}-{name}" for kind in ("support", "sphere") for name in ("first", "last")),
        ]
    )
    told = json.loads((tmp_path / "report.json").read_text())["sections"][0]["numbers"]
    assert [one["site"] for one in told.values()] == ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]


def test_the_verdict_is_in_words_with_sizes_and_says_what_was_not_tested(report):
    """Random autoencoders of an untrained network have no features along which errors could be corrected."""
    assert "seen in 2 of 2" not in report.verdict.headline
    assert "times as much as random errors with the same covariance" in report.verdict.headline
    assert "Holm's correction for all 6 comparisons" in report.verdict.certainty
    assert "Other models and texts" in report.verdict.not_tested
    assert "planted-perturbations" in report.verdict.recognised
    assert report.verdict.evidence.count("\n") == 3


def test_documents_and_tokens_stand_beside_every_interval(report):
    for section in report.sections:
        for table in section.tables:
            if not isinstance(table, str) and table.columns[0] == "autoencoder":
                assert list(table.columns[-2:]) == ["documents", "tokens"]
                assert all(row[-2] <= 6 <= 6 * 9 and row[-1] >= row[-2] for row in table.rows if row[-1])
    everywhere, at = report.sections[0].tables[1], report.sections[0].tables[4]
    assert [row[-2:] for row in (*everywhere.rows, *at.rows)] == [[6, 54]] * 2 + [[6, 20]] * 2


def test_only_autoencoders_with_a_null_twin_have_numbers_of_it(report):
    ends = report.sections[2].tables[5]
    twin = {row[0]: row[list(ends.columns).index("null twin")] for row in ends.rows}
    assert np.isfinite(twin["first"].mean)
    assert not np.isfinite(twin["last"].mean)


def test_kept_results_make_the_same_report_and_are_not_computed_again(done, home, tmp_path):
    study, results = done
    kept = ResultsFolder(tmp_path)
    kept.make()
    again = made(home, "first", "last")
    for task in all_tasks(again):
        kept.put(task, results[task], Cost(1.0, 1.0, "cpu", "here"))
    assert again.report(ResultsFolder(tmp_path)) == study.report(results)
    for task in again.tasks()[:4]:
        for name, value in task.do(Work(kept, tmp_path / "work")).items():
            assert np.array_equal(value, kept[task][name], equal_nan=True)


def test_a_changed_setting_changes_only_the_tasks_that_it_concerns(done, home):
    keys = {task.key for task in done[0].tasks()}
    more = {task.key: task for task in made(home, "first", "last", positions=21).tasks()}
    assert {type(task) for key, task in more.items() if key not in keys} == {ErrorEffects}
    assert {task.key for task in made(home, "first", "last", experiments=("sphere",)).tasks()} < keys


def test_the_error_of_an_identity_has_no_effect_and_no_ratio(home, tmp_path):
    study = made(home, "identity", experiments=("errors",))
    section = study.report(do_tasks(study, tmp_path)).sections[0]
    (row,) = section.tables[1].rows
    assert row[1] == 0
    assert row[2].startswith("0 [0, 0]")
    assert "| - | - | - | - |" in section.tables[1].markdown()


def test_the_stream_after_a_layer_is_that_before_the_next(home):
    study = made(home, "after", "first", "mute", layer=1)
    assert {coder.site for coder in study._coders} == {"blocks.1.hook_resid_pre"}
    (coder,) = made(home, "last", layer=2)._coders
    assert coder.site == "blocks.1.hook_resid_post"


@pytest.mark.parametrize(
    ("saes", "changed", "words"),
    [
        (("absent",), {}, "absent"),
        ((), {}, "no shipped autoencoder has a name like sae-resid"),
        (("gpt2",), {}, "is a GPT2; the study needs an autoencoder or a dictionary"),
        (("narrow",), {}, "has atoms of 8 dimensions; activations of .*gpt2 have 16"),
        (("other",), {}, "is an autoencoder of gpt3, not of .*gpt2"),
        (("first",), {"layer": 2}, "of blocks.1.hook_resid_pre, not of blocks.1.hook_resid_post"),
        (("first",), {"layer": 1, "site": "mlp_out"}, "of blocks.1.hook_resid_pre, not of blocks.1.hook_mlp_out"),
        (("first",), {"layer": 3}, "there is no layer 3"),
        (("mute",), {"layer": 1, "site": "mlp"}, "the model has no site blocks.1.hook_mlp"),
        (("deep",), {}, "the model has no site blocks.7.hook_resid_pre"),
        (("of-scale",), {}, "needs a site blocks.L.hook_"),
        (("mute",), {}, "does not tell the site of its activations; set layer"),
        (("signed",), {}, "has codes of both signs; measure it with --experiments errors sphere"),
        (("first",), {"documents": 1}, "documents is 1; it must be at least 2"),
        (("first",), {"documents": 5000}, "at least 2 documents and 5000 windows are needed"),
        (("first",), {"radii": (0.0, 0.5)}, "radii is 0.0; it must be above 0"),
        (("first",), {"ascent_radius": 0.0}, "ascent_radius is 0.0; it must be above 0"),
        (("first",), {"norms": (0.5, 0.1)}, "norms must be ascending"),
        (("first",), {"norms": (0.1, 0.1)}, "norms has a value twice"),
        (("first",), {"positions": 49}, "positions is 49; 6 documents of 10 tokens have 48"),
        (("first",), {"experiments": ("all",)}, "experiments has 'all'; expected some of errors, support"),
        (("first",), {"length": 3}, "length is 3; it must be at least 4"),
        (("first",), {"steps": ("5",)}, "do not set sae as well"),
        ((), {"steps": ("7",)}, "has no step 7|holds one step only"),
        ((), {"steps": ("5", "1")}, "steps must be ascending"),
        ((), {"train_layers": (3,)}, "there is no layer 3"),
        ((), {"train_layers": (1,), "active": 40}, "active is 40; it must be at most half of 64 latents"),
        (("first",), {"site": "resid_pre"}, "site is set without layer"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_computed(home, refused, saes, changed, words):
    with refused(words):
        made(home, *saes, **changed).tasks()


def test_an_autoencoder_is_not_a_model(home, refused):
    with refused("is a TopKSAE; the study needs a language model"):
        Perturbations(str(home / "first"), **SMALL).tasks()
