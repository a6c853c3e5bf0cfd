"""What is killed, full, taken or closed: a clear line, nothing lost, and an exact resume."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from processes import ROOT, last, training_args, zoo_process
from small_corpus import make_corpus

import zoo
from zoo import run_folder
from zoo.__main__ import main
from zoo.callbacks import AtomicCheckpointIO, LastCheckpoint
from zoo.models import GPT2, FrozenEmbeddingGPT2

TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")
STEPS = ("--trainer.max_steps", "300")


def wait_for(happened, seconds=60):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def runs_on(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def small_files(n_bytes):
    """The disk refuses to let any file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, and a run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("faults")
    corpus = make_corpus(folder)
    whole = zoo_process(folder, *training_args(corpus, folder / "whole"), *TWO, *STEPS)
    assert whole.wait() == 0, (folder / "log.txt").read_text()
    return folder


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of a run in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_takes_the_others_along_and_the_run_resumes_exactly(folder, rank):
    run, log = folder / f"killed-{rank}", folder / f"killed-{rank}.txt"
    args = [*training_args(folder / "corpus", run), *TWO, *STEPS]
    first = zoo_process(folder, *args, log=log.name)
    wait_for(lambda: last(run).exists() or first.poll() is not None)
    second = child_of(first.pid)
    os.kill((first.pid, second)[rank], signal.SIGKILL)
    wait_for(lambda: first.poll() is not None and not runs_on(second))
    assert first.wait() == (1 if rank else -signal.SIGKILL)
    message = log.read_text().splitlines()[-1]
    assert message.startswith(
        "error: process 1 of this run was ended by SIGKILL" if rank else "error: another process of this run has ended"
    )
    assert message.endswith(f"resume with: python -m zoo fit --ckpt_path {last(run)}")
    assert "Traceback" not in log.read_text()
    if rank == 0:
        return
    resumed = zoo_process(folder, *args, "--ckpt_path", "last", log=log.name)
    assert resumed.wait() == 0, log.read_text()
    end, whole = torch.load(last(run)), torch.load(last(folder / "whole"))
    assert end["global_step"] == 300
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(end["state_dict"][name], tensor), name


def child_of(pid):
    """The only process that a process has started, or None."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of a run in /proc")
@pytest.mark.parametrize(
    ("signum", "seconds"),
    [
        (signal.SIGTERM, 0),
        (signal.SIGKILL, 1),
        *(pytest.param(s, t, marks=pytest.mark.slow) for s in (signal.SIGTERM, signal.SIGKILL) for t in (0.3, 2, 4)),
    ],
)
def test_the_second_process_ends_with_the_one_that_started_it_from_its_first_moment(folder, signum, seconds):
    run = folder / f"early-{signum.name}-{seconds}"
    first = zoo_process(folder, *training_args(folder / "corpus", run), *TWO, "--trainer.max_steps", "100000")
    wait_for(lambda: child_of(first.pid))
    second = child_of(first.pid)
    time.sleep(seconds)
    first.send_signal(signum)
    first.wait()
    wait_for(lambda: not runs_on(second), 8 if last(run).exists() else 2)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of a study in /proc")
def test_a_run_that_a_study_has_started_ends_with_the_study(tmp_path):
    script = (
        "import sys; from pathlib import Path; from zoo.study import Work; "
        "from zoo.studies import frozen_embedding as f; config = Path('cli_configs/quickstart.yaml').read_text(); "
        "f.TrainingRun((config,), 'learned', 'tied', 0, ()).do(Work({}, Path(sys.argv[1])))"
    )
    study = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    wait_for(lambda: child_of(study.pid))
    run = child_of(study.pid)
    study.kill()
    study.wait()
    wait_for(lambda: not runs_on(run), 2)


def test_a_process_whose_parent_has_ended_before_it_could_look_ends_too():
    child = "from zoo import end_with_parent as e; import time; e.end_with_starter(); time.sleep(60)"
    environment = {**os.environ, "ZOO_STARTED_BY": "1"}
    assert subprocess.run([sys.executable, "-c", child], env=environment, cwd=ROOT, timeout=20).returncode == 1


WATCHED = """
import subprocess, sys, threading
from pathlib import Path
from zoo.callbacks import EndTogether
callback = EndTogether()
callback._children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep({seconds}); exit({code})"])]
callback._watch(threading.Event(), Path("nowhere"))
"""


def test_a_process_that_waits_for_a_dead_one_in_vain_is_ended():
    script = WATCHED.format(seconds=0.2, code=3)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: process 1 of this run ended with an error, so all end; nothing was saved yet"
    ]


def test_a_full_disk_leaves_the_checkpoint_before_and_no_half_of_a_new_one(tmp_path, refused):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with small_files(100_000), refused(r"last.ckpt could not be saved: File too large; the one before it is still"):
        AtomicCheckpointIO().save_checkpoint({"step": torch.zeros(100_000)}, path)
    assert torch.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_run_on_a_disk_that_fills_up_ends_with_its_last_good_checkpoint(tiny_data, make_trainer, tmp_path, refused):
    class FillsUp(LastCheckpoint):
        def on_train_batch_end(self, trainer, *args):
            with small_files(10_000 if trainer.global_step > 3 else 10**9):
                super().on_train_batch_end(trainer, *args)

    with refused("File too large; the one before it is still there"):
        make_trainer(max_steps=5, callbacks=[FillsUp(1)], enable_checkpointing=True).fit(
            FrozenEmbeddingGPT2(300, 16, 16, 1, 2), tiny_data
        )
    assert torch.load(last(tmp_path / "run"))["global_step"] == 3


def test_a_zoo_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path, refused):
    old, new = (GPT2(50, 12, 16, 1, n_heads=2) for _ in range(2))
    folder = zoo.save(old, tmp_path / "model")
    with small_files(1000), refused("could not be written: File too large"):
        zoo.save(new, folder)
    assert torch.equal(zoo.embedding(folder), old.W_E)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_of_two_runs_started_in_one_folder_one_is_refused(folder):
    args = [*training_args(folder / "corpus", folder / "shared"), *STEPS]
    processes = [zoo_process(folder, *args, log=f"shared-{i}.txt") for i in range(2)]
    codes = [p.wait() for p in processes]
    assert sorted(codes) == [0, 2]
    text = (folder / f"shared-{codes.index(2)}.txt").read_text()
    assert text.splitlines()[-1] == (
        f"error: another run uses the folder {folder / 'shared'}; wait until it ends, or add --run_dir OTHER"
    )


def test_a_folder_is_free_again_when_its_process_was_killed(tmp_path):
    script = "import os, sys, pathlib, zoo.run_folder as r\nwith r.occupied(pathlib.Path(sys.argv[1])): os.abort()"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -signal.SIGABRT
    with run_folder.occupied(tmp_path):
        pass


SLOW = """
import time
from pathlib import Path
import lightning as L

