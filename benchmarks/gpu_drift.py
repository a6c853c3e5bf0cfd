"""Section of `benchmarks.gpu` on `EmbeddingDrift`: the time of one measurement of GPT-2 small's embedding."""

from argparse import Namespace

import numpy as np
import torch

from benchmarks.callback_cost import timed_run
from benchmarks.gpu_gpt2 import settings
from benchmarks.gpu_rows import Row

STEP = 32 * 1024 / 500_000  # seconds of a step of GPT-2 small at half of the peak of an H100


def section(device: torch.device, tiny: bool) -> list[Row]:
    """Measure in a run of a network with one layer, not compiled: the time depends only on the embedding."""
    args = settings(device, tiny)
    shallow = {"n_layers": 1, "context_length": 8, "batch_size": 2, "compile": False, "every": 2, "measurements": 8}
    drift = timed_run(Namespace(**{**vars(args), **shallow}), frozen=False)
    ms = 1000 * float(np.median(drift.measurement[1:]))
    what = f"EmbeddingDrift, one measurement, {args.vocab_size:,} x {args.d_model}"
    return [Row(what, ms, "ms", required=f"{200 * STEP:.0f} ms, .2 of a step of GPT-2 small")]
