"""Do tokens of a known order, such as months, lie on circles, or on lines?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.structure import ALPHA, StudyOfStructure, one_test, told_of_tests
from zoo.study import Results, Task

CIRCLE, LINE, UNDECIDED, NOT_IN_ORDER = "circle", "line or arc", "undecided: circle or arc", "not in order"
MOST_DRAWN = 12  # families
ALL_WRITTEN, SOME_WRITTEN = 24, 12  # members of a family: up to so many all, of more about so many


@dataclass(frozen=True)
class Circles(StudyOfStructure):
    """Families of tokens in a known order, tested for circles in the rows and in draws of their null model."""

    def tasks(self) -> Sequence[Task]:
        """The search in the rows and in draws of the null model."""
        return self.search()

    def report(self, results: Results) -> Report:
        """Which families lie on circles, on lines, or in no order."""
        searched = self.searched(results)
        found, rings, absent = (searched["found"][key] for key in ("circles", "rings", "absent"))
        told = {name: _shape(searched, name) for name in found}
        tested = {name: c for name, c in found.items() if c["p_value"] is not None}
        drawn = sorted(
            (n for n in tested if told[n] != NOT_IN_ORDER), key=lambda n: (told[n] != CIRCLE, found[n]["p_value"])
        )
        circled = [_ring(ring, searched) for ring in rings]
        section = Section(
            self.name,
            "Do tokens of a known order lie on circles, or on lines?",
            _in_words(found, told),
            tables=[
                *([_table(searched, told)] if found else []),
                *([f"Not all members are tokens, in any one form: {', '.join(absent)}."] if absent else []),
                *(text for text, _ in circled),
            ],
            charts=[
                *([_shares(tested)] if tested else []),
                *(_drawn(name, found[name], told[name]) for name in drawn[:MOST_DRAWN]),
                *(chart for _, chart in circled),
            ],
            null_models=(
                "For the order: random orders of the same members, and random rotations of fewer than 9. For the "
                "shape: open lines and arcs over at most three quarters of a turn, and circles; at most 5 % of either "
                "are called the other, each family on its own. Isotropic rows, whose share is 2 / (n - 1). Rings of "
                "unknown order stand beside the roundest groups of Gaussian rows and of superposed ones. "
                + told_of_tests(searched)
            ),
            not_shown=(
                "Circles of families that are not asked for: the roundest groups of neighbours are shown, but rows "
                "that share atoms, and three or four tight clusters, are as round. That a model uses a circle. An "
                "undecided family may be either; arcs over more than three quarters of a turn may be called circles."
            ),
            numbers={
                "families": found,
                "absent": absent,
                "rings": rings,
                "tests": [t for t in searched["tests"] if t["kind"] == "circles"],
            },
        )
        return Report(
            self._subject, Verdict(section.finding, certainty(searched), numbers=numbers(searched)), [section]
        )

    @property
    def _subject(self) -> str:
        V, D = self.shape
        return f"{self.source}: {V:,} tokens in {D} dimensions"


def certainty(searched: dict[str, Any]) -> str:
    """How sure a finding of the search is."""
    from zoo.analysis.structure import false_rate

    return (
        f"{len(searched['tests'])} tests share a chance of {ALPHA:g} of any false finding (Holm), by "
        f"{searched['found'].get('draws', 0):,} draws each. In the same search of Gaussian rows with the embedding's "
        f"covariance, {false_rate(searched['false_findings'])}."
    )


def numbers(searched: dict[str, Any]) -> dict[str, Any]:
    """What the search decided."""
    return {key: searched[key] for key in ("tests", "findings", "false_findings")}


def _table(searched: dict[str, Any], told: dict[str, str]) -> Table:
    rows: list[list[Any]] = []
    for name, c in searched["found"]["circles"].items():
        row = [name, "a circle" if c["order"] == "cyclic" else "a line", len(c["members"]), c["forms"]]
        if c["p_value"] is None:
            row += [None] * 7
        else:
            adjusted = one_test(searched, "circles", name)["adjusted"]
            row += [c["share"], c["arc_share"], c["expected"]]
            row += [f"{p:.2g}" for p in (c["p_value"], adjusted, c["p_if_open"], c["p_if_closed"])]
        rows.append([*row, told[name]])
    columns = ["family", "order of", "members", "forms", "first harmonic", "open path", "isotropic", "p, in order"]
    return Table([*columns, "adjusted", "p, if it is open", "p, if it is closed", "what it is"], rows)


def _shape(searched: dict[str, Any], name: str) -> str:
    """What a family is, in words."""
    c = searched["found"]["circles"][name]
    if c["p_value"] is None:
        return "too few members to tell"
    if one_test(searched, "circles", name)["adjusted"] > ALPHA:
        return NOT_IN_ORDER
    return UNDECIDED if c["shape"] == "undecided" else str(c["shape"])


def _in_words(found: dict[str, Any], told: dict[str, str]) -> str:
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


def _ring(ring: dict[str, Any], searched: dict[str, Any]) -> tuple[str, Chart]:
    """What is said of the roundest group of one size, and its picture."""
    n, tokens = len(ring["members"]), searched["tokens"]
    words = [tokens[i] if tokens else f"row {i}" for i in ring["members"]]
    least = {
        kind: [r["spread"] for model in searched["null"] for r in model[kind] if len(r["members"]) == n]
        for kind in ("rings", "superposed_rings")
    }
    told = "; ".join(
        f"in {len(spreads)} draws of {name} rows {np.mean(spreads):.3f}, at least {min(spreads):.3f}"
        for name, spreads in (("Gaussian", least["rings"]), ("superposed", least["superposed_rings"]))
        if spreads
    )
    text = f"Roundest group of {n} neighbouring rows: spread of radii {ring['spread']:.3f} ({told})."
    x, y = np.array(ring["places"]).T.tolist()
    series = [Series("members", x, y, "points", labels=words, written=True)]
    caption = (
        "A plane of the group's principal components, scaled to variance 1. No finding: see what it does not show."
    )
    return text, Chart(f"circles-roundest-{n}", f"Roundest {n} neighbours", series, map=True, caption=caption)


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
    return Chart("circles-shares", "Share of a family's variance in two waves of its order", series, "", "share")


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
        "circles-" + "-".join(re.findall(r"\w+", name.lower())),
        name[:1].upper() + name[1:],
        series,
        map=True,
        caption=f"{what[:1].upper() + what[1:]}. The plane in which circles and open arcs in this order have most of "
        f"their variance in common; a circle's plane holds {100 * c['share']:.0f} % of the family's variance "
        f"({100 * c['expected']:.0f} % of isotropic rows').",
    )
