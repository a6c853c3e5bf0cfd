import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_gpt2 import network

from zoo import estimates, report
from zoo.__main__ import main
from zoo.compare import compare, differing, names
from zoo.compare_studies import unpaired_difference
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict

A, B = np.random.default_rng(0).normal(1, 0.5, 6), np.random.default_rng(1).normal(2, 2, 4)


def study(folder, values, source, kind="mine", **settings):
    """A finished study whose only number is the mean of some values."""
    mean = estimates.mean(values)
    table = Table(["measure", "embedding", "count"], [["error", mean, 3], ["share", 0.25, 4], ["none", None, 5]])
    x = [1, 2]
    series = [Series.of(name, x, [mean, mean]) for name in ("embedding", "null", "third", "fourth")]
    charts = [
        Chart("errors", "Errors", series, "L0", "FVU", log_x=True),
        Chart("places", "Places", [Series("a", [0.0], [1.0], "points")], map=True),
        Chart(f"of-{source}", "Only here", [Series("a", [0.0], [1.0], "points")]),
    ]
    section = Section("errors", "How large?", "So.", tables=[table], charts=charts)
    verdict = Verdict(
        f"It is {mean}.", "", numbers={"error": mean, "case": f"case {source}", "null_model": {"error": mean}}
    )
    made = Report(f"{source}: rows. More.", verdict, [section], kind, "?", "python", {"source": source, **settings})
    report.write(made, folder)
    return str(folder)


def run(folder, losses, config, metrics, step=4):
    """The folder of a training run: TensorBoard's file, and the last checkpoint."""
    from torch.utils.tensorboard import SummaryWriter

    (folder / "checkpoints").mkdir(parents=True)
    with SummaryWriter(str(folder)) as writer:
        for at, value in enumerate(losses):
            writer.add_scalar("val/loss", value, 10 * at)
            writer.add_scalar("epoch", 0, 10 * at)
    provenance = {"seed": 0, "config": config, "metrics": metrics}
    part = {"class": "GPT2", "init_args": network().config, "step": step, "provenance": provenance}
    torch.save({"state_dict": {}, "zoo": part}, folder / "checkpoints" / "last.ckpt")
    return str(folder)


def test_the_difference_of_two_studies_has_the_interval_of_welch():
    found = unpaired_difference(estimates.mean(A), estimates.mean(B))
    peer = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((B.mean() - A.mean(), peer.low, peer.high))
    cut = unpaired_difference(estimates.mean(A, least=A.mean() - 1e-6), estimates.mean(B))
    assert (cut.low, cut.high) == pytest.approx((peer.low, peer.high))  # the side that is not cut off counts
    assert math.isnan(unpaired_difference(Estimate(1, 0, 2), estimates.mean(B)).low)
    assert unpaired_difference(Estimate(1, 1, 1, 3), Estimate(3, 3, 3, 3)) == Estimate(2, 2, 2, 3)


def test_two_studies_are_on_one_page(tmp_path, capsys):
    folders = [study(tmp_path / "a" / "s", A, "one", seeds=3), study(tmp_path / "b" / "s", B, "two", seeds=4)]
    assert main(["compare", *folders, "--out", str(tmp_path / "out")]) == 0
    assert "report.html" in capsys.readouterr().out
    told = report.read(tmp_path / "out")
    assert told["verdict"]["headline"] == "a/s: case one; b/s: case two."
    assert "| a/s | one: rows | It is" in told["verdict"]["evidence"]
    sections = {section["id"]: section for section in told["sections"]}
    peer = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    for part, key in (("verdict", "error"), ("verdict", "null model, error"), ("errors", "error: embedding")):
        gap = sections[part]["numbers"][key]["differences"]["b/s"]
        assert (gap["low"], gap["high"]) == pytest.approx((peer.low, peer.high))
    assert set(sections["errors"]["numbers"]) == {"error: embedding", "share: embedding"}
    [chart] = sections["errors"]["charts"]
    assert (chart["name"], chart["log_x"], chart["x_label"], chart["y_label"]) == ("errors", True, "L0", "FVU")
    kinds = ["embedding", "null", "third"]
    assert [s["name"] for s in chart["series"]] == [f"{name}: {kind}" for kind in kinds for name in ("a/s", "b/s")]
    assert [s["y"][0] for s in chart["series"]] == pytest.approx([A.mean(), B.mean()] * 3)
    assert "the first 3 are drawn" in chart["caption"]
    assert sections["settings"]["numbers"]["differing"] == {"source": ["one", "two"], "seeds": [3, 4]}
    assert (tmp_path / "out" / "figures" / "errors.png").is_file()
    assert (tmp_path / "out" / "tables" / "errors.csv").is_file()


