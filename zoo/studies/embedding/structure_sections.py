"""The parts of the report on structure that sparse coding does not look for: A4, A8, A9."""

import re
from typing import Any

import numpy as np

from zoo.report import Chart, Section, Series
from zoo.studies.embedding.atoms import MATRICES
from zoo.studies.embedding.numbers import mean_and_interval, spelled
from zoo.studies.embedding.structure import CLEAR_GAIN, false_rate

MODELS = {
    "offset": "offset",
    "scale_offset": "scale, offset",
    "shrinkage": "a scale per direction, offset",
    "rotation": "scaled rotation, offset",
    "matrix": "matrix (ridge)",
    "shuffled": "matrix, pairs shuffled",
}

CIRCLE, LINE, UNDECIDED, NOT_IN_ORDER = "circle", "line or arc", "undecided: circle or arc", "not in order"
MOST_DRAWN = 12  # families
ALL_WRITTEN, SOME_WRITTEN = 24, 12  # members of a family: up to so many all, of more about so many


def _test(done: dict[str, Any], experiment: str, name: str) -> dict[str, Any]:
    return next(t for t in done["A8"]["tests"] if (t["experiment"], t["name"]) == (experiment, name))


def _found(done: dict[str, Any], experiment: str) -> list[str]:
    return [line["name"] for line in done["A8"]["findings"] if line["experiment"] == experiment]


def _false(done: dict[str, Any]) -> str:
    false, alpha = done["A8"]["false_findings"], done["settings"]["alpha"]
    return (
        f"All tests of rows (A4's, A8 and A9) share a chance of {alpha:g} of any false finding (Holm). The whole "
        f"search was also made in draws of the covariance-matched null model with the tokens' names kept: "
        f"{false_rate(false)}."
    )


def atoms(question: str, done: dict[str, Any], command: str) -> Section:
    """A4."""
    found = done["A4"]
    real, null = (found[matrix] for matrix in MATRICES)
    kappa = {m: mean_and_interval([r["kappa"] for r in found[m]]) for m in MATRICES}
    purity = {m: mean_and_interval([r["purity"] for r in found[m]]) for m in MATRICES}
    rows = done["A8"]["found"]["agreement"]
    in_null = [model["agreement"]["kappa"] for model in done["A8"]["null"] if model["agreement"]]
    charts = []
    for matrix, line in ((MATRICES[0], real[0]), (MATRICES[1], null[0])):
        places, method = np.array(line["map"]["places"]), line["map"]["method"]
        series = []
        for label in sorted(set(line["labels"]), key=lambda x: -line["labels"].count(x)):
            chosen = [i for i, own in enumerate(line["labels"]) if own == label]
            words = [line["tokens"][i] for i in chosen]
            x, y = places[chosen].T.tolist()
            series.append(Series(label, x, y, "points", labels=words))
        title = f"Atoms of the {'embedding' if matrix == MATRICES[0] else 'null model'}, by {method}"
        charts.append(
            Chart(
                f"a4-{matrix.split('-')[0]}",
                title,
                series,
                map=True,
                caption="Every point is an atom, coloured by the kind of most of the tokens that use it most; point at "
                "it to read them. Islands on such a map are no evidence: a Gaussian's has them too.",
            )
        )
    p = found["kappa_p_value"]
    names = {MATRICES[0]: "embedding", MATRICES[1]: "null model"}
    table = [
        "| | embedding | covariance-matched | p, one draw of the null model as high |",
        "|---|---|---|---|",
        f"| agreement of an atom's 5 nearest atoms beyond chance (kappa) | {spelled(kappa[MATRICES[0]])} | "
        f"{spelled(kappa[MATRICES[1]])} | {p:.2g} |",
        f"| purity of the 10 tokens that use an atom most | {spelled(purity[MATRICES[0]])} | "
        f"{spelled(purity[MATRICES[1]])} | {found['purity_p_value']:.2g} |",
    ]
    if rows:
        middle = f"{np.mean(in_null):.3f} (most of {len(in_null)} draws: {max(in_null):.3f})"
        table.append(
            f"| the same agreement of rows | {rows['kappa']:.3f} | {middle} | {rows['p_value']:.2g} (labels permuted) |"
        )
    bars = [
        Series(
            names[m],
            ["agreement", "purity"],
            [kappa[m]["mean"], purity[m]["mean"]],
            "bars",
            [kappa[m]["low"], purity[m]["low"]],
            [kappa[m]["high"], purity[m]["high"]],
        )
        for m in MATRICES
    ]
    more = "more" if p <= done["settings"]["alpha"] else "not clearly more"
    return Section(
        "A4",
        question,
        f"In all dimensions, neighbouring atoms carry the same kind of token {more} often than on Gaussian rows: "
        f"beyond chance {spelled(kappa[MATRICES[0]])} against {spelled(kappa[MATRICES[1]])} (p {p:.2g}, uncorrected).",
        tables="\n".join(table),
        charts=[
            *charts,
            Chart("a4-agreement", "Agreement in all dimensions", bars, "", "kappa; share", caption="Whiskers: 95 %."),
        ],
        null_models="Atoms learned on covariance-matched Gaussian rows whose tokens keep their names. " + _false(done),
        not_shown=(
            "That kinds of token are clusters. Kinds are read off the spelling (word, continuation, number, ...), and "
            "the embedding may be organised by something else. Nothing is judged on the maps."
        ),
        command=command,
        numbers={"kappa": kappa, "purity": purity, "p_value": p, "rows": rows, "rows_of_null_models": in_null},
    )


