"""The table and the picture of `sparse_rows`."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from zoo.studies.intervals import interval

AT_L0 = 16
LEARNED = "learned atoms"
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")
Lines = Sequence[dict[str, Any]]


def curve(results: Lines, matrix: str, coder: str, seed: int, key: str = "fvu") -> np.ndarray:
    """One seed's points (n, 2) of L0 and an error, ascending in L0."""
    chosen = [r for r in results if (r["matrix"], r["coder"], r["seed"]) == (matrix, coder, seed) and r.get(key)]
    return np.array(sorted((r["l0"], r[key]) for r in chosen if r["l0"] > 0)).reshape(-1, 2)


def at_l0(points: np.ndarray, l0: float) -> float:
    """The error of a curve (n, 2) at an L0, linear in log L0 between points; NaN outside of them."""
    if not len(points):
        return float("nan")
    x, y = np.log(points[:, 0]), points[:, 1]
    return float(np.interp(np.log(l0), x, y, left=np.nan, right=np.nan))


def table(results: Lines, settings: dict[str, Any], variants: Sequence[str], matrices: Sequence[str]) -> str:
    """Held-out error at one L0 of every coder on every matrix, in Markdown."""
    seeds = range(settings["seeds"])

    def cell(matrix: str, coder: str, key: str = "fvu") -> tuple[str, np.ndarray]:
        values = np.array([at_l0(curve(results, matrix, coder, s, key), AT_L0) for s in seeds])
        return (_text(values), values)

    lines = [f"| held-out FVU at L0 {AT_L0} | {' | '.join(matrices)} | embedding - covariance-matched |"]
    lines += ["|---" * (len(matrices) + 2) + "|"]
    sections = [(v, v, "fvu") for v in variants]
    sections += [(f"{v} atoms, matching pursuit", v, "fvu_by_pursuit") for v in variants]
    sections += [(f"{name}, matching pursuit", name, "fvu") for name in UNLEARNED]
    sections += [("principal components at TopK's bits", "TopK", "pca_fvu")]
    for label, coder, key in sections:
        cells = [cell(matrix, coder, key) for matrix in matrices]
        gap = _text(cells[0][1] - cells[1][1])
        lines.append(f"| {label} | {' | '.join(text for text, _ in cells)} | {gap} |")
    recovered = {
        v: [max(_of(results, "planted", v, s, "mean_max_cosine"), default=float("nan")) for s in seeds]
        for v in variants
    }
    told = ", ".join(f"{v} {np.mean(cosines):.3f}" for v, cosines in recovered.items())
    train = ", ".join(f"{v} {_text_of_train(results, v, seeds)}" for v in variants)
    lines += [
        "",
        f"{settings['seeds']} seeds; brackets are 95 % Student t intervals, differences paired by seed; values between "
        f"runs are interpolated in log L0, and '-' means that L0 {AT_L0} lies outside of them. {settings['d_sae']} "
        f"atoms, {settings['steps']} steps of {settings['batch_size']} rows of {settings['source']} drawn with p^"
        f"{settings['frequency_power']:g} (n_eff {settings['n_eff']:,}). The mean alone has FVU 1.",
        "",
        f"On the embedding's training rows, FVU at L0 {AT_L0}: {train}.",
        "",
        f"Mean best cosine of the planted atoms, at the sparsity that finds them best: {told}.",
    ]
    return "\n".join(lines) + "\n"


def draw(results: Lines, variants: Sequence[str], matrices: Sequence[str]) -> Figure:
    """Held-out FVU against L0, one panel per variant, one colour per matrix, with the range over seeds."""
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplots(2, -(-len(variants) // 2), sharex=True, sharey=True, squeeze=False)
    colors = matplotlib.colormaps["tab10"]
    seeds = sorted({r["seed"] for r in results})
    for axes, variant in zip(panels.flat, variants, strict=False):
        for i, matrix in enumerate(matrices):
            curves = np.stack([curve(results, matrix, variant, s) for s in seeds])  # (seeds, points, 2)
            l0, fvu = curves[:, :, 0].mean(0), curves[:, :, 1]
            axes.plot(l0, fvu.mean(0), color=colors(i), marker=".", label=matrix)
            axes.fill_between(l0, fvu.min(0), fvu.max(0), color=colors(i), alpha=0.25, lw=0)
        for style, baseline in zip((":", "--"), ("random tokens", "random directions"), strict=True):
            points = np.stack([curve(results, "embedding", baseline, s) for s in seeds]).mean(0)
            label = f"embedding, {baseline} as atoms"
            axes.plot(points[:, 0], points[:, 1], color="black", lw=1, ls=style, label=label)
        axes.set(title=variant, xscale="log")
        axes.grid(alpha=0.2)
    for axes in panels[-1]:
        axes.set_xlabel("L0")
    for axes in panels[:, 0]:
        axes.set_ylabel("held-out FVU")
    panels.flat[0].set(ylim=(0, 1), xlim=(1, 64), xticks=(1, 2, 4, 8, 16, 32, 64), xticklabels=(1, 2, 4, 8, 16, 32, 64))
    panels.flat[0].legend(fontsize="x-small")
    return figure


def _of(results: Lines, matrix: str, coder: str, seed: int, key: str) -> list[float]:
    wanted = (matrix, coder, seed)
    return [r[key] for r in results if (r["matrix"], r["coder"], r["seed"]) == wanted and key in r]


def _text_of_train(results: Lines, variant: str, seeds: range) -> str:
    return _text(np.array([at_l0(curve(results, "embedding", variant, s, "train_fvu"), AT_L0) for s in seeds]))


def _text(values: np.ndarray) -> str:
    if not np.isfinite(values).all():
        return "-"
    i = interval(values)
    return f"{i['mean']:.3f} [{i['low']:.3f}, {i['high']:.3f}]"
