"""The parts of the report that code rows sparsely: A1, A2, A3, A7."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import sources
from zoo.report import Chart, Section, Series
from zoo.studies.basis_pursuit_report import Results
from zoo.studies.embedding.numbers import Interval, limit_of, mean_and_interval, pursued, spelled, units_of
from zoo.studies.matrices import MATRICES
from zoo.studies.sparse_rows_report import at_l0, curve

COVARIANCE = (
    "The covariance-matched null model is Gaussian with the mean, covariance and row norms of the matrix; permuted "
    "coordinates keep these and every principal coordinate's distribution; isotropic rows keep the norms only; planted "
    "rows are sums of 4 random atoms, the positive control."
)


def _banded(name: str, xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]], style: Any = "line") -> Series:
    """A series of means over seeds, from (points, seeds)."""
    spans = [mean_and_interval(y) for y in ys]
    mean, low, high = ([span[key] for span in spans] for key in ("mean", "low", "high"))
    return Series(name, [float(np.mean(x)) for x in xs], mean, style, low, high)


def errors(done: dict[str, Any]) -> dict[str, Interval]:
    """The held-out error at the last step, its null model's, and their difference."""
    real, null, control = (pursued(done, done["steps"][-1], m) for m in (*MATRICES[:2], "planted"))
    found = {"embedding": real, "null": null, "difference": real - null, "planted": control}
    return {name: mean_and_interval(values) for name, values in found.items()}


