import json
from pathlib import Path

import numpy as np
import pytest

from zoo.studies.frozen_embedding import ARMS, ROWS, interval, run, steps_to_reach

ROOT = Path(__file__).parents[2]


def test_interval_is_students_t():
    # Three values with standard error 1: t(0.975, 2) = 4.302653
    found = interval(np.array([10 - 3**0.5, 10, 10 + 3**0.5]))
    assert found["mean"] == pytest.approx(10)
    assert found["high"] - 10 == pytest.approx(4.302653, rel=1e-6)
    assert 10 - found["low"] == pytest.approx(4.302653, rel=1e-6)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    samples = [interval(rng.normal(size=3)) for _ in range(4000)]
    covered = np.mean([s["low"] <= 0 <= s["high"] for s in samples])
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


@pytest.mark.parametrize(("loss", "step"), [(5.0, 100), (4.5, 150), (4.0, 200), (3.0, 250), (6.0, 100), (1.9, np.inf)])
def test_steps_to_reach_a_loss_are_read_off_the_curve(loss, step):
    curve = np.array([[100, 5.0], [200, 4.0], [300, 2.0]])
    assert steps_to_reach(curve, loss) == pytest.approx(step)


def test_one_seed_is_refused_since_it_has_no_interval(tmp_path, refused):
    with refused("at least 2"):
        run("cli_configs/gpt2/base.yaml", tmp_path, seeds=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_study_runs_resumes_and_finds_that_a_frozen_tied_embedding_costs_most(
    tmp_path, tiny_corpus, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    extra = ["--model.d_model", "16", "--model.n_layers", "1", "--data.context_length", "16", "--data.batch_size", "4"]
    extra += ["--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{tiny_corpus}]", "--data.val_fraction", "0.15"]
    extra += ["--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300", "--data.test_fraction", "0.15"]
    extra += ["--trainer.max_steps", "200", "--trainer.val_check_interval", "100", "--trainer.limit_val_batches", "10"]
    extra += ["--trainer.accelerator", "cpu"]
    config, out = "cli_configs/gpt2/base.yaml", tmp_path / "study"
    monkeypatch.setitem(ROWS, "frozen low-coherence", [*ROWS["frozen low-coherence"][:-1], "0.97"])
    results = run(config, out, seeds=2, jobs=2, extra=extra)
    gaps = {(arm["rows"], arm["tied"]): arm["gap"] for arm in results["arms"]}
    assert set(gaps) == set(ARMS)
    for rows in ("frozen Gaussian", "frozen low-coherence"):
        assert gaps[rows, "tied"]["mean"] > gaps[rows, "untied"]["mean"] > 0
    assert gaps["learned", "tied"] is None
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "curves.png").stat().st_size > 10_000
    logs = {path: path.read_bytes() for path in out.rglob("log.txt")}
    assert run(config, out, seeds=2, jobs=2, extra=extra) == results
    assert {path: path.read_bytes() for path in out.rglob("log.txt")} == logs
