"""Tokens that attention tells apart: on a circle (C1, C2), and in few random dimensions (C3)."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.models.toy import attention
from zoo.report import Chart, Section, Series
from zoo.studies.attention_features_report import VOCABULARY, circle_limits, groups, notes, rows
from zoo.studies.embedding.numbers import mean_and_interval, spelled
from zoo.studies.toys.measured import COLORS, agreement, agrees, listed, series, theory

Results = list[dict[str, Any]]
RARE = 0.01  # share of failures below which something hardly breaks
ENOUGH = 0.95  # share of right answers at which few dimensions count as enough


def by_sizes(results: Results, kind: str, key: str) -> dict[tuple[Any, ...], np.ndarray]:
    """A number of a kind of measurement, over seeds, by sizes."""
    return {
        sizes: np.concatenate(
            [np.atleast_1d(r[key]) for r in results if (r["kind"], tuple(r["sizes"])) == (kind, sizes)]
        )
        for sizes, _ in groups(results, kind, key)
    }


def with_sizes(found: dict[tuple[Any, ...], Any]) -> list[dict[str, Any]]:
    """The same as plain JSON."""
    return [{"sizes": list(sizes), "value": value} for sizes, value in found.items()]


def circle(results: Results, command: str) -> Section:
    """C1: one feature per token, on a circle.

    Args:
        results: Of the study `attention_features`.
        command: What makes it again.
    """
    limits = circle_limits()
    parts = []
    for name, limit in limits.items():
        fits = "enough" if limit["misled"] == 0 else f"not enough: {limit['misled']:,} of them attend to another"
        parts.append(f"{name} is {fits} (it is sure to tell {limit['certain']:,} apart)")
    finding = (
        "Yes, in exact arithmetic, for the own score exceeds a neighbour's by 1 - cos(2 pi / V). For the V = "
        f"{VOCABULARY:,} tokens of GPT-2 {listed(parts)}."
    )
    v = np.geomspace(10, 1e9, 33).round().astype(int).tolist()
    gaps = [attention.circle_gap(n) for n in v]
    lines = [Series("own score minus a neighbour's", v, gaps, "line", color=COLORS[0])]
    for (name, limit), color in zip(limits.items(), COLORS[1:], strict=False):
        level = attention.circle_gap(limit["certain"])
        lines.append(Series(f"rounding of {name}", [v[0], v[-1]], [level] * 2, "dashed", color=color))
    chart = Chart(
        "c1-circle",
        "What precision a circle takes",
        lines,
        "tokens V",
        "difference of scores",
        log_x=True,
        log_y=True,
        caption="Scores closer than the dashed lines may be rounded into each other.",
    )
    return Section(
        "C1",
        "Do 2 dimensions suffice to find the own token among all?",
        finding,
        tables=notes(results)["C1"],
        charts=[chart],
        null_models="Exact arithmetic, where the answer is known.",
        not_shown="Anything that is learned, and features that are not mutually exclusive (C2).",
        command=command,
        numbers={"limits": limits, "vocabulary": VOCABULARY},
    )


def two_features(results: Results, command: str) -> Section:
    """C2: two features on the circle at once; arguments as above."""
    found = {sizes[0]: v for sizes, v in by_sizes(results, "circle", "failure").items()}
    expected = {n: attention.two_feature_failure(int(n)) for n in found}
    fit = agreement(np.array([v / expected[n] for n, v in found.items()]))
    shares = [
        f"{spelled(mean_and_interval(v.tolist()))} of queries fail among {n:,} positions" for n, v in found.items()
    ]
    theories = listed([f"{value:.3f}" for value in expected.values()])
    names = [f"{n:,} positions" for n in found]
    chart = Chart(
        "c2-failures",
        "Queries that attend to a wrong position",
        [
            series("simulated", names, list(found.values()), "bars", color=COLORS[0]),
            Series("theory", names, list(expected.values()), "points", color=COLORS[1]),
            Series("a random position", names, [1 - 1 / n for n in found], "points", color=COLORS[2]),
        ],
        "",
        "share that fails",
    )
    breaks = all(mean_and_interval(v.tolist())["low"] > RARE for v in found.values())
    agree = {"yes": "as theory says", "no": "unlike theory", "undecided": "which is not clearly what theory says"}
    return Section(
        "C2",
        "And when two features are present at once?",
        f"{'It breaks' if breaks else 'It hardly breaks'}: {listed(shares)}, {agree[agrees(fit)]} ({theories}).",
        tables=rows(results, "C2"),
        charts=[chart],
        null_models="Theory of uniform angles; a random position, which fails in all but one of so many cases.",
        not_shown="Features that are placed better than at random on the circle, and more than two dimensions.",
        command=command,
        numbers={"simulated": {str(n): v for n, v in found.items()}, "theory": expected, "agreement": fit},
    )


def dimensions(results: Results, folder: Path, command: str) -> Section:
    """C3: random vectors in few dimensions.

    Args:
        results: Of the study `attention_features`.
        folder: Of the study.
        command: What makes it again.
    """
    raw, normalised = (by_sizes(results, "projection", key) for key in ("raw", "normalised"))
    sizes = sorted({v for v, _ in raw})
    expected = {size: attention.own_token_accuracy(*size) for size in raw}
    off = max(abs(float(v.mean()) - expected[size]) for size, v in raw.items())
    spans = {size: mean_and_interval(v.tolist()) for size, v in raw.items()}
    spans = {size: span for size, span in spans.items() if span["low"] < span["high"]}  # not all seeds at 0 or 1
    held = sum(span["low"] <= expected[size] <= span["high"] for size, span in spans.items())
    enough = {v: min((k for (n, k), x in raw.items() if n == v and x.mean() >= ENOUGH), default=None) for v in sizes}
    took = listed([f"k = {k} for V = {v:,}" if k else f"no k for V = {v:,}" for v, k in enough.items()])
    least = min(float(v.mean()) for v in normalised.values())
    finding = (
        f"Of the dimensions tried, {100 * ENOUGH:.0f} % attend to their own token from {took} on. Shares differ from "
        f"theory by {off:.3f} at most, and {held} of the {len(spans)} intervals that have a width hold it. "
        "Vectors of equal length do so "
        + ("always, up to precision" if least > 0.999 else "less often than theory says")
        + f": {least:.4f} at least."
    )
    lines = []
    for v, color in zip(sizes, cycle(COLORS[:3])):
        k = sorted(d for n, d in raw if n == v)
        lines.append(theory(f"V = {v:,}", k, [expected[v, d] for d in k], color))
        lines.append(series(f"V = {v:,}", k, [raw[v, d] for d in k], color=color))
    k = sorted({d for _, d in normalised})
    lowest = [min(float(x.mean()) for (_, n), x in normalised.items() if n == d) for d in k]
    lines.append(Series("of equal length, the worst V", k, lowest, "dotted", color=COLORS[3]))
    chart = Chart(
        "c3-dimensions",
        "Queries that attend to their own token",
        lines,
        "dimensions k",
        "share",
        caption="Dashed: theory. Whiskers: 95 % over draws of the vectors.",
    )
    return Section(
        "C3",
        "How many random dimensions tell a vocabulary apart?",
        finding,
        tables=rows(results, "C3"),
        charts=[chart],
        pictures=[folder / "attention_features.png"],
        null_models="E[Phi(r)^(V - 1)] with r ~ chi(k), which has nothing to fit; the same vectors at equal length.",
        not_shown="Learned vectors, which are not independent; positive temperatures; other tokens of the vocabulary "
        "than those that asked.",
        command=command,
        numbers={
            "raw": with_sizes(raw),
            "normalised": with_sizes(normalised),
            "theory": with_sizes(expected),
            "enough": enough,
        },
    )
