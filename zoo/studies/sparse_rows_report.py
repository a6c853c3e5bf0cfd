"""The table and the picture of `sparse_rows`."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from zoo.studies.intervals import difference_from_draws, interval

AT_L0 = 16
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")
Lines = Sequence[dict[str, Any]]


def curve(results: Lines, matrix: str, coder: str, seed: int, error: str = "fvu", sparsity: str = "l0") -> np.ndarray:
    """One seed's points (n, 2) of L0 and an error, ascending in L0."""
    chosen = [r for r in results if (r["matrix"], r["coder"], r["seed"]) == (matrix, coder, seed)]
    return np.array(sorted((r[sparsity], r[error]) for r in chosen if error in r)).reshape(-1, 2)


def at_l0(points: np.ndarray, l0: float) -> float:
    """The error of a curve (n, 2) at an L0, linear in log L0 between points; NaN outside of them."""
    points = points[points[:, 0] > 0]
    if not len(points):
        return float("nan")
    x, y = np.log(points[:, 0]), points[:, 1]
    return float(np.interp(np.log(l0), x, y, left=np.nan, right=np.nan))


def table(results: Lines, settings: dict[str, Any], variants: Sequence[str], matrices: Sequence[str]) -> str:
    """Errors at one L0 of every coder on every matrix, in Markdown."""
    seeds = range(settings["seeds"])

    def row(label: str, coder: str, error: str = "fvu", sparsity: str = "l0") -> str:
        cells = [
            np.array([at_l0(curve(results, matrix, coder, s, error, sparsity), AT_L0) for s in seeds])
            for matrix in matrices
        ]
        return f"| {label} | {' | '.join(map(_text, cells))} | {_spelled(difference_from_draws(cells[0], cells[1]))} |"

    def head(title: str) -> list[str]:
        columns = [f"{title} at L0 {AT_L0}", *matrices, f"{matrices[0]} - {matrices[1]}"]
        return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]

    if "planted" in matrices:
        recovered = {v: [max(_of(results, "planted", v, s, "matched_cosine")) for s in seeds] for v in variants}
        told = ", ".join(f"{v} {np.mean(cosines):.3f}" for v, cosines in recovered.items())
        control = (
            "Mean cosine of the planted atoms, each matched with an atom of its own, at the sparsity that finds them "
            f"best: {told}."
        )
    else:
        control = (
            f"With {settings['d_sae']} latents in {settings['d_in']} dimensions there is no positive control: planted "
            "rows need more atoms than dimensions, and an autoencoder more latents than these."
        )
    lines = [
        *head("held-out FVU"),
        *(row(v, v) for v in variants),
        *(row(f"{v} atoms, matching pursuit", v, "fvu_by_pursuit") for v in variants),
        *(row(f"{name}, matching pursuit", name) for name in UNLEARNED),
        row("principal components at TopK's bits", "TopK", "pca_fvu"),
        "",
        *head("FVU of the rows trained on"),
        *(row(v, v, "train_fvu", "train_l0") for v in variants),
        "",
        f"{settings['seeds']} seeds; brackets are 95 % Student t intervals; those of differences ask whether one more "
        f"draw of the null model could be as far from the others. Errors are interpolated in log L0, measured on the "
        f"same rows, between runs; '-' means that L0 {AT_L0} lies outside of them. "
        f"{settings['d_sae']} atoms, {settings['steps']} steps of {settings['batch_size']} rows of "
        f"{settings['source']} drawn with p^{settings['frequency_power']:g} (n_eff {settings['n_eff']:,}). The mean "
        "alone has FVU 1.",
        "",
        control,
    ]
    return "\n".join(lines) + "\n"


def draw(results: Lines, variants: Sequence[str], matrices: Sequence[str]) -> Figure:
    """Held-out FVU against L0, one panel per variant, one colour per matrix, and one line per seed."""
    n_rows = 2 if len(variants) > 3 else 1
    n_columns = -(-len(variants) // n_rows)
    figure = Figure(figsize=(max(8, 4 * n_columns), 4 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    colors = matplotlib.colormaps["tab10"]
    seeds = sorted({r["seed"] for r in results})
    for axes, variant in zip(panels.flat, variants, strict=False):
        for i, matrix in enumerate(matrices):
            for seed in seeds:
                points = curve(results, matrix, variant, seed)
                label = matrix if seed == seeds[0] else None
                axes.plot(points[:, 0], points[:, 1], color=colors(i), marker=".", lw=1, label=label)
        for style, baseline in zip((":", "--"), ("random tokens", "random directions"), strict=True):
            points = np.stack([curve(results, "embedding", baseline, s) for s in seeds]).mean(0)
            label = f"embedding, {baseline} as atoms, matching pursuit"
            axes.plot(points[:, 0], points[:, 1], color="black", lw=1, ls=style, label=label)
        axes.set(title=variant, xscale="log")
        axes.grid(alpha=0.2)
    for axes in panels[-1]:
        axes.set_xlabel("L0")
    for axes in panels[:, 0]:
        axes.set_ylabel("held-out FVU")
    panels.flat[0].set(ylim=(0, 1), xlim=(1, 64), xticks=(1, 2, 4, 8, 16, 32, 64), xticklabels=(1, 2, 4, 8, 16, 32, 64))
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _of(results: Lines, matrix: str, coder: str, seed: int, key: str) -> list[float]:
    wanted = (matrix, coder, seed)
    return [r[key] for r in results if (r["matrix"], r["coder"], r["seed"]) == wanted and key in r]


def _text(values: np.ndarray) -> str:
    return _spelled(interval(values))


def _spelled(i: dict[str, float]) -> str:
    return f"{i['mean']:.3f} [{i['low']:.3f}, {i['high']:.3f}]" if np.isfinite(i["mean"]) else "-"
