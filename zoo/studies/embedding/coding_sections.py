"""The parts of the report that code rows sparsely: A1, A2, A3, A7."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import sources
from zoo.report import Chart, Section, Series
from zoo.studies.basis_pursuit_report import Results
from zoo.studies.embedding import controls as planted
from zoo.studies.embedding.numbers import (
    Interval,
    difference,
    limit_of,
    mean_and_interval,
    pursued,
    share,
    spelled,
    units_of,
)
from zoo.studies.matrices import EXPLAINED, MATRICES, planted_atoms
from zoo.studies.sparse_rows_report import at_l0, curve

AS_A_GAUSSIAN = "as many bits as a Gaussian's rows, as far as this can tell"


def _banded(name: str, xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]], style: Any = "line") -> Series:
    """A series of means over seeds, from (points, seeds)."""
    spans = [mean_and_interval(y) for y in ys]
    mean, low, high = ([span[key] for span in spans] for key in ("mean", "low", "high"))
    return Series(name, [float(np.mean(x)) for x in xs], mean, style, low, high)


def errors(done: dict[str, Any]) -> dict[str, Interval]:
    """The held-out error at the last step, its null model's, and their difference."""
    real, null = (pursued(done, done["steps"][-1], m) for m in MATRICES[:2])
    gap = difference(real, null, len(done["rows"]["patterns"]))
    return {"embedding": share(real), "null": share(null), "difference": gap}


