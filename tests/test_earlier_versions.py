"""Runs, `.ckpt` files and checkpoints of earlier versions load, and their runs go on.

`made_by_0_1_0` has a run of every family, and the network as `zoo.save` wrote it, both made by version
0.1.0.
"""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import zoo
from zoo.cli import run
from zoo.metrics import FVU

MADE = Path(__file__).parent / "made_by_0_1_0"
RUNS = sorted(folder.name for folder in MADE.iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_its_last_checkpoint_and_a_saved_network_have_the_same_weights(name):
    nets = [zoo.load(MADE / name), zoo.load(MADE / name / "checkpoints" / "last.ckpt"), zoo.load(MADE / name / "saved")]
    saved = nets[-1].state_dict()
    assert sum(tensor.abs().sum() for tensor in saved.values()) > 0
    for net in nets:
        assert type(net) is type(nets[-1])
        assert all(torch.equal(tensor, saved[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    shutil.copytree(MADE / name, tmp_path / name)
    if name == "gpt2":
        (tmp_path / "text").mkdir()
        for i in range(1, 21):
            line = f"file {i}: one two three four five six seven eight nine ten\n"
            (tmp_path / "text" / f"{i}.txt").write_text(line * 10)
    last = tmp_path / name / "checkpoints" / "last.ckpt"
    before, end = zoo.load(last).state_dict(), torch.load(last, weights_only=True)["global_step"] + 2
    assert run(["fit", "--ckpt_path", str(last), "--trainer.max_steps", str(end)]) == 0
    after = zoo.load(last).state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert torch.load(last, weights_only=True)["global_step"] == end


def test_a_trained_autoencoder_of_an_earlier_version_computes_what_it_did():
    x = torch.linspace(-1, 1, 80).view(10, 8)
    fvu = FVU()
    fvu.update(zoo.load(MADE / "sae" / "saved")(x), x)
    assert fvu.compute().item() == pytest.approx(0.62683565, rel=1e-5)  # measured by 0.1.0