def binding(question: str, done: dict[str, Any], command: str) -> Section:
    """A8."""
    found, null = done["A8"]["found"]["relations"], [model["relations"] for model in done["A8"]["null"]]
    if not found:
        why = (
            "no relation has 40 pairs among the tokens" if done["rows"]["tokens_known"] else "the tokens are not known"
        )
        return Section("A8", question, why, tested=False)
    names = list(found)
    head = ["relation", "pairs", *MODELS.values(), "gain of the matrix", "the same on new kinds", "p, adjusted", "rank"]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in names:
        r, test = found[name], _test(done, "A8", name)
        cells = [f"{name} ({r['example']})", f"{r['pairs']} of {r['all_pairs']}", *(f"{r[m]:.3f}" for m in MODELS)]
        cells += [f"{r['gain']:.3f}", f"{r['class_gain']:.3f}", f"{test['adjusted']:.2g}", str(r["rank"])]
        table.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    most = max(names, key=lambda name: min(found[name]["gain"], found[name]["class_gain"]))
    bound = _found(done, "A8")
    if bound:
        ranks = ", ".join(f"{name} (rank {found[name]['rank']})" for name in bound)
        finding = f"A matrix says more than scale, offset and shrinkage in {ranks}, on fillers of new kinds as well."
    else:
        finding = (
            f"In none of {len(names)} relations does a matrix gain more than {CLEAR_GAIN:g} in cross-validated R² over "
            f"scale, offset and shrinkage; most in {most}: {found[most]['scale_offset']:.3f} with scale and offset, "
            f"{found[most]['matrix']:.3f} with a matrix."
        )
    by_model = [Series(text, names, [found[n][m] for n in names], "bars") for m, text in MODELS.items()]
    by_rank = [
        Series(name, list(range(1, len(found[name]["gain_by_rank"]))), found[name]["gain_by_rank"][1:])
        for name in names
    ]
    gains = [model[n]["gain"] for model in null for n in model if n in found]
    return Section(
        "A8",
        question,
        finding,
        tables="\n".join(table)
        + "\n\nCross-validated R² of the second row of a pair from the first. A finding needs a gain above "
        + f"{CLEAR_GAIN:g} on random folds and on folds that are clusters of the first rows (new kinds). Rank: the "
        "least that has 95 % of the gain.",
        charts=[
            Chart("a8-models", "What predicts one row from the other", by_model, "", "cross-validated R²"),
            Chart("a8-ranks", "What a matrix of some rank adds to a scale", by_rank, "rank", "gain in R²", log_x=True),
        ],
        null_models=(
            "Scale and offset; a rotation; pairs shuffled; and, for p, random signs of what scale and offset leave "
            f"over of every pair. On covariance-matched rows the largest gain of {len(gains)} is "
            f"{max(gains, default=float('nan')):.3f}. " + _false(done)
        ),
        not_shown=(
            "Relations that spelling does not show, binding by more than one filler, and maps that are not linear. A "
            "small gain with a small p is real, but not what binding by a matrix would be."
        ),
        command=command,
        numbers={"relations": found, "tests": [t for t in done["A8"]["tests"] if t["experiment"] == "A8"]},
    )