def present(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The matrices that were coded."""
    found = {line["matrix"] for line in lines}
    return [matrix for matrix in MATRICES if matrix in found]


def autoencoders(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """A1."""
    lines, seeds = done["A1"], range(done["settings"]["seeds"])
    real, null = (
        np.array([at_l0(curve(lines, m, "TopK", s), 16) for s in seeds]) for m in ("embedding", "covariance-matched")
    )
    gap = difference(real, null)
    series = []
    for matrix in present(lines):
        points = np.stack([curve(lines, matrix, "TopK", s) for s in seeds])  # (seeds, points, 2)
        series.append(_banded(matrix, points[:, :, 0].T.tolist(), points[:, :, 1].T.tolist()))
    points = np.stack([curve(lines, "embedding", "random tokens", s) for s in seeds])
    series.append(_banded("random tokens as atoms", points[:, :, 0].T.tolist(), points[:, :, 1].T.tolist(), "dotted"))
    return Section(
        "A1",
        question,
        f"With 16 latents on, a TopK autoencoder leaves {spelled(share(real))} of the variance of held-out rows "
        f"unexplained, and {spelled(share(null))} of that of Gaussian rows with the same covariance; difference "
        f"{spelled(gap)}.",
        tables=(out / "A1" / "table.md").read_text("utf-8"),
        charts=[
            Chart("a1-fvu", "Held-out error of autoencoders", series, "L0", "FVU", log_x=True, caption="Bands: 95 %.")
        ],
        null_models=EXPLAINED + " Random tokens as atoms have codes by matching pursuit, which are better than an "
        "encoder's.",
        not_shown="Other kinds of autoencoder: `python -m zoo study sparse-rows` trains six.",
        command=command,
        numbers={
            "at_l0_16": {"embedding": share(real), "null": share(null), "difference": gap},
            "lines": lines,
        },
    )


def dictionaries(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """A2."""
    lines, last, found = done["A2"], done["steps"][-1], errors(done)
    settings = {"steps": done["steps"], "sources": done["rows"]["patterns"], "at_l0": done["rows"]["at_l0"]}
    results = Results(lines, settings)
    uncertified = sum(int(r.get("uncertified", 0)) for r in lines)
    coded = sum("uncertified" in r for r in lines) * done["rows"]["n_rows"]
    at_l0, n_atoms = done["rows"]["at_l0"], done["rows"]["n_atoms"]
    certified = {m: results.at(last, m, "fvu_debiased") for m in MATRICES[:2]}
    charts = []
    for name, y, title in (("a2-fvu", "fvu_debiased", "Held-out error"), ("a2-bits", "fvu_at_bits", "Error at bits")):
        x = "l0" if y == "fvu_debiased" else "bits_per_row"
        series = []
        for matrix in present(lines):
            stack = _common(results, last, matrix, x, y)
            series.append(_banded(matrix, stack[:, :, 0].T.tolist(), stack[:, :, 1].T.tolist()))
        if x == "l0":
            for matrix in present(lines):
                stack = _common(results, last, matrix, "train_l0", "train_fvu_debiased")
                x_mean, y_mean = stack.mean(0).T.tolist()
                series.append(Series(f"{matrix}, trained on", x_mean, y_mean, style="dotted", color=matrix))
        label = "L0" if x == "l0" else "bits per row, dictionary included"
        charts.append(Chart(name, title, series, label, "FVU, debiased", log_x=x == "l0", caption="Bands: 95 %."))
    alike = [r for r in lines if r["coder"] == "stability" and r["step"] == last]
    stable = {m: np.mean([r["cosine"] for r in alike if r["matrix"] == m]) for m in MATRICES[:2]}
    return Section(
        "A2",
        question,
        f"Sums of {at_l0} of {n_atoms} learned atoms, found by matching pursuit, leave "
        f"{spelled(found['embedding'])} of the variance of held-out rows unexplained, and {spelled(found['null'])} of "
        f"that of Gaussian rows with the same covariance; difference {spelled(found['difference'])}. The optima that "
        f"the atoms were learned with leave {spelled(share(certified[MATRICES[0]]))} and "
        f"{spelled(share(certified[MATRICES[1]]))} with {at_l0} atoms a row on average; of {coded:,} such codes "
        f"{uncertified or 'none'} lack a certificate. Codes by matching pursuit have no certificate: other codes may "
        f"leave less. Two seeds' atoms have a mean best |cosine| of {stable[MATRICES[0]]:.2f} "
        f"({stable[MATRICES[1]]:.2f} for Gaussian rows).",
        tables=(out / "A2" / "table.md").read_text("utf-8"),
        charts=charts,
        pictures=[out / "A2" / "curves.png"],
        null_models=EXPLAINED + " Atoms that were not learned (random directions, random tokens) are in the table.",
        not_shown=(
            "That a small error would mean superposition by itself: where atoms span all dimensions the error is 0 for "
            "any rows at L0 = D, so only its size at a small L0, beside null models, tells anything."
        ),
        command=command,
        numbers={"at_l0": at_l0, **found, "uncertified": uncertified, "lines": lines},
    )


def _common(results: Results, step: Any, matrix: str, x: str, y: str) -> np.ndarray:
    """Points (runs, penalties, 2) of all sources and seeds at the penalties that every one of them has, by L0."""
    own = [(source, seed) for source in results.sources for seed in results.seeds]
    by_penalty = [
        [results.curve(step, matrix, "basis pursuit", "penalty", key, *of).round(12) for key in (x, y)] for of in own
    ]
    shared = set.intersection(*(set(a[:, 0].tolist()) for a, _ in by_penalty))
    stacks = [[curve[[p in shared for p in curve[:, 0]], 1] for curve in pair] for pair in by_penalty]
    return np.array(stacks).transpose(0, 2, 1)[:, ::-1]


def controls(question: str, done: dict[str, Any], command: str) -> Section:
    """Superpositions that are known, and whether the study recognises them."""
    if isinstance(done["controls"], str):
        return Section("controls", question, done["controls"], tested=False)
    tolerance = done["settings"]["tolerance"]
    lines = judged_controls(done)
    n_planted, D = planted_atoms(done["rows"]["n_atoms"], done["rows"]["d_model"]), done["rows"]["d_model"]
    series = []
    for noise in sorted({line["noise"] for line in lines}):
        own = [line["error"] for line in lines if line["noise"] == noise]
        mean, low, high = ([error[key] for error in own] for key in ("mean", "low", "high"))
        x = [float(line["sparsity"]) for line in lines if line["noise"] == noise]
        series.append(Series(f"{100 * noise:g} % noise", x, mean, "line", low, high))
    error = errors(done)["embedding"]["mean"]
    x = [float(min(line["sparsity"] for line in lines)), float(max(line["sparsity"] for line in lines))]
    series.append(Series("the embedding", x, [error, error], "dotted"))
    return Section(
        "controls",
        question,
        planted.sentence(lines),
        tables=planted.table(lines)
        + f"\n\nHeld-out error of rows that are sums of some of {n_planted} random atoms in {D} dimensions, coded as "
        f"the embedding is. Bold: called explained (error below {tolerance:g}, that of isotropic Gaussian rows "
        "above). Brackets are 95 % Student t intervals over seeds.",
        charts=[
            Chart(
                "controls",
                "Held-out error of planted superpositions",
                series,
                "atoms a row",
                f"FVU with {done['rows']['at_l0']} atoms a row",
                log_x=True,
                caption="Bands: 95 %.",
            )
        ],
        null_models="Isotropic Gaussian rows with the norms of the embedding's.",
        not_shown=(
            "Whether planted rows with an error above the tolerance differ from Gaussian rows of their covariance. "
            "Superpositions with other coefficients, with atoms that are not in random directions, or with more atoms "
            "than these."
        ),
        command=command,
        numbers={"lines": lines, "planted_atoms": n_planted},
    )


def judged_controls(done: dict[str, Any]) -> list[dict[str, Any]]:
    """Every kind of planted superposition, and whether it was recognised."""
    gaussian = pursued(done, done["steps"][-1], "isotropic")
    return planted.judged(done["controls"], gaussian, done["settings"]["tolerance"])


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
    runs = len(done["rows"]["patterns"])
    gaps = [difference(a, b, runs) for a, b in zip(real, null, strict=True)]
    tolerance = done["settings"]["tolerance"]
    going = (
        f"A fitted power law goes to {spelled(limit)} (from step {limit['from_step']:.0f} on)"
        if limit
        else "No limit can be fitted: fewer than 5 steps lie after its last turn"
    )
    low = "below" if limit and limit["high"] <= tolerance else "above" if limit and limit["low"] > tolerance else None
    lines = ["| step | embedding | covariance-matched | difference |", "|---|---|---|---|"]
    for step, a, b, gap in zip(steps, real, null, gaps, strict=True):
        lines.append(f"| {step:,} | {spelled(share(a))} | {spelled(share(b))} | {spelled(gap)} |")
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
        f"{spelled(share(real[-1]))}. {going}{f', {low} the tolerance of {tolerance:g}' if low else ''}. "
        f"Its distance from the null model goes from {spelled(gaps[0])} to {spelled(gaps[-1])}.",
        tables="\n".join(lines) + f"\n\nBrackets are 95 % Student t intervals over {units_of(done)}; "
        "those of differences from one embedding ask whether one more draw of the null model could be as far away.",
        charts=charts,
        null_models="Gaussian rows with the mean and covariance of each step's own matrix.",
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

    def ratios(matrix: str, n: int) -> np.ndarray:
        """Least bits in units of a Gaussian's at the same error, over penalties; one value per seed."""
        seeds = range(done["settings"]["seeds"])
        own = [[r for r in lines if (r["matrix"], r["n_atoms"], r["seed"]) == (matrix, n, s)] for s in seeds]
        return np.array([min((_ratio(r) for r in of_seed), default=np.nan) for of_seed in own])

    found = {n: {m: mean_and_interval(ratios(m, n), 0.0) for m in matrices} for n in sizes}
    gaps = {n: difference(ratios("embedding", n), ratios("covariance-matched", n)) for n in sizes}
    table = [f"| atoms | {' | '.join(matrices)} | embedding - covariance-matched |", "|---" * (2 + len(matrices)) + "|"]
    table += [
        f"| {n:,} | {' | '.join(spelled(found[n][m], 2) for m in matrices)} | {spelled(gaps[n], 2)} |" for n in sizes
    ]
    best = min(sizes, key=lambda n: found[n]["embedding"]["mean"])
    real, null, gap = found[best]["embedding"], found[best]["covariance-matched"], gaps[best]
    less = "fewer bits than theirs" if gap["high"] < 0 else "more bits than theirs" if gap["low"] > 0 else AS_A_GAUSSIAN
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
        f"rows, difference {spelled(gap, 2)}: {less}. Below 1 sparse coding would beat any code for Gaussian rows.",
        tables="\n".join(table) + "\n\nTotal bits (dictionary, indices and coefficients, 8 bits a number) over the "
        "Gaussian's rate-distortion bound at the error of the rounded reconstruction, at the penalty where that is "
        "least. Brackets: 95 % Student t intervals over seeds; that of the difference asks whether one more draw of "
        f"the null model could be as far away. A dictionary of all {n_rows:,} rows would have no "
        "error at L0 1, and is no finding.",
        charts=[Chart("a7-bits", "Bits over the Gaussian bound", series, "atoms", "ratio", caption="Whiskers: 95 %.")],
        null_models="The same for Gaussian rows with the same mean and covariance, and for planted rows, sums of 4 "
        "random atoms, if there can be any.",
        not_shown=(
            "Codes with fewer bits per coefficient, and entropy coding. The Gaussian bound holds for long blocks of "
            "rows, so no code of single rows reaches it."
        ),
        command=command,
        numbers={"ratio": {str(n): {**found[n], "difference": gaps[n]} for n in sizes}, "told": less},
    )


def _ratio(line: dict[str, Any]) -> float:
    bound = line["gaussian_bits_per_row"]
    return float(line["bits_per_row"] / bound) if bound > 0 else float("inf")