def test_studies_of_one_source_have_differences_without_intervals(tmp_path):
    folders = [study(tmp_path / name, values, "one", steps=n) for name, values, n in (("a", A, 1), ("b", B, 2))]
    compare(folders, str(tmp_path / "out"))
    told = report.read(tmp_path / "out")
    assert "a source or their random seeds in common" in told["verdict"]["certainty"]
    gap = told["sections"][0]["numbers"]["error"]["differences"]["b"]
    assert gap == pytest.approx(B.mean() - A.mean())


def test_two_runs_are_on_one_page(tmp_path):
    config = {"trainer": {"max_steps": 4, "default_root_dir": "x"}, "model": {"width": 2, "all": [1]}, "run_dir": "x"}
    other = {"trainer": {"max_steps": 8, "default_root_dir": "y"}, "model": {"width": 2, "all": [1, 2], "new": None}}
    other |= {"run_dir": "y", "data": {"seed": 1}}
    a = run(tmp_path / "a", [3.0, 2.0], config, {"val/loss": 2.0, "train/loss": 1.5})
    b = run(tmp_path / "b", [3.5, 1.0, 0.5], other, {"val/loss": 0.5}, step=8)
    compare([a, b], str(tmp_path / "out"))
    sections = {section["id"]: section for section in report.read(tmp_path / "out")["sections"]}
    [chart] = sections["curves"]["charts"]
    assert chart["title"] == "val/loss"
    assert {s["name"]: (s["x"], s["y"]) for s in chart["series"]} == {
        "a": ([0, 10], [3.0, 2.0]),
        "b": ([0, 10, 20], [3.5, 1.0, 0.5]),
    }
    [table] = sections["end"]["tables"]
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert rows["val/loss"] == [2.0, 0.5, -1.5]
    assert rows["train/loss"] == [1.5, None, None]
    assert rows["steps"] == [4, 8, None]
    expected = {"trainer.max_steps": [4, 8], "model.all": [[1], [1, 2]], "data.seed": [None, 1]}
    assert sections["settings"]["numbers"]["differing"] == expected


def test_only_what_differs_is_told_and_names_are_as_short_as_they_can_be(tmp_path):
    assert differing({"a": {"x": {"y": 1, "z": 2}}, "b": {"x": {"y": 1, "z": 3}}, "c": {"x": {"y": 1}}}) == {
        "x.z": [2, 3, None]
    }
    assert differing({"a": {"x": 1}, "b": {"x": 1}}) == {}
    assert names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert names([tmp_path / "a" / "s", tmp_path / "b" / "s"]) == ["a/s", "b/s"]


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, refused, capsys):
    one, two = study(tmp_path / "one", A, "one"), study(tmp_path / "two", B, "two")
    other = study(tmp_path / "other", A, "one", kind="another")
    trained = run(tmp_path / "run", [1.0], {}, {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    out = str(tmp_path / "out")
    for folders, message in (
        ([one], "needs two or more folders, but only .*one is given"),
        ([one, f"{one}/../one"], "is given twice"),
        ([one, str(tmp_path / "empty")], "empty has no results"),
        ([one, str(tmp_path / "none")], "none is not a folder"),
        ([trained, str(tmp_path / "begun")], "begun has no results: the run has no checkpoints/last.ckpt"),
        ([one, trained], "only studies or only runs can be compared, but .*one is a study, .*run is a run"),
        ([one, other], "one is the study mine, other is the study another"),
    ):
        with refused(message):
            compare(folders, out)
    with refused("--out .*two is one of the folders that are compared"):
        compare([one, two], two)
    assert json.loads((tmp_path / "two" / "report.json").read_text())["study"] == "mine"
    assert not (tmp_path / "out").exists()
    assert main(["compare", one, "--out", out]) == 2
    assert "\n" not in capsys.readouterr().err.strip()
