"""What the study of attention in superposition found: a table and a picture."""

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.models.toy import attention
from zoo.models.toy import skip_bigram_head as bigrams
from zoo.studies.intervals import interval

VOCABULARY = 50257  # of GPT-2
OVERLAPS = {"overlap": "learned", "permuted": "labels permuted", "random": "random vectors"}
ROWS = [  # experiment, kind and key of a measurement, and what it says of its sizes
    ("C2", "circle", "failure", "fails, {0} positions of 2 features"),
    ("C3", "projection", "raw", "own token, V = {0:,}, k = {1}"),
    ("C3", "projection", "normalised", "own token, normalised, V = {0:,}, k = {1}"),
    ("C4", "noise", "noise", "noise, B = {0}, D = {1}, d_head = {2}"),
    ("C4", "usable", "one", "usable B, signal 1, D = {0}, d_head = {1}, {2} competitors"),
    ("C4", "usable", "partner", "usable B, partner's own score, D = {0}, d_head = {1}, {2} competitors"),
    ("C4", "ties", "entropy", "entropy, {1} ties of {2}, noise {3}, beta = {0}"),
    *(("C5", "head", key, f"accuracy, {key}, {{0}} pairs") for key in ("learned", "constructed", "chance")),
    *(
        ("C5", "head", f"{name}_{key}", f"overlap of groups, {name}, {label}, {{0}} pairs")
        for name in ("raw", "centred")
        for key, label in OVERLAPS.items()
    ),
]
THEORIES: dict[tuple[str, str], Callable[..., float]] = {
    ("circle", "failure"): attention.two_feature_failure,
    ("projection", "raw"): attention.own_token_accuracy,
    ("projection", "normalised"): lambda v, k: 1.0,
    ("noise", "noise"): bigrams.score_noise,
    ("usable", "one"): bigrams.usable_pairs,
    ("ties", "entropy"): lambda beta, tied, all, _: bigrams.tied_attention(beta, tied, all, 0.0, n_draws=1)["entropy"],
}


def table(results: list[dict[str, Any]]) -> str:
    """Means and 95 % intervals over seeds beside the theory, in Markdown."""
    return "\n".join([*notes(results).values(), rows(results)]) + "\n"


def notes(results: list[dict[str, Any]]) -> dict[str, str]:
    """What is said of experiments beside their `rows`, in paragraphs of Markdown."""
    limits = circle_limits()
    found = {
        "C1": f"C1. float32 is sure to tell {limits['float32']['certain']:,} tokens on a circle apart, and float64 "
        f"{limits['float64']['certain']:,}. Of V = {VOCABULARY:,}, {limits['float32']['misled']:,} score another at "
        f"least as high as themselves in float32 and {limits['float64']['misled']:,} in float64, where attention 0.9 "
        f"to the own token takes beta = {attention.circle_beta(VOCABULARY, 0.9):.2e}.\n",
        "C4": "C4. Usable B: the most pairs at which any of the competitors wins with probability 0.05 at most. Theory "
        "of the entropy: the same without noise.\n",
    }
    heads = []
    for r in (r for r in results if r["kind"] == "head"):
        raw, centred = (sum(p < 0.05 for p in r[f"{name}_p_value"]) for name in ("raw", "centred"))
        heads.append(
            f"C5. {r['sizes'][0]} pairs: the groups of {raw} of {r['sizes'][3]} heads overlap less than permuted ones "
            f"(p < 0.05), once centred {centred}.\n"
        )
    return found | {"C5": "\n".join(heads)}


def circle_limits() -> dict[str, dict[str, int]]:
    """By type: how many tokens on a circle it is certain to tell apart, and how many of GPT-2's it misleads."""
    types = {"float32": torch.float32, "float64": torch.float64}
    return {
        name: {
            "certain": attention.largest_circle(dtype),
            "misled": attention.misled_tokens(VOCABULARY, dtype, window=8),
        }
        for name, dtype in types.items()
    }


