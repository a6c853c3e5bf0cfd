"""The pages docs/python.md and docs/adding_to_the_zoo.md: all their code runs, and prints what they say."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import zoo
from zoo.__main__ import main
from zoo.metrics import FVU

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def page(name):
    """The text of a page."""
    return (DOCS / name).read_text("utf-8")


def blocks(text, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def stated(code):
    """The lines that a block says it prints: comments behind a `print`, and comments at the margin."""
    behind = r"^ *print\(.*\)  # (.+)$"
    return [one or other for one, other in re.findall(rf"{behind}|^# (.+)$", code, re.MULTILINE)]


def assert_agree(printed, line):
    """The words are the same, and numbers with a point differ by at most 15 % or two units of the last digit."""
    assert NUMBER.sub("0", printed) == NUMBER.sub("0", line)
    for found, said in zip(NUMBER.findall(printed), NUMBER.findall(line), strict=True):
        digits = len(said.partition(".")[2])
        slack = max(0.15 * abs(float(said)), 2 * 10**-digits) if digits else 0
        assert float(found) == pytest.approx(float(said), abs=slack), f"{printed} is not {line}"


def test_every_line_of_the_page_in_python_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    names = {"__name__": "page", "print": lambda *values: lines.append(" ".join(map(str, values)))}
    codes = blocks(page("python.md"), "python")
    assert len(codes) == page("python.md").count("```") / 2 == 13
    for code in codes:
        exec(compile(code, "docs/python.md", "exec"), names)
        assert len(lines) == len(stated(code)), code
        for printed, line in zip(lines, stated(code), strict=True):
            assert_agree(printed, line)
        lines.clear()


ADDING = page("adding_to_the_zoo.md")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", ADDING, re.DOTALL | re.MULTILINE))
NAMED = re.compile(r"\A# (\S+\.(?:py|yaml))\n")  # the first line of a block that is a file
STEP = re.compile(r"^```python\n(.*?)^```$|^    python -m zoo ([^\n]+)$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all files of the page, which is the current one and the first that Python imports from."""
    codes = [*blocks(ADDING, "python"), *blocks(ADDING, "yaml")]
    assert len(codes) == ADDING.count("```") / 2
    files = {mark[1]: code for code in codes if (mark := NAMED.match(code))}
    path = tmp_path_factory.mktemp("mine")
    for name, code in files.items():
        (path / name).write_text(code, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.syspath_prepend(path)
        patch.setattr(sys, "argv", ["zoo"])
        yield path
    for name in files:
        sys.modules.pop(Path(name).stem, None)
    followed.cache_clear()


@cache
def followed(section):
    """Run the commands of a section and the Python between them; those that change the zoo itself are left out."""
    text, n = SECTIONS[section].partition("**In the zoo:**")[0], 0
    for code, command in STEP.findall(text):
        if NAMED.match(code):
            continue
        n += 1
        if command:
            assert main(shlex.split(command)) == 0, command
            continue
        lines = []
        exec(compile(code, section, "exec"), {"print": lambda *values, to=lines: to.append(" ".join(map(str, values)))})
        assert lines == stated(code)
    return n


def last(run):
    """The network at the end of a run."""
    return zoo.load(f"runs/{run}/checkpoints/last.ckpt")


def test_a_class_in_the_current_folder_is_found(folder):
    words = [sys.executable, "-W", "ignore", "-m", "zoo", "fit", "--model.help", "bottleneck.TrainBottleneck"]
    env = os.environ | {"PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Dimensions in the middle" in done.stdout


def test_a_datamodule_and_a_model(folder, capsys):
    assert followed("A datamodule") == 0
    assert followed("A model") == 4
    assert "exactly 0" not in capsys.readouterr().out
    assert (folder / "runs" / "bottleneck" / "embedding_drift" / "W_dec.csv").exists()
    assert main(["fit", "--config", "bottleneck.yaml", "--run_dir", "runs/whole", "--trainer.max_steps", "300"]) == 0
    whole, resumed = last("whole").state_dict(), last("bottleneck").state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    x = importlib.import_module("ring").Ring().x
    fvu = FVU()
    fvu.update(last("bottleneck").reconstruct(x)[0], x)
    assert fvu.compute() < 0.02


def test_a_sparse_autoencoder(folder, capsys):
    assert followed("A sparse autoencoder") == 4
    assert re.search(r"TrainAutoencoder\W+\d+\W+0 ", capsys.readouterr().out)  # in the plan
    _, codes = last("abs_top_k").reconstruct(zoo.embedding("gpt2-mini.learned"))
    assert codes.min() < 0 < codes.max()


def test_a_toy(folder, capsys):
    assert followed("A toy") == 3
    (loss,) = re.findall(r"validation loss best\W+([\d.]+)", capsys.readouterr().out)[-1:]
    assert float(loss) < 0.1


def test_a_callback(folder, capsys):
    assert followed("A callback") == 1
    assert re.search(r"hardest row\W+[\d.]+ degrees, with squared error", capsys.readouterr().out)


def test_a_study(folder, capsys):
    assert followed("A study") == 1
    assert "The mean |cosine| is 0.0" in capsys.readouterr().out
    assert (folder / "runs" / "angles" / "report.html").exists()


def test_a_checkpoint(folder, capsys):
    followed("A sparse autoencoder")
    capsys.readouterr()
    assert followed("A checkpoint") == 4
    printed = capsys.readouterr().out
    assert "# saved" in printed
    assert "the weights are the same bit for bit" in printed


def test_every_example_says_where_it_goes_in_the_zoo():
    examples = [name for name in SECTIONS if name.startswith("A ")]
    assert len(examples) == 7
    for name in examples:
        where = SECTIONS[name].partition("**In the zoo:**")[2]
        assert "tests/" in where, name
        for path in re.findall(r"`((?:tests|cli_configs|zoo|models|datamodules|callbacks)/[\w/.]*)`", where):
            new = Path(path).stem in ("ring", "bottleneck", "abs_top_k", "hardest_row", "angles")
            assert new or (DOCS.parent / path).exists(), path
