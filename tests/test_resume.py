import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def zoo_process(folder, *args):
    environment = {**os.environ, "ZOO_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "zoo", *map(str, args)]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def training_args(corpus, run_dir):
    return [
        *("fit", "--config", "cli_configs/quickstart.yaml", "--run_dir", run_dir),
        *("--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{corpus}]"),
        *("--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300"),
        *("--data.val_fraction", "0.15", "--data.test_fraction", "0.15"),
        *("--data.context_length", "16", "--data.batch_size", "4"),
        *("--model.d_model", "16", "--model.n_layers", "1", "--model.dropout", "0.1", "--model.frozen_rows", "5-"),
        *("--trainer.max_steps", "500", "--trainer.val_check_interval", "70", "--trainer.limit_val_batches", "2"),
        *("--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_n_steps", "70"),
    ]


def curves(run_dir):
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    timed = {"tokens_per_second"}
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in set(events.Tags()["scalars"]) - timed}


def last(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run uninterrupted, and interrupted by each signal at an arbitrary step and resumed, all side by side."""
    from conftest import document

    folder = tmp_path_factory.mktemp("resume")
    (folder / "corpus").mkdir()
    for number in range(60):
        (folder / "corpus" / f"{number:02}.txt").write_text(document(number), "utf-8")
    whole = zoo_process(folder, *training_args(folder / "corpus", folder / "whole"))
    stopped, codes, steps = {}, {}, {}
    for signum in SIGNALS:
        stopped[signum] = zoo_process(folder, *training_args(folder / "corpus", folder / signum.name))
    waiting = set(SIGNALS)
    while waiting:
        for signum in sorted(waiting):
            if last(folder / signum.name).exists() or stopped[signum].poll() is not None:
                waiting.remove(signum)
                time.sleep(0.15)  # on to some step after the checkpoint
                stopped[signum].send_signal(signum)
        time.sleep(0.01)
    for signum in SIGNALS:
        codes[signum] = stopped[signum].wait()
        steps[signum] = torch.load(last(folder / signum.name))["global_step"]
    resumed = [
        zoo_process(folder, *training_args(folder / "corpus", folder / signum.name), "--ckpt_path", "last")
        for signum in SIGNALS
    ]
    assert [p.wait() for p in (whole, *resumed)] == [0] * 4, (folder / "log.txt").read_text()
    return folder, codes, steps


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_an_interrupted_and_resumed_run_ends_in_the_same_bits(runs, signum):
    folder, codes, steps = runs
    assert codes[signum] == (-9 if signum == signal.SIGKILL else 128 + signum)
    assert 70 <= steps[signum] < 500
    whole, resumed = torch.load(last(folder / "whole")), torch.load(last(folder / signum.name))
    assert resumed["global_step"] == 500
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    for index, state in whole["optimizer_states"][0]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(resumed["optimizer_states"][0]["state"][index][name], tensor), name


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_an_interrupted_and_resumed_run_draws_the_same_curves(runs, signum):
    folder, _, _ = runs
    assert curves(folder / signum.name) == curves(folder / "whole")


def test_a_signal_saves_the_step_it_came_in(runs):
    _, _, steps = runs
    assert steps[signal.SIGKILL] % 70 == 0
    assert steps[signal.SIGTERM] % 70 or steps[signal.SIGINT] % 70


@pytest.mark.parametrize("devices", [2])
def test_the_command_line_trains_on_two_processes_as_on_one(runs, devices):
    folder, _, _ = runs
    args = [*training_args(folder / "corpus", folder / "ddp"), "--trainer.devices", devices]
    args += ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.max_steps", 20]
    args += ["--model.dropout", 0, "--model.optimizer.decay_steps", 20]
    single = [*args, "--trainer.devices", 1, "--trainer.strategy", "auto", "--run_dir", folder / "single"]
    processes = [zoo_process(folder, *args), zoo_process(folder, *single)]
    assert [p.wait() for p in processes] == [0, 0], (folder / "log.txt").read_text()
    ddp, one = torch.load(last(folder / "ddp")), torch.load(last(folder / "single"))
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(ddp["state_dict"][name], tensor, atol=2e-6, rtol=1e-4)
    W_E = "net.transformer.wte.weight"
    assert torch.equal(ddp["state_dict"][W_E][5:], one["state_dict"][W_E][5:])
