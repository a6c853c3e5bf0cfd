"""The package as `pip install` leaves it: a wheel in a folder, used from an empty folder, without the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small_corpus import make_corpus

ROOT = Path(__file__).parents[1]
PARTS = ("zoo", "models", "datamodules", "callbacks", "cli_configs")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
SMALL = (
    *("--data.corpus", "LocalFiles", "--data.corpus.paths", "[corpus]", "--data.batch_size", "4"),
    *("--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300", "--data.context_length", "16"),
    *("--data.val_fraction", "0.15", "--data.test_fraction", "0.15", "--model.d_model", "16", "--model.n_layers", "1"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "2"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
)
MINE = """from zoo.models import FrozenEmbeddingGPT2

class Mine(FrozenEmbeddingGPT2):
    def on_train_start(self):
        print(f"Mine trains on rank {self.global_rank}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of the checkout so that nothing is written to the checkout."""
    pytest.importorskip("setuptools", "77", reason="the wheel is built with setuptools 77 or later")
    pytest.importorskip("pip", reason="the wheel is built and installed with pip")
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    command = [*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run(command, check=True, cwd=out)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "-q", "--no-deps", "--target", folder, wheel], check=True, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """Runs a command in a folder that holds only a corpus at first, and returns what it prints."""
    folder = tmp_path_factory.mktemp("work")
    make_corpus(folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    environment |= {"PYTHONPATH": str(installed), "ZOO_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def call(*words, launcher=("-m", "zoo"), code=0):
        command = [sys.executable, "-W", "ignore", *launcher, *map(str, words)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    call.folder = folder
    return call


def test_the_wheel_holds_the_files_of_the_package_and_no_others(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if ".dist-info/" not in name}
    files = {
        str(Path(folder, name).relative_to(ROOT))
        for folder, _, found in os.walk(ROOT / "zoo", followlinks=True)
        for name in found
        if Path(folder).name != "__pycache__"
    }
    assert held == files
    assert {"zoo/cli_configs/quickstart.yaml", "zoo/models/gpt2.py", "zoo/report/page.css", "zoo/report/page.js"} < held
    assert "zoo/pretrained/gpt2-mini.learned/step-000512/model.safetensors" in held
    assert not [name for name in names if "test" in name.split("/")[0]]


def test_light_commands_and_the_list_of_studies_run_without_torch(run, installed):
    code = "import sys, zoo; from zoo.__main__ import main; main({}); print('torch' in sys.modules, zoo.__file__)"
    for words, expected in {
        ("configs", "--json"): "gpt2/learned",
        ("configs", "gpt2/learned"): "base: gpt2/base",
        ("configs", "sae"): "sae/planted",
        ("list",): "sae-topk.null",
        ("study",): "planted-atoms",
    }.items():
        printed = run(launcher=("-c", code.format(list(words))))
        assert expected in printed
        assert printed.splitlines()[-1] == f"False {installed / 'zoo' / '__init__.py'}"


def test_quickstart_is_trained_validated_and_continued(run):
    assert "validation loss" in run("fit", "--config", "quickstart", *SMALL)
    checkpoint = Path("runs", "quickstart", "checkpoints", "last.ckpt")
    assert (run.folder / checkpoint).is_file()
    assert "val/loss" in run("validate", "--ckpt_path", checkpoint)
    assert "the cat " in run("predict", "--ckpt_path", checkpoint, "--data.prompts", json.dumps(["the cat "]))


@pytest.mark.parametrize("launcher", ["python -m zoo", "zoo"])
def test_a_class_in_the_current_folder_is_found_in_every_process(run, installed, launcher):
    (run.folder / "mine.py").write_text(MINE)
    (run.folder / "mine.yaml").write_text("base: gpt2/learned\nmodel: {class_path: mine.Mine}\n")
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    words = ("-m", "zoo") if launcher == "python -m zoo" else (installed / "bin" / "zoo",)
    printed = run("fit", "--config", "mine.yaml", *SMALL, *two, "--run_dir", f"runs/{len(words)}", launcher=words)
    assert sorted(re.findall(r"Mine trains on rank (\d)", printed)) == ["0", "1"]  # the two may share a line


def test_a_study_in_worker_processes_writes_its_report(run):
    printed = run("study", "polygons", "--networks", 6, "--steps", 20, "--out", "study")
    assert "wrote study/report.html" in printed
    assert "<html" in (run.folder / "study" / "report.html").read_text("utf-8")
    assert "cannot be read" in run("study", "polygons", "--config", "nothing", "--out", "other", code=2)
