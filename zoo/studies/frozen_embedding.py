"""How much worse does GPT-2 train when its embedding is random and never updated?

The arms: a learned embedding, and frozen ones that are Gaussian at GPT-2's own scale (standard deviation 0.02),
Gaussian with longer rows, or of low coherence; each with an unembedding of its own and with a tied one. A learned
embedding that starts with the longer rows tells what is owed to their length. Other arms (`LEARNED_ROWS`) freeze rows
made from what the learned run of the next seed has learned: its norms, its covariance, or the rows themselves. Runs of
one seed share the initial weights of everything but the embedding, so gaps to the learned arm are paired by seed. All
runs see the data in one order.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo import end_with_parent
from zoo.errors import ZooError
from zoo.studies.intervals import interval

ROWS = {
    "learned": ["--model.frozen_rows", "none"],
    "learned, std 0.09": [
        *("--model.frozen_rows", "none", "--model.embedding", "GaussianEmbedding"),
        *("--model.embedding.std", "0.09"),
    ],
    "frozen Gaussian": ["--model.frozen_rows", "all"],
    "frozen Gaussian, std 0.09": [
        *("--model.frozen_rows", "all", "--model.embedding", "GaussianEmbedding"),
        *("--model.embedding.std", "0.09"),
    ],
    "frozen low-coherence": [
        *("--model.frozen_rows", "all", "--model.embedding", "LowCoherenceEmbedding"),
        *("--model.embedding.max_cosine", "0.3"),
    ],
}
LEARNED_ROWS = {
    "frozen norm-matched": "NormMatchedEmbedding",
    "frozen covariance-matched": "CovarianceMatchedEmbedding",
    "frozen permuted": "PermutedEmbedding",
    "frozen copied": "CopiedEmbedding",
}
TIED = {"untied": "false", "tied": "true"}
ARMS = [(rows, tied) for tied in TIED for rows in ROWS if (rows, tied) != ("learned, std 0.09", "tied")]


@dataclass(frozen=True)
class Run:
    """One training run of the study.

    Args:
        rows: Kind of embedding, a key of `ROWS` or `LEARNED_ROWS`.
        tied: A key of `TIED`.
        seed: Seed of weights and embedding.
    """

    rows: str
    tied: str
    seed: int

    def folder(self, out: Path) -> Path:
        """Where the run lies."""
        return out / f"{self.rows} {self.tied}".replace(",", "").replace(" ", "-").lower() / f"seed-{self.seed}"

    def command(self, config: str, out: Path, extra: list[str], seeds: int) -> list[str]:
        """The command that makes the run, or resumes it if it was interrupted."""
        words = [sys.executable, "-m", "zoo", "fit", "--config", config, *self._rows(out, seeds)]
        words += ["--model.tied", TIED[self.tied], "--seed_everything", str(self.seed), *extra]
        words += ["--run_dir", str(self.folder(out))]
        words += ["--ckpt_path", "auto"]
        return words

    def _rows(self, out: Path, seeds: int) -> list[str]:
        if self.rows in ROWS:
            return ROWS[self.rows]
        other = Run("learned", self.tied, (self.seed + 1) % seeds).folder(out)  # whose other weights differ
        recipe = ["--model.embedding", LEARNED_ROWS[self.rows], "--model.embedding.source", str(other)]
        return ["--model.frozen_rows", "all", *recipe]

    def train(self, config: str, out: Path, extra: list[str], threads: int, seeds: int) -> None:
        """Train unless it is done already."""
        folder = self.folder(out)
        if (folder / "done").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            environment = {**os.environ, **end_with_parent.for_children(), "OMP_NUM_THREADS": str(threads)}
            words = self.command(config, out, extra, seeds)
            code = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            raise ZooError(f"{shlex.join(words)} ended with code {code}; see {folder / 'log.txt'}")
        (folder / "done").touch()

    def curve(self, out: Path) -> np.ndarray:
        """Validation loss over training, (points, 2): optimizer step, nats per token."""
        events = EventAccumulator(str(self.folder(out)), size_guidance={"scalars": 0}).Reload()
        losses = {event.step + 1: event.value for event in events.Scalars("val/loss")}
        return np.array(sorted(losses.items()))


def run(
    config: str,
    out: Path,
    seeds: int = 3,
    jobs: int = 1,
    extra: list[str] | None = None,
    arms: Sequence[tuple[str, str]] = ARMS,
) -> dict[str, Any]:
    """Train what is missing, then write `results.json`, `table.md` and `curves.png` into the folder.

    Args:
        config: Config the arms build on, such as cli_configs/gpt2/base.yaml.
        out: Folder of the study; finished runs in it are not made again.
        seeds: Runs per arm.
        jobs: Runs at a time; the processor's cores are divided among them.
        extra: Further arguments for every `fit`.
        arms: Kind of embedding and of unembedding, the learned ones first.

    Returns:
        What is in `results.json`.

    Raises:
        ZooError: If a run fails, or fewer than two seeds are asked for (no interval then).
    """
    if seeds < 2:
        raise ZooError(f"seeds is {seeds}; an interval needs at least 2")
    if jobs < 1:
        raise ZooError(f"jobs is {jobs}; it must be at least 1")
    runs = [Run(rows, tied, seed) for rows, tied in arms for seed in range(seeds)]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with Progress() as progress, ThreadPoolExecutor(jobs) as pool:
        bar = progress.add_task("runs", total=len(runs))
        for derived in (False, True):
            now = [r for r in runs if (r.rows in LEARNED_ROWS) == derived]
            for _ in pool.map(lambda r: r.train(config, out, extra or [], threads, seeds), now):
                progress.advance(bar)
    curves = {r: r.curve(out) for r in runs}
    results = {
        "config": config,
        "extra": extra or [],
        "seeds": seeds,
        "arms": [_arm(rows, tied, curves, seeds) for rows, tied in arms],
    }
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (out / "table.md").write_text(table(results), "utf-8")
    draw(curves, seeds).savefig(out / "curves.png", dpi=120)
    return results


def _arm(rows: str, tied: str, curves: dict[Run, np.ndarray], seeds: int) -> dict[str, Any]:
    mine = [curves[Run(rows, tied, s)] for s in range(seeds)]
    baseline = _baseline(rows, tied)
    baseline = baseline if Run(baseline, tied, 0) in curves else "learned"
    learned = [curves[Run(baseline, tied, s)] for s in range(seeds)]
    final = np.array([c[-1, 1] for c in mine])
    gap = final - np.array([c[-1, 1] for c in learned])
    arm = {"rows": rows, "tied": tied, "steps": int(mine[0][-1, 0]), "loss": interval(final), "gap": None}
    arm |= {"share_of_training": None, "final_losses": final.tolist(), "baseline": baseline}
    if rows != "learned":
        reached = np.array([steps_to_reach(b, a[-1, 1]) for a, b in zip(mine, learned, strict=True)])
        arm |= {"gap": interval(gap)}
        if np.isfinite(reached).all():
            arm["share_of_training"] = interval(reached / arm["steps"])
        arm["share_is_upper_bound"] = bool((reached == learned[0][0, 0]).all())
    return arm


def _baseline(rows: str, tied: str) -> str:
    """The learned arm that an arm is compared with: one that starts with rows of the same length, if there is one."""
    twin = rows.replace("frozen Gaussian", "learned")
    return twin if twin != rows and (twin, tied) in ARMS else "learned"


def steps_to_reach(curve: np.ndarray, loss: float) -> float:
    """Step at which a falling curve (points, 2) first reaches a loss, linear between points; infinite if never.

    Before the first point the step is that of the first point, an upper bound.
    """
    reached = np.flatnonzero(curve[:, 1] <= loss)
    if not len(reached):
        return float("inf")
    i = reached[0]
    if i == 0:
        return float(curve[0, 0])
    (s0, l0), (s1, l1) = curve[i - 1], curve[i]
    return float(s0 + (s1 - s0) * (l0 - loss) / (l0 - l1))


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""

    def text(value: dict[str, float] | None, digits: int = 3) -> str:
        if value is None:
            return "-"
        return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"

    lines = [
        "| unembedding | embedding | validation loss, nats | gap, nats | to | learned run gets there after |",
        "|---|---|---|---|---|---|",
    ]
    for arm in results["arms"]:
        share = arm["share_of_training"]
        reach = f"{text(share, 2)} of the steps" if share else "-" if arm["gap"] is None else "not within the run"
        if arm.get("share_is_upper_bound"):
            reach = f"less than {share['mean']:.2f} of the steps"
        baseline = "-" if arm["gap"] is None else arm["baseline"]
        cells = (arm["tied"], arm["rows"], text(arm["loss"]), text(arm["gap"]), baseline, reach)
        lines.append(f"| {' | '.join(cells)} |")
    steps, seeds = results["arms"][0]["steps"], results["seeds"]
    lines += ["", f"{seeds} seeds, {steps} steps; brackets are 95 % Student t intervals; gaps are paired by seed."]
    return "\n".join(lines) + "\n"


def draw(curves: dict[Run, np.ndarray], seeds: int) -> Figure:
    """Validation loss over training, one panel per unembedding, mean and range over seeds."""
    arms = list(dict.fromkeys((run.rows, run.tied) for run in curves))
    tied = [t for t in TIED if t in {t for _, t in arms}]
    figure = Figure(figsize=(5 * len(tied), 4), layout="constrained")
    panels = figure.subplots(1, len(tied), sharey=True, squeeze=False)[0]
    colors = matplotlib.colormaps["tab10"]
    for axes, unembedding in zip(panels, tied, strict=True):
        for i, rows in enumerate([*ROWS, *LEARNED_ROWS]):
            if (rows, unembedding) not in arms:
                continue
            stack = np.stack([curves[Run(rows, unembedding, s)] for s in range(seeds)])  # (seeds, points, 2)
            steps, losses = stack[0, :, 0], stack[:, :, 1]
            axes.plot(steps, losses.mean(0), color=colors(i), marker=".", label=rows)
            axes.fill_between(steps, losses.min(0), losses.max(0), color=colors(i), alpha=0.25, lw=0)
        axes.set(xlabel="optimizer step", title=f"{unembedding} unembedding")
        axes.grid(alpha=0.2)
    panels[0].set_ylabel("validation loss, nats per token")
    panels[0].legend()
    return figure