def circles(question: str, done: dict[str, Any], command: str) -> Section:
    """A9."""
    found, rings = done["A8"]["found"]["circles"], done["A8"]["found"]["rings"]
    told = {name: _shape(done, name) for name in found}
    head = ["family", "order of", "members", "forms", "first harmonic", "open path", "isotropic", "p, in order"]
    head += ["adjusted", "p, if it is open", "p, if it is closed", "what it is"]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"] if found else []
    for name, c in found.items():
        cells = [name, "a circle" if c["order"] == "cyclic" else "a line", str(len(c["members"])), str(c["forms"])]
        if c["p_value"] is not None:
            cells += [*(f"{c[k]:.3f}" for k in ("share", "arc_share", "expected")), f"{c['p_value']:.2g}"]
            cells += [
                f"{_test(done, 'A9', name)['adjusted']:.2g}",
                *(f"{c[k]:.2g}" for k in ("p_if_open", "p_if_closed")),
            ]
        cells += [""] * (len(head) - 1 - len(cells)) + [told[name]]
        table.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if absent := done["A8"]["found"]["absent"]:
        table.append(f"\nNot all members are tokens, in any one form: {', '.join(absent)}.")
    searched = [_ring(ring, done) for ring in rings]
    table += [text for text, _ in searched]
    tested = [name for name, c in found.items() if c["p_value"] is not None]
    charts = [_shares({name: found[name] for name in tested})] if tested else []
    drawn = sorted(
        (n for n in tested if told[n] != NOT_IN_ORDER), key=lambda n: (told[n] != CIRCLE, found[n]["p_value"])
    )
    charts += [_drawn(name, found[name], told[name]) for name in drawn[:MOST_DRAWN]]
    charts += [chart for _, chart in searched]
    return Section(
        "A9",
        question,
        _circles_found(found, told),
        tables="\n".join(table),
        charts=charts,
        null_models=(
            "For the order: random orders of the same members, and random rotations of fewer than 9. For the shape: "
            "open lines and arcs over at most three quarters of a turn, and circles; at most 5 % of either are called "
            "the other, each family on its own. "
            "Isotropic rows, whose share is 2 / (n - 1). Rings of unknown order stand beside the roundest groups of "
            "Gaussian rows and of superposed ones. " + _false(done)
        ),
        not_shown=(
            "Circles of families that are not asked for: the roundest groups of neighbours are shown, but rows that "
            "share atoms, and three or four tight clusters, are as round. That a model uses a circle. An undecided "
            "family may be either; arcs over more than three quarters of a turn may be called circles."
        ),
        command=command,
        numbers={
            "families": found,
            "absent": absent,
            "rings": rings,
            "tests": [t for t in done["A8"]["tests"] if t["experiment"] == "A9"],
        },
    )


def _shape(done: dict[str, Any], name: str) -> str:
    """What a family is, in words."""
    c = done["A8"]["found"]["circles"][name]
    if c["p_value"] is None:
        return "too few members to tell"
    if _test(done, "A9", name)["adjusted"] > done["settings"]["alpha"]:
        return NOT_IN_ORDER
    return UNDECIDED if c["shape"] == "undecided" else str(c["shape"])