def rows(results: list[dict[str, Any]], *experiments: str) -> str:
    """Means and intervals of some experiments, or of all, as a table in Markdown."""
    lines = ["| | what | mean | 95 % interval over seeds | theory |", "|---|---|---|---|---|"]
    for experiment, kind, key, what in ROWS:
        if experiments and experiment not in experiments:
            continue
        for sizes, s in groups(results, kind, key):
            if kind != "projection" or sizes[1] in ((8, 16, 32, 64) if key == "raw" else (2, 8)):
                theory = f"{THEORIES[kind, key](*sizes):.4g}" if (kind, key) in THEORIES else ""
                span = f"{s['low']:.4g} to {s['high']:.4g}"
                lines.append(f"| {experiment} | {what.format(*sizes)} | {s['mean']:.4g} | {span} | {theory} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]]) -> Figure:
    """C3, C4 and C5 in four panels, with 95 % intervals over seeds."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    (own, noisy), (heads, overlap) = figure.subplots(2, 2)
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    raw = list(groups(results, "projection", "raw"))
    k = np.arange(2, max(sizes[1] for sizes, _ in raw) + 1)
    for color, v in zip(colors, sorted({sizes[0] for sizes, _ in raw}), strict=False):
        _points(own, [(sizes[1], s) for sizes, s in raw if sizes[0] == v], color=color, label=f"V = {v:,}")
        own.plot(k, [attention.own_token_accuracy(v, int(d)) for d in k], color=color, lw=1)
    normalised = [(sizes[1], s) for sizes, s in groups(results, "projection", "normalised")]
    _points(own, normalised, color="gray", fmt="x", label="length-normalised (float64), every V")
    own.set(xlabel="dimensions k", ylabel="share that attend to their own token", ylim=(0, 1.05))
    own.set_title("C3: random token vectors (lines: theory)")
    measured = list(groups(results, "noise", "noise"))
    b = np.geomspace(min(sizes[0] for sizes, _ in measured), max(sizes[0] for sizes, _ in measured), 50)
    for color, (d_model, d_head) in zip(colors, sorted({sizes[1:] for sizes, _ in measured}), strict=False):
        points = [(sizes[0], s) for sizes, s in measured if sizes[1:] == (d_model, d_head)]
        _points(noisy, points, color=color, label=f"D = {d_model:,}, d_head = {d_head}")
        noisy.plot(b, np.sqrt(b) * bigrams.score_noise(1, d_model, d_head), color=color, lw=1)
        noisy.plot(b, np.sqrt(b / (d_model * d_head)), ":", color=color, lw=1)
    noisy.set(xlabel="pairs B", ylabel="noise of a score", xscale="log", yscale="log")
    noisy.set_title("C4: skip bigrams by construction\n(lines: theory; dotted: √(B / (D d_head)))")
    for color, key in zip(colors, ("learned", "constructed", "chance"), strict=False):
        _points(heads, [(sizes[0], s) for sizes, s in groups(results, "head", key)], color=color, label=key, fmt=".-")
    heads.set(ylabel="share that attend to a partner", ylim=(0, 1.05))
    d_model, d_head = next(groups(results, "head", "learned"))[0][1:3]
    heads.set_title(f"C5: trained head, D = {d_model}, d_head = {d_head}")
    for name, style in (("raw", ".-"), ("centred", ".--")):
        for color, (key, label) in zip(colors, OVERLAPS.items(), strict=False):
            points = [(sizes[0], s) for sizes, s in groups(results, "head", f"{name}_{key}")]
            _points(overlap, points, color=color, label=f"{label}, {name}", fmt=style)
    overlap.set(ylabel="overlap of groups' vectors (0: orthogonal)", ylim=(0, None))
    overlap.set_title("C5: do exclusive groups have subspaces of their own?")
    for axes in (heads, overlap):
        axes.set_xscale("log", base=2)
        axes.set(xlabel="skip bigrams")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in (own, noisy, heads, overlap):
        axes.grid(alpha=0.2)
        axes.legend(fontsize="small", ncols=2 if axes is overlap else 1)
    return figure


def groups(results: list[dict[str, Any]], kind: str, key: str) -> Iterator[tuple[tuple[Any, ...], dict[str, float]]]:
    """Sizes of a kind in their order, each with mean and interval of a number over seeds."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for r in results:
        if r["kind"] == kind:
            values.setdefault(tuple(r["sizes"]), []).extend(np.atleast_1d(r[key]).tolist())
    for sizes, found in values.items():
        yield sizes, interval(np.array(found))


def _points(axes: Axes, points: list[tuple[Any, dict[str, float]]], fmt: str = ".", **style: Any) -> None:
    """Means against a size, with their intervals as bars."""
    means, low, high = (np.array([s[key] for _, s in points]) for key in ("mean", "low", "high"))
    axes.errorbar([x for x, _ in points], means, (means - low, high - means), fmt=fmt, capsize=2, **style)