def autoencoders(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """A1."""
    lines, seeds = done["A1"], range(done["settings"]["seeds"])
    real, null = (
        np.array([at_l0(curve(lines, m, "TopK", s), 16) for s in seeds]) for m in ("embedding", "covariance-matched")
    )
    difference = mean_and_interval(real - null)
    series = []
    for matrix in MATRICES:
        points = np.stack([curve(lines, matrix, "TopK", s) for s in seeds])  # (seeds, points, 2)
        series.append(_banded(matrix, points[:, :, 0].T.tolist(), points[:, :, 1].T.tolist()))
    points = np.stack([curve(lines, "embedding", "random tokens", s) for s in seeds])
    series.append(_banded("random tokens as atoms", points[:, :, 0].T.tolist(), points[:, :, 1].T.tolist(), "dotted"))
    return Section(
        "A1",
        question,
        f"With 16 latents on, a TopK autoencoder leaves {spelled(mean_and_interval(real))} of the variance of held-out "
        f"rows, and {spelled(mean_and_interval(null))} of Gaussian rows with the same covariance; difference "
        f"{spelled(difference)}.",
        tables=(out / "A1" / "table.md").read_text("utf-8"),
        charts=[
            Chart("a1-fvu", "Held-out error of autoencoders", series, "L0", "FVU", log_x=True, caption="Bands: 95 %.")
        ],
        null_models=COVARIANCE + " Random tokens as atoms have greedy codes, which are better than an encoder's.",
        not_shown="Other kinds of autoencoder: `python -m zoo study sparse-rows` trains six.",
        command=command,
        numbers={"at_l0_16": {"embedding": mean_and_interval(real), "null": mean_and_interval(null)}, "lines": lines},
    )


def dictionaries(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """A2."""
    lines, last, found = done["A2"], done["steps"][-1], errors(done)
    settings = {"steps": done["steps"], "sources": done["rows"]["patterns"], "at_l0": done["rows"]["at_l0"]}
    results = Results(lines, settings)
    uncertified = sum(int(r.get("uncertified", 0)) for r in lines)
    charts = []
    for name, y, title in (("a2-fvu", "fvu_debiased", "Held-out error"), ("a2-bits", "fvu_at_bits", "Error at bits")):
        x = "l0" if y == "fvu_debiased" else "bits_per_row"
        series = []
        for matrix in MATRICES:
            runs = [
                results.curve(last, matrix, "basis pursuit", x, y, source, seed)
                for source in results.sources
                for seed in results.seeds
            ]
            stack = np.stack(runs)  # (runs, penalties, 2)
            series.append(_banded(matrix, stack[:, :, 0].T.tolist(), stack[:, :, 1].T.tolist()))
        if x == "l0":
            for matrix in MATRICES:
                stack = np.stack(
                    [
                        results.curve(last, matrix, "basis pursuit", "train_l0", "train_fvu_debiased", source, seed)
                        for source in results.sources
                        for seed in results.seeds
                    ]
                )
                x_mean, y_mean = stack.mean(0).T.tolist()
                series.append(Series(f"{matrix}, trained on", x_mean, y_mean, style="dotted", color=matrix))
        label = "L0" if x == "l0" else "bits per row, dictionary included"
        charts.append(Chart(name, title, series, label, "FVU, debiased", log_x=x == "l0", caption="Bands: 95 %."))
    alike = [r for r in lines if r["coder"] == "stability" and r["step"] == last]
    stable = {m: np.mean([r["cosine"] for r in alike if r["matrix"] == m]) for m in MATRICES[:2]}
    return Section(
        "A2",
        question,
        f"With {done['rows']['at_l0']} of {done['rows']['n_atoms']} atoms a row, {spelled(found['embedding'])} of the "
        f"variance of held-out rows is left, against {spelled(found['null'])} of Gaussian rows with their covariance; "
        f"difference {spelled(found['difference'])}; of planted superpositions {spelled(found['planted'])}. "
        f"Two seeds' atoms have a mean best |cosine| of {stable[MATRICES[0]]:.2f} ({stable[MATRICES[1]]:.2f} on the "
        f"Gaussian rows). {uncertified or 'No'} codes are without a certificate of being optimal.",
        tables=(out / "A2" / "table.md").read_text("utf-8"),
        charts=charts,
        pictures=[out / "A2" / "curves.png"],
        null_models=COVARIANCE + " Atoms that nobody learned (random directions, random tokens) stand in the table.",
        not_shown=(
            "That a small error would mean superposition by itself: where atoms span all dimensions the error is 0 for "
            "any rows at L0 = D, so only its size at a small L0, beside null models, tells anything."
        ),
        command=command,
        numbers={"at_l0": done["rows"]["at_l0"], **found, "uncertified": uncertified, "lines": lines},
    )


def pretraining(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """A3."""
    steps = done["steps"]
    if len(steps) < 2:
        return Section(
            "A3", question, "only one step of pretraining was given; give several with --steps", tested=False
        )
    values = {m: [pursued(done, step, m) for step in steps] for m in MATRICES[:2]}
    real, null = values.values()
    change = mean_and_interval(real[-1] - real[0])
    limit = limit_of(done)
    gaps = [mean_and_interval(a - b) for a, b in zip(real, null, strict=True)]
    tolerance = done["settings"]["tolerance"]
    going = (
        f"A fitted power law goes to {spelled(limit)} (from step {limit['from_step']:.0f} on)"
        if limit
        else "No limit can be fitted: fewer than 5 steps lie after its last turn"
    )
    low = "below" if limit and limit["high"] <= tolerance else "above" if limit and limit["low"] > tolerance else None
    lines = ["| step | embedding | covariance-matched | difference |", "|---|---|---|---|"]
    for step, a, b, gap in zip(steps, real, null, gaps, strict=True):
        lines.append(
            f"| {step:,} | {spelled(mean_and_interval(a))} | {spelled(mean_and_interval(b))} | {spelled(gap)} |"
        )
    drift = _drift(done)
    charts = [
        Chart(
            "a3-error",
            f"Held-out error with {done['rows']['at_l0']} atoms a row",
            [_banded(m, [[max(s, 1)] for s in steps], [v.tolist() for v in values[m]]) for m in values],
            "step of pretraining (the first at 1 if it is 0)",
            "FVU",
            log_x=True,
            caption="Bands: 95 %. The null model is made anew of every step; an untrained matrix is a Gaussian itself.",
        ),
        Chart(
            "a3-difference",
            "What the covariance does not explain",
            [
                _banded(
                    "embedding less null model",
                    [[max(s, 1)] for s in steps],
                    [(a - b).tolist() for a, b in zip(real, null, strict=True)],
                )
            ],
            "step of pretraining (the first at 1 if it is 0)",
            "difference in FVU",
            log_x=True,
        ),
        drift,
    ]
    return Section(
        "A3",
        question,
        f"From step {steps[0]:,} to {steps[-1]:,} the error changes by {spelled(change)}, to "
        f"{spelled(mean_and_interval(real[-1]))}. {going}{f', {low} the tolerance of {tolerance:g}' if low else ''}. "
        f"Its distance from the null model goes from {spelled(gaps[0])} to {spelled(gaps[-1])}.",
        tables="\n".join(lines) + f"\n\nBrackets are 95 % Student t intervals over {units_of(done)}.",
        charts=charts,
        null_models="Gaussian rows with the mean, covariance and norms of each step's own matrix.",
        not_shown=(
            "What comes after the last step: the limit rests on a power law, and its interval on errors being "
            "independent over steps."
        ),
        command=command,
        numbers={
            "steps": steps,
            **{m: [mean_and_interval(v) for v in values[m]] for m in values},
            "difference": gaps,
            "limit": limit,
        },
    )


def _drift(done: dict[str, Any]) -> Chart:
    """How far rows have moved since the first step, in units of their rms distance from the mean at the last."""
    pattern, steps = done["rows"]["patterns"][0], done["steps"]
    first = sources.embedding(pattern.replace("{step}", str(steps[0])))
    matrices = [sources.embedding(pattern.replace("{step}", str(step))) for step in steps]
    unit = (matrices[-1] - matrices[-1].mean(0)).square().sum(1).mean().sqrt()
    moved = [((W - first).norm(dim=1) / unit).numpy() for W in matrices]
    x = [float(max(step, 1)) for step in steps]
    middle, low, high = ([float(np.quantile(m, q)) for m in moved] for q in (0.5, 0.1, 0.9))
    return Chart(
        "a3-drift",
        "How far rows move",
        [Series("median row", x, middle, "line", low, high)],
        "step of pretraining (the first at 1 if it is 0)",
        "distance from the first step, in rms row lengths",
        log_x=True,
        caption="Band: from the 10th to the 90th percentile of rows.",
    )


def bits(question: str, done: dict[str, Any], command: str) -> Section:
    """A7."""
    lines = done["A7"]
    sizes, matrices = sorted({r["n_atoms"] for r in lines}), list(dict.fromkeys(r["matrix"] for r in lines))

    def ratio(matrix: str, n: int) -> Interval:
        """Least bits in units of a Gaussian's at the same error, over penalties; one value per seed."""
        seeds = range(done["settings"]["seeds"])
        own = [[r for r in lines if (r["matrix"], r["n_atoms"], r["seed"]) == (matrix, n, s)] for s in seeds]
        return mean_and_interval([min(_ratio(r) for r in of_seed) for of_seed in own])

    table = [f"| atoms | {' | '.join(matrices)} |", "|---" * (1 + len(matrices)) + "|"]
    found = {n: {m: ratio(m, n) for m in matrices} for n in sizes}
    table += [f"| {n:,} | {' | '.join(spelled(found[n][m], 2) for m in matrices)} |" for n in sizes]
    best = min(sizes, key=lambda n: found[n]["embedding"]["mean"])
    real, null = found[best]["embedding"], found[best]["covariance-matched"]
    less = (
        "fewer"
        if real["high"] < null["low"]
        else "more"
        if real["low"] > null["high"]
        else "no clearly other number of"
    )
    sized = [str(n) for n in sizes]
    series = []
    for m in matrices:
        mean, low, high = ([found[n][m][key] for n in sizes] for key in ("mean", "low", "high"))
        series.append(Series(m, sized, mean, "points", low, high))
    n_rows = done["rows"]["n_rows"]
    return Section(
        "A7",
        question,
        f"With {best:,} atoms for {n_rows:,} rows, dictionary and codes take {spelled(real, 2)} times the bits that a "
        f"Gaussian source of the same covariance needs for the same error, and {spelled(null, 2)} times on Gaussian "
        f"rows: {less} bits than theirs. Below 1 sparse coding would beat any code for Gaussian rows.",
        tables="\n".join(table) + "\n\nTotal bits (dictionary, indices and coefficients, 8 bits a number) over the "
        "Gaussian's rate-distortion bound at the error of the rounded reconstruction, at the penalty where that is "
        f"least. Brackets: 95 % Student t intervals over seeds. A dictionary of all {n_rows:,} rows would have no "
        "error at L0 1, and is no finding.",
        charts=[Chart("a7-bits", "Bits over the Gaussian bound", series, "atoms", "ratio", caption="Whiskers: 95 %.")],
        null_models="The same on covariance-matched Gaussian rows and on planted rows, sums of 4 random atoms.",
        not_shown=(
            "Codes with fewer bits per coefficient, and entropy coding. The Gaussian bound holds for long blocks of "
            "rows, so no code of single rows reaches it."
        ),
        command=command,
        numbers={"ratio": {str(n): found[n] for n in sizes}},
    )


def _ratio(line: dict[str, Any]) -> float:
    bound = line["gaussian_bits_per_row"]
    return float(line["bits_per_row"] / bound) if bound > 0 else float("inf")