class SlowValidation(L.Callback):
    def on_validation_batch_start(self, trainer, *args):
        if trainer.global_step >= 140:
            (Path(trainer.default_root_dir) / "validating").touch()
            time.sleep(0.2)
"""


def test_ctrl_c_in_a_validation_saves_and_the_run_resumes_exactly(folder):
    (folder / "slow_validation.py").write_text(SLOW)
    slow = ("--trainer.callbacks+=slow_validation.SlowValidation",)
    one, run = ("--trainer.max_steps", "200"), folder / "validating"
    path = {"PYTHONPATH": str(folder)}
    whole = zoo_process(folder, *training_args(folder / "corpus", folder / "unstopped"), *one)
    stopped = zoo_process(folder, *training_args(folder / "corpus", run), *slow, *one, log="slow.txt", **path)
    wait_for(lambda: (run / "validating").exists())
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait() == 130, (folder / "slow.txt").read_text()
    assert "stopped by SIGINT after step 14" in (folder / "slow.txt").read_text()
    args = [*training_args(folder / "corpus", run), *slow, *one, "--ckpt_path", "last"]
    assert [zoo_process(folder, *args, **path).wait(), whole.wait()] == [0, 0], (folder / "log.txt").read_text()
    end, undisturbed = torch.load(last(run)), torch.load(last(folder / "unstopped"))
    for name, tensor in undisturbed["state_dict"].items():
        assert torch.equal(end["state_dict"][name], tensor), name


def test_a_token_cache_half_written_by_a_killed_process_is_made_anew(folder):
    cache = folder / "half" / "cache"
    cache.parent.mkdir()
    args = [*training_args(folder / "corpus", folder / "half" / "run"), "--trainer.max_steps", "5"]
    killed = zoo_process(folder / "half", *args)
    wait_for(lambda: cache.is_dir() and any(cache.rglob("*")))
    killed.kill()
    killed.wait()
    assert not last(folder / "half" / "run").exists()
    assert zoo_process(folder / "half", *args).wait() == 0, (folder / "half" / "log.txt").read_text()
    written = [sorted(p.name for p in (home / "cache").rglob("*.bin")) for home in (folder, folder / "half")]
    assert written[0] == written[1] != []


@contextmanager
def nobody():
    """Without the rights of root, which may write everywhere."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_a_folder_that_may_not_be_written_gets_one_line(folder, capsys):
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    args = [*map(str, training_args(folder / "corpus", closed / "run"))]
    assert main([*args, "--no_such_argument"]) == 2  # which imports what nobody may not be allowed to read
    with nobody():
        assert main(args) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith(f"error: run_dir {closed / 'run'} cannot be written: Perm")
    )
    with nobody():
        assert main(["export", "gpt2-stdlib.learned", str(closed / "model")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "Permission denied" in line


def test_a_reader_that_stops_reading_gets_no_complaint():
    done = subprocess.run(
        f"{sys.executable} -m zoo list | head -1", shell=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""
