"""`~` and `$VARIABLE` mean the same wherever a path is written."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import zoo
from zoo.__main__ import main
from zoo.config_files import expand_configs
from zoo.datamodules import EmbeddingRowsDataModule, LocalFiles, TextDataModule, TokenizerFile, TrainedBPE
from zoo.datamodules.activation_store import ActivationStore
from zoo.models import GPT2
from zoo.paths import expanded
from zoo.rebuild import rebuild
from zoo.running.folder import ResultsFolder

ROOT = Path(__file__).parents[1]
TOY = ("--config", str(ROOT / "cli_configs" / "toy" / "pentagon.yaml"), "--data.n_seeds", "2", "--data.batch_size", "8")
QUICK = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.accelerator", "cpu")
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "null")


@pytest.fixture(params=["~", "$PLACE"])
def place(request, tmp_path, monkeypatch):
    """A folder as a user may write it; the current folder is another one, in which nothing may appear."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    for variable in ("HOME", "PLACE"):
        monkeypatch.setenv(variable, str(home))
    yield request.param
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("place", ["~"], indirect=True)
def test_a_finished_run_is_not_overwritten_however_its_folder_is_written(place, tmp_path, capsys):
    fit = ("fit", *TOY, *QUICK, *QUIET)
    assert main([*fit, f"--run_dir={place}/r"]) == 0
    last = tmp_path / "home" / "r" / "checkpoints" / "last.ckpt"
    saved = last.read_bytes()
    assert main([*fit, "--run_dir", f"{place}/r", "--seed_everything", "1"]) == 2
    assert f"{tmp_path / 'home' / 'r'} holds a run already" in capsys.readouterr().err
    assert last.read_bytes() == saved
    for again in ([f"--run_dir={place}/r", "--ckpt_path=last"], ["--ckpt_path", f"{place}/r/checkpoints/last.ckpt"]):
        assert main(["fit", *again, *QUIET, "--trainer.max_steps", "3"]) == 0
        left = sorted((tmp_path / "home" / "r").rglob("*"))
    assert "is complete, with 3 steps" in capsys.readouterr().out
    assert main(["fit", *again, *QUIET, "--trainer.max_steps", "3"]) == 0
    assert sorted((tmp_path / "home" / "r").rglob("*")) == left


@pytest.mark.parametrize("place", ["$PLACE"], indirect=True)
def test_paths_within_a_config_are_read_as_on_the_command_line(place, tmp_path, capsys):
    home = tmp_path / "home"
    (home / "base.yaml").write_text((ROOT / "cli_configs" / "toy" / "base.yaml").read_text("utf-8"), "utf-8")
    pentagon = yaml.safe_load((ROOT / "cli_configs" / "toy" / "pentagon.yaml").read_text("utf-8"))
    config = pentagon | {"base": f"{place}/base.yaml", "run_dir": f"{place}/r"}
    (home / "mine.yaml").write_text(yaml.safe_dump(config), "utf-8")
    files = expand_configs(["fit", "--config", f"{place}/mine.yaml"])
    assert files == ["fit", "--config", str(home / "base.yaml"), "--config", str(home / "mine.yaml")]
    fit = ("fit", "--config", f"{place}/mine.yaml", *TOY[2:], *QUICK, *QUIET)
    assert main([*fit]) == 0
    assert main([*fit, "--seed_everything", "1"]) == 2
    assert f"{home / 'r'} holds a run already" in capsys.readouterr().err


def test_folders_that_are_written_are_those_that_are_checked(place, tmp_path, refused):
    home = tmp_path / "home"
    net = GPT2(50, 12, 16, 1, n_heads=2)
    assert zoo.save(net, f"{place}/model") == home / "model"
    assert main(["export", f"{place}/model", f"{place}/copy"]) == 0
    assert zoo.load(f"{place}/copy").W_E.equal(net.W_E)
    assert main(["export", f"{place}/model", f"{place}/model"]) == 2
    (home / "taken").mkdir()
    (home / "taken" / "letter.txt").touch()
    with refused("holds other files"):
        zoo.save(net, f"{place}/taken")
    with refused("does not say how it was made"):
        rebuild(f"{place}/copy", f"{place}/again")


def test_a_study_writes_where_a_run_would(place, tmp_path):
    (tmp_path / "home" / "s" / "runs").mkdir(parents=True)
    (tmp_path / "home" / "s" / "settings.json").write_text("{}")  # a study with other settings
    assert main(["study", "planted-atoms", "--out", f"{place}/s"]) == 2
    assert main(["study", "embedding", f"--out={place}/s", "--train", f"{place}/nowhere.yaml"]) == 2


def test_data_are_found_wherever_a_run_would_find_them(place, tmp_path, tiny_corpus):
    home = tmp_path / "home"
    tiny_corpus.rename(home / "corpus")
    corpus = LocalFiles([f"{place}/corpus"])
    data = TextDataModule(
        corpus, TrainedBPE(300), 16, 4, cache_dir=f"{place}/cache", val_fraction=0.15, test_fraction=0.15
    )
    data.prepare_data()
    data.setup()
    assert any((home / "cache").rglob("train.bin"))
    data.tokenizer.save(str(home / "tokenizer.json"))
    assert TokenizerFile(f"{place}/tokenizer.json").vocab_size == 300
    np.save(home / "rows.npy", np.eye(5, 3, dtype=np.float32))
    np.save(home / "counts.npy", np.arange(1, 6))
    rows = EmbeddingRowsDataModule(f"{place}/rows.npy", token_counts=f"{place}/counts.npy", val_fraction=0.2)
    assert len(rows.row_labels) == 5
    assert rows.row_counts.tolist() == [1, 2, 3, 4, 5]


def test_a_variable_that_is_not_set_stays_as_it_is_written(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    assert expanded("a/$NOWHERE/b") == Path("a/$NOWHERE/b")
    assert str(expanded("~")) == os.environ["HOME"]


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda corpus: TextDataModule(corpus, TrainedBPE(300), 16, 4).prepare_data(), "ZOO_CACHE"),
        (lambda corpus: ActivationStore(Path("/proc/nowhere/a"), "").save("x", torch.zeros(1)), "data.activations_dir"),
        (lambda corpus: ResultsFolder(Path("/proc/nowhere/s")).make(), "--out"),
    ],
    ids=["tokens", "activations", "a study"],
)
def test_a_folder_that_cannot_be_made_is_named_with_what_sets_it(make, setting, monkeypatch, tiny_corpus, refused):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    with refused(f"folder /proc/nowhere/.* cannot be made: No such file or directory; .*{setting}"):
        make(LocalFiles([str(tiny_corpus)]))
