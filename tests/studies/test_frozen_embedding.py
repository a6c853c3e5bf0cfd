import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from doing_studies import answer
from killed_runs import forked
from processes import ROOT
from small_gpt2 import network

from zoo import checkpoints, embedding, study_command, training_process
from zoo.__main__ import main
from zoo.callbacks import tables_and_pictures
from zoo.errors import ZooError
from zoo.studies.frozen_embedding import ROWS, FrozenEmbedding, TrainingRun, steps_to_reach
from zoo.study import Work, all_tasks

LEARNED = np.arange(12.0).reshape(6, 2)


@pytest.fixture
def fit_arguments(tmp_path, tiny_corpus, monkeypatch):
    """Of runs that take a second, apart from their start."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return (
        *("--model.d_model", "16", "--model.n_layers", "1", "--data.context_length", "16", "--data.batch_size", "4"),
        *("--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{tiny_corpus}]", "--data.val_fraction", "0.15"),
        *("--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300", "--data.test_fraction", "0.15"),
        *("--trainer.max_steps", "20", "--trainer.val_check_interval", "10", "--trainer.limit_val_batches", "2"),
        "--trainer.callbacks+=LastCheckpoint",
        *("--trainer.callbacks.every_n_steps", "10"),
    )


@pytest.fixture
def study(tmp_path):
    """Makes a study whose config is in a temporary folder."""

    def make(**settings):
        (tmp_path / "base.yaml").write_text("seed_everything: 0\n")
        (tmp_path / "child.yaml").write_text("base: base.yaml # of this folder\nseed_everything: 1\n")
        return FrozenEmbedding(str(tmp_path / "child.yaml"), **{"seeds": 2} | settings)

    return make


def finished(study, ends):
    """Results of runs whose loss falls from 6 at step 100 to 4 + seed at 200 and to an end that is given by arm."""
    found = {}
    for task in all_tasks(study):
        end = ends.get((task.rows, task.tied), ends.get(task.rows, 3.0))
        curve = [[100, 6.0], [200, 4.0 + task.seed], [300, end + task.seed]]
        found[task] = {"curve": curve, "text": "a", "W_E": LEARNED}
    return found


@pytest.mark.parametrize(("loss", "step"), [(5.0, 100), (4.5, 150), (4.0, 200), (3.0, 250), (6.0, 100), (1.9, np.inf)])
def test_steps_to_reach_a_loss_are_read_off_the_curve(loss, step):
    curve = np.array([[100, 5.0], [200, 4.0], [300, 2.0]])
    assert steps_to_reach(curve, loss) == pytest.approx(step)


def test_runs_on_different_texts_are_not_compared(study):
    tried = study(arms=("learned", "frozen Gaussian"))
    results = finished(tried, {})
    task = next(iter(results))
    results[task] = results[task] | {"text": "b"}
    report = tried.report(results)
    assert "trained on different texts" in report.sections[0].finding
    assert (report.sections[0].tested, report.verdict.numbers) == (False, {})


def test_gaps_are_paired_by_seed_and_against_the_learned_arm_that_starts_as_long(study):
    tried = study(arms=(*ROWS, "frozen copied"))
    ends = {"learned, std 0.09": 2.5, "frozen Gaussian": 3.5, "frozen Gaussian, std 0.09": 2.75, "frozen copied": 4.5}
    ends |= {("frozen Gaussian", "tied"): 6.0, ("frozen Gaussian, std 0.09", "tied"): 5.0}
    report = tried.report(finished(tried, ends))
    arms = {(arm["rows"], arm["tied"]): arm for arm in report.verdict.numbers["arms"]}
    assert len(arms) == 11
    assert ("learned, std 0.09", "tied") not in arms
    gaps = {key: arm["gap"] and arm["gap"].mean for key, arm in arms.items()}
    assert gaps["learned", "untied"] is gaps["learned", "tied"] is None
    assert gaps["frozen Gaussian", "untied"] == 0.5
    assert gaps["frozen Gaussian, std 0.09", "untied"] == 0.25
    assert arms["frozen Gaussian, std 0.09", "untied"]["baseline"] == "learned, std 0.09"
    assert gaps["frozen Gaussian, std 0.09", "tied"] == 2
    assert arms["frozen Gaussian, std 0.09", "tied"]["baseline"] == "learned"
    assert arms["frozen Gaussian", "untied"]["gap"].low == arms["frozen Gaussian", "untied"]["gap"].high  # paired
    assert arms["frozen Gaussian", "untied"]["loss"].mean == 4
    assert arms["frozen Gaussian", "untied"]["share_of_training"].mean == pytest.approx(250 / 300)
    assert arms["learned, std 0.09", "untied"]["share_of_training"] is None
    assert report.verdict.numbers["cheapest"] == "frozen low-coherence"  # as good as the learned ones
    assert report.verdict.numbers["trained_shape"] == [6, 2]


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (0.5, "more than the margin of 0.125"),
        (0.125, "no more than the margin of 0.125"),
        (0.0, "no more than the margin of 0.125"),
    ],
)
def test_the_headline_names_the_cheapest_random_rows_and_whether_they_cost_much(study, cost, words):
    arms = ("learned", "frozen Gaussian", "frozen norm-matched", "frozen covariance-matched", "frozen copied")
    tried = study(arms=arms, unembedding=("untied",), margin=0.125)
    ends = {"frozen Gaussian": 4.0, "frozen norm-matched": 3 + cost, "frozen covariance-matched": 3.25}
    report = tried.report(finished(tried, ends))
    difference = f"{cost:.3f} [{cost:.3f}, {cost:.3f}] nats"
    told = f"(frozen norm-matched) is {difference} above that with a learned embedding, which is "
    assert f"{told}{words}." in report.verdict.headline
    [section] = report.sections
    assert section.id == "frozen-embedding"
    assert section.finding.startswith(report.verdict.headline)
    assert "is therefore worth 0.250 [0.250, 0.250] nats" in section.finding
    assert [chart.name for chart in section.charts] == ["frozen-embedding-loss-untied", "frozen-embedding-gap-untied"]
    assert report.verdict.numbers["gap"].mean == pytest.approx(cost)


def test_a_loss_that_the_learned_run_never_had_is_not_reached_and_one_from_before_its_first_point_is_a_bound(study):
    tried = study(arms=("learned", "frozen Gaussian"))
    report = tried.report(finished(tried, {("frozen Gaussian", "untied"): 2.0, ("frozen Gaussian", "tied"): 7.0}))
    reached = {(row[0], row[1]): row[-1] for row in report.sections[0].tables[0].rows}
    assert reached["untied", "frozen Gaussian"] == "not reached"
    assert reached["tied", "frozen Gaussian"] == "less than 0.33 of the steps"
    assert reached["tied", "learned"] == "-"


def test_rows_made_from_learned_ones_need_the_learned_run_of_the_next_seed(study):
    tried = study(arms=("learned", "frozen copied"), unembedding=("tied",), seeds=3)
    copied = [task for task in tried.tasks() if task.rows == "frozen copied"]
    assert [task.needs()[0].seed for task in copied] == [1, 2, 0]
    assert {(task.needs()[0].rows, task.needs()[0].tied) for task in copied} == {("learned", "tied")}
    assert len(all_tasks(tried)) == 6


def test_a_run_is_named_by_what_its_configs_hold_and_not_by_where_they_are(study, tmp_path):
    before = [task.key for task in study().tasks()]
    assert study().tasks()[0].configs[1] == "base: null # of this folder\nseed_everything: 1\n"
    (tmp_path / "other").mkdir()
    for name in ("base.yaml", "child.yaml"):
        (tmp_path / "other" / name).write_text((tmp_path / name).read_text())
    moved = FrozenEmbedding(str(tmp_path / "other" / "child.yaml"), seeds=2)
    assert [task.key for task in moved.tasks()] == before
    (tmp_path / "other" / "base.yaml").write_text("seed_everything: 2\n")
    assert not {task.key for task in FrozenEmbedding(str(tmp_path / "other" / "child.yaml"), seeds=2).tasks()} & {
        *before
    }


def test_the_training_of_a_shipped_checkpoint_is_a_config_without_its_folders():
    (config,) = FrozenEmbedding("gpt2-mini.learned").tasks()[0].configs
    assert "FrozenEmbeddingGPT2" in config
    assert not re.search("run_dir|cache_dir|default_root_dir", config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 1}, "seeds is 1; it must be"),
        (
            {"arms": ("learned", "frozen gaussian")},
            "arms cannot contain 'frozen gaussian'; did you mean 'frozen Gaussian'",
        ),
        ({"arms": ("frozen Gaussian",)}, "arms must contain 'learned'"),
        ({"arms": ("learned", "learned")}, "each value may be given only once"),
        ({"unembedding": ()}, "unembedding is empty"),
        ({"unembedding": ("both",)}, "unembedding cannot contain 'both'; possible values: 'untied', 'tied'"),
        ({"margin": -1.0}, "margin is -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(study, refused, settings, words):
    with refused(words):
        study(**settings)


def test_a_config_that_cannot_be_had_is_refused_before_anything_is_done(tmp_path, refused):
    with refused("'missing.yaml' cannot be read"):
        FrozenEmbedding("missing.yaml").tasks()
    checkpoints.save(network(), tmp_path / "untold", 5)
    with refused("untold does not say how it was made; name a config"):
        FrozenEmbedding(str(tmp_path / "untold")).tasks()


def test_the_command_line_takes_a_config_of_fit_or_settings_as_config_and_what_stands_after_dashes(study, tmp_path):
    study()
    (tmp_path / "settings.yaml").write_text("arms: [learned, frozen copied]\nfit_config: other.yaml\n")
    words = ["--out", "x", "--arms", "learned", "frozen Gaussian", "--config", str(tmp_path / "child.yaml")]
    made = study_command._parse(FrozenEmbedding, "frozen-embedding", words, ["--trainer.max_steps", "3"])[1]
    assert made.arms == ("learned", "frozen Gaussian")
    assert made.fit_config == str(tmp_path / "child.yaml")
    assert made.fit_arguments == ("--trainer.max_steps", "3")
    words = ["--out", "x", "--config", str(tmp_path / "settings.yaml"), "--seeds", "4"]
    made = study_command._parse(FrozenEmbedding, "frozen-embedding", words, None)[1]
    assert made == FrozenEmbedding("other.yaml", ("learned", "frozen copied"), seeds=4)


@pytest.fixture
def _forked(monkeypatch):
    """Runs are forks of this process, which need not import everything."""

    def run(words, stdout, stderr, env):
        def fit():
            os.environ.update(env)
            tables_and_pictures.render = lambda figure: np.zeros((1, 1, 4), np.uint8)  # most of the time
            return main(words[3:])

        return subprocess.CompletedProcess(words, forked(Path(stdout.name), fit))

    monkeypatch.setattr(training_process.subprocess, "run", run)


@pytest.mark.usefixtures("_forked")
def test_a_run_that_fails_says_why_and_where_more_stands(tmp_path, refused):
    run = TrainingRun(("model: 3\n",), "learned", "tied", 0, ())
    with refused(r"^[^:]*model.*; see .*log\.txt"):
        run.do(Work({}, tmp_path / "task"))
    assert "error: " in (tmp_path / "task" / "log.txt").read_text()


@pytest.mark.usefixtures("_forked")
@pytest.mark.parametrize("rows", ["learned", "frozen copied"])
def test_a_killed_run_goes_on_to_the_same_numbers_even_in_another_place(tmp_path, fit_arguments, rows):
    configs = (Path("cli_configs/gpt2/base.yaml").read_text(),)
    kill = ("--trainer.callbacks+=killed_runs.SignalAt", "--trainer.callbacks.signums", "[9]")
    kill += ("--trainer.callbacks.hook", "on_train_batch_end", "--trainer.callbacks.step", "15")
    other = TrainingRun(configs, "learned", "untied", 1, fit_arguments)
    results = {other: {"W_E": np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)}}
    run, killed = (
        TrainingRun(configs, rows, "untied", 0, (*fit_arguments, *more), None if rows == "learned" else other)
        for more in ((), kill)
    )
    whole = run.do(Work(results, tmp_path / "whole"))
    with pytest.raises(ZooError, match=r"ended by signal 9; see .*log\.txt"):
        killed.do(Work(results, tmp_path / "killed"))
    assert (tmp_path / "killed" / "run" / "checkpoints" / "last.ckpt").exists()
    (tmp_path / "killed").rename(tmp_path / "moved")
    resumed = run.do(Work(results, tmp_path / "moved"))
    assert [step for step, _ in whole["curve"]] == [10, 20]
    assert resumed["curve"] == whole["curve"]
    rows_of = [embedding(tmp_path / name / "run").numpy() for name in ("whole", "moved")]
    assert np.array_equal(*rows_of)
    assert np.array_equal(rows_of[0], (results[other] if run.needs() else whole)["W_E"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_frozen_tied_embeddings_cost_most(tmp_path, fit_arguments, monkeypatch):
    monkeypatch.setitem(ROWS, "frozen low-coherence", (*ROWS["frozen low-coherence"][:-1], "0.97"))
    more = ("--trainer.max_steps", "200", "--trainer.val_check_interval", "100", "--trainer.limit_val_batches", "10")
    arms = ("learned", "frozen Gaussian", "frozen low-coherence")
    study = FrozenEmbedding(arms=arms, seeds=2, fit_arguments=(*fit_arguments, *more))
    gaps = {(arm["rows"], arm["tied"]): arm["gap"] for arm in answer(study, tmp_path).verdict.numbers["arms"]}
    for rows in ("frozen Gaussian", "frozen low-coherence"):
        assert gaps[rows, "tied"].mean > gaps[rows, "untied"].mean > 0
