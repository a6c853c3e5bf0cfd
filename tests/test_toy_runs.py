import sys
from pathlib import Path

import pytest
import torch

import zoo
from zoo.__main__ import main
from zoo.cli import run
from zoo.models import UniversalGates

ROOT = Path(__file__).parents[1]
SMALL = {
    "pentagon": ["--data.n_seeds", "4"],
    "u_and_composed": ["--data.n_features", "16", "--model.d_mlp", "6", "--data.n_seeds", "2"],
    "skip_bigrams": ["--data.n_seeds", "2"],
}
QUIET = [
    *("--data.batch_size", "8", "--data.n_validation", "8", "--model.optimizer.decay_fraction", "0"),
    *("--trainer.enable_progress_bar", "false", "--trainer.logger", "false", "--trainer.accelerator", "cpu"),
    *("--trainer.val_check_interval", "2"),
]


def fit(monkeypatch, *args):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    assert run(["fit", *map(str, args)]) == 0


@pytest.mark.parametrize("name", SMALL)
def test_a_resumed_toy_ends_in_the_bits_of_one_that_was_never_interrupted(name, tmp_path, monkeypatch):
    args = ["--config", ROOT / "cli_configs" / "toy" / f"{name}.yaml", *QUIET, *SMALL[name]]
    fit(monkeypatch, *args, "--run_dir", tmp_path / "whole", "--trainer.max_steps", 6)
    fit(monkeypatch, *args, "--run_dir", tmp_path / "parts", "--trainer.max_steps", 3)
    fit(monkeypatch, "--ckpt_path", tmp_path / "parts" / "checkpoints" / "last.ckpt", "--trainer.max_steps", 6)
    whole, parts = (zoo.load(tmp_path / run_dir).state_dict() for run_dir in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    tables = [sorted((tmp_path / part).rglob("*.csv")) for part in ("whole", "parts")]
    assert tables[0]
    assert [t.read_text() for t in tables[0] if t.parent.name != "embedding_drift"] == [
        t.read_text() for t in tables[1] if t.parent.name != "embedding_drift"
    ]


def test_more_active_inputs_of_other_groups_or_none_at_all_are_refused(tmp_path, monkeypatch, capsys):
    from zoo.__main__ import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    for wrong, said in {
        "n_active=1": "never turns on the two inputs of a gate",
        "n_groups=2": "2 groups of inputs",
    }.items():
        config = ROOT / "cli_configs" / "toy" / "u_and.yaml"
        assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path), f"--data.active.{wrong}", *QUIET]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert said in line


@pytest.mark.parametrize("name", SMALL)
def test_a_toy_starts_from_the_weights_of_another_run(name, tmp_path, monkeypatch, capsys):
    args = ["--config", ROOT / "cli_configs" / "toy" / f"{name}.yaml", *QUIET, *SMALL[name], "--trainer.max_steps", 2]
    fit(monkeypatch, *args, "--run_dir", tmp_path / "first")
    source = ("--model.init_from", tmp_path / "first", "--run_dir", tmp_path / "second")
    still = (*args, *source, "--model.optimizer.learning_rate", 0, "--seed_everything", 5)
    fit(monkeypatch, *still)
    first, second = (zoo.load(tmp_path / run_dir).state_dict() for run_dir in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert main(["fit", *map(str, still), "--data.n_seeds", "3", "--run_dir", str(tmp_path / "third")]) == 2
    assert "in this run its shape is [" in capsys.readouterr().err


def test_a_toy_does_not_start_from_one_of_another_depth(tmp_path, refused):
    for depth, other in ((1, 2), (2, 1)):
        source = zoo.save(UniversalGates(8, 8, 4, depth=depth, n_groups=2).net, tmp_path / str(depth))
        with refused("is a GateNet with other tensors: only one of the two has stages.1"):
            UniversalGates(8, 8, 4, depth=other, n_groups=2, init_from=str(source))