def _circles_found(found: dict[str, Any], told: dict[str, str]) -> str:
    groups = {what: [name for name in found if told[name] == what] for what in (CIRCLE, LINE, UNDECIDED, NOT_IN_ORDER)}
    if not any(groups.values()):
        return "None of the families with a known order has all of its members among the tokens."
    surprising = [name for name in groups[CIRCLE] if found[name]["order"] == "linear"]
    sentences = [f"Circles: {_listed(groups[CIRCLE])}" if groups[CIRCLE] else "No circle was found"]
    sentences += [f"A line was expected of {_listed(surprising)}"] if surprising else []
    words = {
        LINE: "On an open line or arc",
        UNDECIDED: "In order, circle or arc undecided",
        NOT_IN_ORDER: "Not in order",
    }
    sentences += [f"{text}: {_listed(groups[what])}" for what, text in words.items() if groups[what]]
    return " ".join(f"{sentence}." for sentence in sentences)


def _listed(names: list[str]) -> str:
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _ring(ring: dict[str, Any], done: dict[str, Any]) -> tuple[str, Chart]:
    """What is said of the roundest group of one size, and its picture."""
    n, tokens = len(ring["members"]), done["rows"]["tokens"]
    words = [tokens[i] if tokens else f"row {i}" for i in ring["members"]]
    least = {
        kind: [r["spread"] for model in done["A8"]["null"] for r in model[kind] if len(r["members"]) == n]
        for kind in ("rings", "superposed_rings")
    }
    told = "; ".join(
        f"in {len(spreads)} draws of {name} rows {np.mean(spreads):.3f}, at least {min(spreads):.3f}"
        for name, spreads in (("Gaussian", least["rings"]), ("superposed", least["superposed_rings"]))
    )
    text = f"\n\nRoundest group of {n} neighbouring rows: spread of radii {ring['spread']:.3f} ({told})."
    x, y = np.array(ring["places"]).T.tolist()
    series = [Series("members", x, y, "points", labels=words, written=True)]
    caption = (
        "A plane of the group's principal components, scaled to variance 1. No finding: see what it does not show."
    )
    return text, Chart(f"a9-roundest-{n}", f"Roundest {n} neighbours", series, map=True, caption=caption)


def _shares(tested: dict[str, Any]) -> Chart:
    """Shares of all families."""
    names = list(tested)

    def shares(key: str) -> list[float]:
        return [c[key] for c in tested.values()]

    series = [
        Series("first harmonic", names, shares("share"), "bars"),
        Series("open path", names, shares("arc_share"), "points"),
        Series("isotropic rows", names, shares("expected"), "points"),
    ]
    return Chart("a9-shares", "Share of a family's variance in two waves of its order", series, "", "share")


def _drawn(name: str, c: dict[str, Any], what: str) -> Chart:
    """A family in the plane in which its order shows most; of a long one only some members are written."""
    places, members = np.array(c["plane"]), c["members"]  # (n, 2), of the first form
    line = np.concatenate([places, places[:1]]) if what == CIRCLE else places
    every = 1 if len(members) <= ALL_WRITTEN else -(-len(members) // SOME_WRITTEN)
    x, y = line.T.tolist()
    series = [Series("in order", x, y, "dotted")]
    for written in (True, False):
        chosen = [i for i in range(len(members)) if (i % every == 0) == written]
        if chosen:
            x, y = places[chosen].T.tolist()
            words = [members[i] for i in chosen]
            series.append(Series(name, x, y, "points", labels=words, written=written, color="members"))
    return Chart(
        "a9-" + "-".join(re.findall(r"\w+", name.lower())),
        name[:1].upper() + name[1:],
        series,
        map=True,
        caption=f"{what[:1].upper() + what[1:]}. The plane in which circles and open arcs in this order have most of "
        f"their variance in common; a circle's plane holds {100 * c['share']:.0f} % of the family's variance "
        f"({100 * c['expected']:.0f} % of isotropic rows').",
    )
