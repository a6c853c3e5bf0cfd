"""Runs that are killed at a named moment, and everything that a run leaves."""

import csv
import io
import json
import os
import signal
import sys
import traceback

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NOT_COMPARED = {  # in a checkpoint: places, how the run was started, and what depends on the clock
    *("command", "run_dir", "default_root_dir", "ckpt_path", "best_model_path", "dirpath", "cache_dir"),
    *("last_model_path", "kth_best_model_path", "best_k_models"),
}
TIMED = {"tokens_per_second"}
TIMED_LINES = (" per second", "checkpoint", "curves", "try next")


class SignalAt(L.Callback):
    """Sends its own process a signal at a hook, before that hook's checkpoint is saved.

    Args:
        hook: The hook's name.
        step: Optimizer steps done by then.
        times: In which of several calls of the hook at this step.
        rank: Of the process.
        signums: The signals, one after the other.
    """

    def __init__(self, hook: str, step: int, times: int = 1, rank: int = 0, signums: tuple[int, ...] = (15,)) -> None:
        self.hook, self.step, self.left, self.rank, self.signums = hook, step, times, rank, signums
        setattr(self, hook, self._send)

    def _send(self, trainer, *args, **kwargs):
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank) and not trainer.sanity_checking:
            self.left -= 1
            if not self.left:
                for signum in self.signums:
                    os.kill(os.getpid(), signum)


class KillAt(SignalAt):
    """Kills its own process."""

    def __init__(self, hook, step, times=1, rank=0):
        super().__init__(hook, step, times, rank, (signal.SIGKILL,))


class KillAfterSaving(KillAt, Checkpoint):
    """The same after the checkpoint is saved: Lightning calls callbacks of checkpoints last."""


def forked(log, do):
    """Call `do()` in a forked process, which saves the start; the exit code it returns, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ["COLUMNS"] = "400"
            code = do() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def left_by(run_dir, log=None):
    """Everything that a run left, without times and places, as nested dicts."""
    files = {p.relative_to(run_dir).as_posix(): p for p in sorted(run_dir.rglob("*")) if p.is_file()}
    files = {name: p for name, p in files.items() if ".tfevents." not in name and p.name != ".lock"}
    left = {"files": dict.fromkeys(files)}
    left["checkpoint"] = _plain(torch.load(run_dir / "checkpoints" / "last.ckpt"))
    left["cards"] = {name: _plain(json.loads(p.read_text())) for name, p in files.items() if p.suffix == ".json"}
    left["bytes"] = {n: p.read_bytes() for n, p in files.items() if p.suffix in (".csv", ".png", ".safetensors")}
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    left["scalars"] = {t: {e.step: e.value for e in events.Scalars(t)} for t in set(tags["scalars"]) - TIMED}
    left["texts"] = {
        t: {e.step: e.tensor_proto.string_val[0] for e in events.Tensors(t) if e.tensor_proto.string_val}
        for t in tags["tensors"]
    }
    left["images"] = {t: {e.step: e.encoded_image_string for e in events.Images(t)} for t in tags["images"]}
    left["table"] = None if log is None else closing_table(log)
    return left


def closing_table(log):
    """The last table that a run printed, without the lines that name times or places."""
    lines = [line.split("│")[1:3] for line in log.read_text().splitlines() if line.startswith("│")]
    lines = [(label.strip(), text.strip()) for label, text in lines]
    start = max(i for i, (label, _) in enumerate(lines) if label == "steps")
    return {label: text for label, text in lines[start:] if not label.endswith(TIMED_LINES)}


def differing(one, two, place=""):
    """Where two nested structures differ, one line each."""
    if isinstance(one, dict) and isinstance(two, dict):
        return [
            line
            for key in sorted(one.keys() | two.keys(), key=str)
            for line in (
                differing(one[key], two[key], f"{place}/{key}")
                if key in one and key in two
                else [f"{place}/{key} is only in the {'first' if key in one else 'second'}"]
            )
        ]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [line for i, (a, b) in enumerate(zip(one, two, strict=True)) for line in differing(a, b, f"{place}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(one.nan_to_num(nan=9e9), two.nan_to_num(nan=9e9))
        return [] if same else [f"{place}: tensors differ"]
    if isinstance(one, bytes) and place.endswith(".csv"):
        a, b = (list(csv.reader(io.StringIO(text.decode()))) for text in (one, two))
        return [f"{place}: {x} and {y}" for x, y in zip(a, b, strict=False) if x != y][:3]
    return [] if one == two or (one != one and two != two) else [f"{place}: {str(one)[:80]} and {str(two)[:80]}"]


def _plain(value):
    if isinstance(value, dict):
        settings = {"config"} & value.keys() and {"command"} & value.keys()  # provenance
        return {
            str(k): _plain(v) for k, v in value.items() if k not in NOT_COMPARED and not (settings and k == "config")
        }
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
