"""Heads that attend by skip bigrams between features: constructed (C4) and trained (C5)."""

from itertools import cycle
from typing import Any

import numpy as np

from zoo.models.toy import skip_bigram_head as bigrams
from zoo.report import Chart, Section, Series
from zoo.studies.attention_features_report import notes, rows
from zoo.studies.embedding.numbers import mean_and_interval, spelled
from zoo.studies.toys.attention import Results, by_sizes, with_sizes
from zoo.studies.toys.measured import COLORS, agreement, agrees, series, sign, theory, told

HEADS = {"learned": "learned", "constructed": "constructed", "chance": "a random position"}
OVERLAPS = {"overlap": "learned vectors", "permuted": "learned vectors, groups permuted", "random": "random vectors"}
NOISE = {
    "yes": "Noise of a score and theory agree",
    "no": "Noise of a score and theory do not agree",
    "undecided": "Whether noise of a score and theory agree is undecided",
}


def noise_ratios(results: Results) -> np.ndarray:
    """Noise of constructed heads over its theory (C4), (settings, seeds)."""
    return np.array([v / bigrams.score_noise(*sizes) for sizes, v in by_sizes(results, "noise", "noise").items()])


def heads(results: Results) -> list[dict[str, Any]]:
    """Trained heads (C5), by number of pairs.

    Seeds are paired in `against_constructed`, the share of right answers minus that of the construction, and in
    `against_permuted`, the overlap of the groups' vectors minus that of permuted groups.
    """
    found = []
    for r in (r for r in results if r["kind"] == "head"):
        against = np.array(r["learned"]) - np.array(r["constructed"])
        apart = np.array(r["raw_overlap"]) - np.array(r["raw_permuted"])
        one = {"pairs": r["sizes"][0], "heads": len(r["learned"])}
        one |= {key: mean_and_interval(r[key]) for key in (*HEADS, "raw_overlap", "raw_permuted", "raw_random")}
        one |= {"against_constructed": mean_and_interval(against.tolist())}
        one |= {"against_permuted": mean_and_interval(apart.tolist())}
        found.append(one | {"significant": sum(p < 0.05 for p in r["raw_p_value"])})
    return found


def constructed(results: Results, command: str) -> Section:
    """C4: pairs written into a head.

    Args:
        results: Of the study `attention_features`.
        command: What makes it again.
    """
    noise, fit = by_sizes(results, "noise", "noise"), agreement(noise_ratios(results))
    one, partner = (by_sizes(results, "usable", key) for key in ("one", "partner"))
    usable = []
    for size in one:
        most = bigrams.usable_pairs(*(int(v) for v in size))
        spans = [spelled(mean_and_interval(found[size].tolist()), 0) for found in (one, partner)]
        usable.append(
            f"{spans[1]} against the partner's own score and {spans[0]} against a score of 1 (formula {most})"
        )
    d_model, d_head, rivals = next(iter(one))
    ties = by_sizes(results, "ties", "entropy")
    hard, tied = max(ties), max(ties)[1]
    finding = (
        f"{NOISE[agrees(fit)]}: {told(fit)}. The most "
        f"pairs at which one of {rivals} competitors wins in 5 % of cases, at D = {d_model} and d_head = {d_head}: "
        f"{usable[0]}. Of {tied} tied partners noise of {hard[3]} leaves an entropy of "
        f"{spelled(mean_and_interval(ties[hard].tolist()), 2)} at beta = {hard[0]}, where log {tied} = "
        f"{np.log(tied):.2f} is all of it."
    )
    lines = []
    for shape, color in zip(dict.fromkeys(size[1:] for size in noise), cycle(COLORS)):
        name, found = f"D = {shape[0]:,}, d_head = {shape[1]}", {s: v for s, v in noise.items() if s[1:] == shape}
        b = [size[0] for size in found]
        lines.append(theory(name, b, [bigrams.score_noise(*s) for s in found], color))
        lines.append(series(name, b, list(found.values()), color=color))
    betas = [size[0] for size in ties]
    charts = [
        Chart("c4-noise", "Noise of a score that should be 0", lines, "pairs B", "rms score", log_x=True, log_y=True),
        Chart(
            "c4-ties",
            f"Entropy of attention over {tied} tied partners",
            [
                series("with noise", betas, list(ties.values()), "line", color=COLORS[0]),
                theory("without noise", betas, [_entropy(*s) for s in ties], COLORS[1]),
            ],
            "beta, inverse temperature",
            "nats",
            log_x=True,
        ),
    ]
    names = [f"D = {size[0]}, d_head = {size[1]}" for size in one]
    bars = {"against a score of 1": one, "against the partner's own score": partner}
    held = [
        series(k, names, list(v.values()), "bars", color=c) for (k, v), c in zip(bars.items(), COLORS, strict=False)
    ]
    formula = [bigrams.usable_pairs(*(int(v) for v in size)) for size in one]
    held.append(Series("formula", names, formula, "points", color=COLORS[2]))
    charts.append(Chart("c4-usable", "Pairs that a head can hold", held, "", "usable pairs B"))
    return Section(
        "C4",
        "How many skip bigrams can one head hold by construction?",
        finding,
        tables=f"{notes(results)['C4']}\n\n{rows(results, 'C4')}",
        charts=charts,
        null_models="Theory of the noise, sqrt(B / (D d_head)) up to a factor that tends to 1, the Gaussian formula "
        "of the usable pairs, and ties without noise.",
        not_shown="Other constructions than a sum of outer products through a random projection; more than one "
        "feature per position; values and outputs of the head.",
        command=command,
        numbers={
            "noise": with_sizes(noise),
            "agreement": fit,
            "usable": {"one": with_sizes(one), "partner": with_sizes(partner)},
            "ties": with_sizes(ties),
        },
    )


