"""Real processes of the command line, on a corpus that is tokenized in an instant."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def zoo_process(folder, *args, log="log.txt", launcher=("-m", "zoo"), **environment):
    """Start `python -m zoo` with arguments; what it prints is appended to a log in the folder."""
    environment = {**os.environ, "ZOO_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "ignore", *launcher, *map(str, args)]
    with (folder / log).open("a") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


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


def last(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"
