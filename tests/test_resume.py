import signal
import time

import pytest
import torch
from killed_runs import differing, left_by
from processes import last, training_args, zoo_process
from small_corpus import make_corpus
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def curves(run_dir):
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    timed = {"tokens_per_second"}
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in set(events.Tags()["scalars"]) - timed}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run uninterrupted, and interrupted by each signal at an arbitrary step and resumed, all side by side."""
    folder = tmp_path_factory.mktemp("resume")
    make_corpus(folder)
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


def test_a_killed_and_resumed_run_leaves_all_that_an_undisturbed_one_leaves(runs):
    folder, _, _ = runs
    found = differing(left_by(folder / "whole"), left_by(folder / "SIGKILL"))
    assert not found, "\n".join(found)


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