def _entropy(beta: float, tied: float, positions: float, _: float) -> float:
    return bigrams.tied_attention(beta, int(tied), int(positions), 0.0, n_draws=1)["entropy"]


def learned(results: Results, command: str) -> Section:
    """C5: heads that were trained; arguments as above."""
    found = heads(results)
    better = sum(sign(one["against_constructed"]) == "above" for one in found)
    first, last = found[0], found[-1]
    apart = sum(sign(one["against_permuted"]) == "below" for one in found)
    significant, count = (sum(one[key] for one in found) for key in ("significant", "heads"))
    finding = (
        f"Learned heads attend to a partner more often than constructed ones at {better} of {len(found)} numbers of "
        f"pairs: {spelled(first['learned'])} against {spelled(first['constructed'])} with {first['pairs']}, "
        f"{spelled(last['learned'])} against {spelled(last['constructed'])} with {last['pairs']}. Vectors of exclusive "
        f"groups overlap less than permuted groups at {apart} of {len(found)} ({significant} of {count} heads at p < "
        "0.05), "
        + (
            "but are not orthogonal"
            if first["raw_overlap"]["low"] > 0.01
            else "and are orthogonal with the fewest pairs"
        )
        + f": {spelled(first['raw_overlap'])} with {first['pairs']} pairs, {spelled(last['raw_overlap'])} with "
        f"{last['pairs']} (random vectors {last['raw_random']['mean']:.3f}, orthogonal groups 0)."
    )
    x = [str(one["pairs"]) for one in found]

    def lines(names: dict[str, str], prefix: str = "") -> list[Series]:
        made = []
        for (key, text), color in zip(names.items(), COLORS, strict=False):
            mean, low, high = ([one[f"{prefix}{key}"][end] for one in found] for end in ("mean", "low", "high"))
            made.append(Series(text, x, mean, "line", low, high, color=color))
        return made

    charts = [
        Chart("c5-right", "Attends to a partner", lines(HEADS), "skip bigrams", "share of queries"),
        Chart(
            "c5-overlap",
            "Overlap of exclusive groups' vectors",
            lines(OVERLAPS, "raw_"),
            "skip bigrams",
            "overlap (0: orthogonal)",
        ),
    ]
    return Section(
        "C5",
        "Does a trained head do better, and give exclusive groups subspaces of their own?",
        finding,
        tables=f"{notes(results)['C5']}\n\n{rows(results, 'C5')}",
        charts=charts,
        null_models="The construction of C4 with the same pairs; a random position; the learned vectors with permuted "
        "groups; random vectors.",
        not_shown="Other sizes of the head, a frozen embedding, values and outputs (only where it looks). The "
        "p-values of heads trained on the same pairs are not corrected for their number.",
        command=command,
        numbers={"heads": found},
    )
