"""Callback that ends all processes of a run when one of them dies, with a message that gives the reason."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from zoo import end_with_parent
from zoo.callbacks.last_checkpoint import last_checkpoint, resume_hint

LOOK_EVERY, PATIENCE = 0.5, 5.0  # seconds


class EndTogether(L.Callback):
    """Ends this process when another process of the run has died: its parent, or a process that it has started.

    Otherwise the remaining processes would wait in a collective operation until it times out (with NCCL, after half an
    hour). torchrun and SLURM themselves watch the processes that they have started.
    """

    _over: threading.Event | None = None  # created in `setup`, in the process that uses it
    _children: Sequence[subprocess.Popen] = ()
    _parent: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the watching thread, if the run has several processes."""
        if not (dist.is_initialized() and trainer.world_size > 1):
            return
        self._over, launcher = threading.Event(), trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            self._children = launcher.procs
        threading.Thread(target=self._watch, args=(self._over, last_checkpoint(trainer)), daemon=True).start()
        run = [0] * trainer.world_size
        dist.all_gather_object(run, os.getpid())
        self._parent = os.getppid() if os.getppid() in run else None
        end_with_parent.let_others_watch()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop watching: from here on, processes may end one by one."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop watching. Add the reason to a communication error, as a note and as its `lost_process`."""
        self._stop()
        from_gloo = isinstance(exception, RuntimeError) and "gloo" in str(exception)
        if from_gloo or isinstance(exception, dist.DistError):
            time.sleep(LOOK_EVERY)  # until the system knows how a child process ended
            exception.lost_process = self._message(last_checkpoint(trainer))  # type: ignore[attr-defined]
            exception.add_note(exception.lost_process)  # type: ignore[attr-defined]

    def _stop(self) -> None:
        if self._over:
            self._over.set()

    def _watch(self, over: threading.Event, checkpoint: Path) -> None:
        while not over.wait(LOOK_EVERY):
            if any(child.poll() for child in self._children) or self._parent not in (None, os.getppid()):
                if over.wait(PATIENCE):  # the run noticed it by itself
                    return
                print(f"error: {self._message(checkpoint)}", file=sys.stderr, flush=True)
                for child in self._children:
                    child.kill()
                os._exit(1)

    def _message(self, checkpoint: Path) -> str:
        """The message: which process has ended, and how to resume."""
        what = "another process of this run has ended, so this one ends too"
        for rank, child in enumerate(self._children, 1):
            if (code := child.poll()) is not None and code < 0:
                why = " (out of memory?)" if -code == signal.SIGKILL else ""
                what = f"process {rank} of this run was ended by {signal.Signals(-code).name}{why}, so all end"
            elif code:
                what = f"process {rank} of this run ended with an error, so all end"
        return f"{what}; {resume_hint(checkpoint)}"
