"""Do tokens with a known order, such as months, lie on circles or on lines?

Families of tokens with a known order are tested: are their rows in this order, and do they lie on a circle or on an
open line or arc? The same search is made in draws of a null model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.structure import ALPHA, StudyOfStructure, one_test, told_of_tests
from zoo.study import Results, Task

CIRCLE, LINE, UNDECIDED, NOT_IN_ORDER = "circle", "line or arc", "undecided: circle or arc", "not in order"
MOST_DRAWN = 12  # families that get a chart of their own
ALL_WRITTEN, SOME_WRITTEN = 24, 12  # members labelled in a chart: all if there are at most 24, otherwise about 12


@dataclass(frozen=True)
class Circles(StudyOfStructure):
    """Families of tokens with a known order are tested for circles, and for open lines or arcs."""

    def tasks(self) -> Sequence[Task]:
        """Return the tasks that search the rows and draws of the null model."""
        return self.search()

    def report(self, results: Results) -> Report:
        """Return a report on which families lie on circles, on lines, or in no order."""
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
            "Do tokens with a known order lie on circles or on lines?",
            _in_words(found, told),
            tables=[
                *([_table(searched, told)] if found else []),
                *(
                    [f"Not tested, because not all members are tokens in one and the same form: {'; '.join(absent)}."]
                    if absent
                    else []
                ),
                *(text for text, _ in circled),
            ],
            charts=[
                *([_shares(tested)] if tested else []),
                *(_drawn(name, found[name], told[name]) for name in drawn[:MOST_DRAWN]),
                *(chart for _, chart in circled),
            ],
            null_models=(
                "The test of order compares with random orders of the same members, or with random rotations if there "
                "are fewer than 9 members. The test of shape distinguishes circles from open lines and arcs over at "
                "most three quarters of a turn; it mistakes at most 5 % of either for the other, for each family "
                "separately. In the table, shares are of the family's variance: in the first harmonic of its order "
                "(circle), in the two slowest waves of an open path, and in any two waves of isotropic rows, "
                "2 / (n - 1). p if open is the probability that an open line or arc looks at least as closed as the "
                "family; p if closed is the probability that a circle looks at least as open. The roundest groups of "
                "neighbouring rows are compared with the roundest groups of Gaussian rows and of superposed rows. "
                + told_of_tests(searched)
            ),
            not_shown=(
                "Circles of families that are not in the list are not tested: the roundest groups of neighbours are "
                "shown, but rows that share atoms, and three or four tight clusters, are as round. It does not show "
                "that a model uses a circle. An undecided family may be a circle or an arc. Arcs over more than three "
                "quarters of a turn may be called circles."
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
    """Return sentences on how certain a finding of the search is."""
    from zoo.analysis.structure import false_rate

    return (
        f"The probability of any false finding among all {len(searched['tests'])} tests is at most {ALPHA:g} (Holm). "
        f"Each p-value is from at most {searched['found'].get('draws', 0):,} draws. In the same search of Gaussian "
        f"rows with the embedding's covariance, {false_rate(searched['false_findings'])}."
    )


def numbers(searched: dict[str, Any]) -> dict[str, Any]:
    """Return the tests of the search, its findings, and its false findings in null models."""
    return {key: searched[key] for key in ("tests", "findings", "false_findings")}


def _table(searched: dict[str, Any], told: dict[str, str]) -> Table:
    rows: list[list[Any]] = []
    for name, c in searched["found"]["circles"].items():
        row = [name, "cyclic" if c["order"] == "cyclic" else "linear", len(c["members"]), c["forms"]]
        if c["p_value"] is None:
            row += [None] * 7
        else:
            adjusted = one_test(searched, "circles", name)["adjusted"]
            row += [c["share"], c["arc_share"], c["expected"]]
            row += [f"{p:.2g}" for p in (c["p_value"], adjusted, c["p_if_open"], c["p_if_closed"])]
        rows.append([*row, told[name]])
    columns = [
        "family",
        "order",
        "members",
        "forms",
        "share: circle",
        "share: open path",
        "share: isotropic rows",
        "p of order",
    ]
    return Table([*columns, "p of order, adjusted", "p if open", "p if closed", "result"], rows)


def _shape(searched: dict[str, Any], name: str) -> str:
    """Return the shape of a family, in words."""
    c = searched["found"]["circles"][name]
    if c["p_value"] is None:
        return "too few members to test"
    if one_test(searched, "circles", name)["adjusted"] > ALPHA:
        return NOT_IN_ORDER
    return UNDECIDED if c["shape"] == "undecided" else str(c["shape"])


def _in_words(found: dict[str, Any], told: dict[str, str]) -> str:
    groups = {what: [name for name in found if told[name] == what] for what in (CIRCLE, LINE, UNDECIDED, NOT_IN_ORDER)}
    if not any(groups.values()):
        return "None of the families with a known order has all of its members among the tokens."
    surprising = [name for name in groups[CIRCLE] if found[name]["order"] == "linear"]
    sentences = [f"On a circle: {_listed(groups[CIRCLE])}" if groups[CIRCLE] else "No circle was found"]
    sentences += [f"A line was expected for {_listed(surprising)}"] if surprising else []
    words = {
        LINE: "On an open line or arc",
        UNDECIDED: "In order, but undecided whether circle or arc",
        NOT_IN_ORDER: "Not in order",
    }
    sentences += [f"{text}: {_listed(groups[what])}" for what, text in words.items() if groups[what]]
    return " ".join(f"{sentence}." for sentence in sentences)


def _listed(names: list[str]) -> str:
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _ring(ring: dict[str, Any], searched: dict[str, Any]) -> tuple[str, Chart]:
    """Return the text on the roundest group of one size, and its chart."""
    n, tokens = len(ring["members"]), searched["tokens"]
    words = [tokens[i] if tokens else f"row {i}" for i in ring["members"]]
    least = {
        kind: [r["spread"] for model in searched["null"] for r in model[kind] if len(r["members"]) == n]
        for kind in ("rings", "superposed_rings")
    }
    told = "; ".join(
        f"in {len(spreads)} draws of {name} rows: mean {np.mean(spreads):.3f}, minimum {min(spreads):.3f}"
        for name, spreads in (("Gaussian", least["rings"]), ("superposed", least["superposed_rings"]))
        if spreads
    )
    text = f"The roundest group of {n} neighbouring rows has a spread of radii of {ring['spread']:.3f} ({told})."
    x, y = np.array(ring["places"]).T.tolist()
    series = [Series("members", x, y, "points", labels=words, written=True)]
    caption = (
        "A plane of the group's principal components, scaled to variance 1. This is not a finding; see 'What it does "
        "not show'."
    )
    return text, Chart(f"circles-roundest-{n}", f"The roundest {n} neighbours", series, map=True, caption=caption)


def _shares(tested: dict[str, Any]) -> Chart:
    """Return a chart of the shares of variance of all families."""
    names = list(tested)

    def shares(key: str) -> list[float]:
        return [c[key] for c in tested.values()]

    series = [
        Series("circle (first harmonic)", names, shares("share"), "bars"),
        Series("open path", names, shares("arc_share"), "points"),
        Series("isotropic rows", names, shares("expected"), "points"),
    ]
    return Chart("circles-shares", "Share of a family's variance on a circle or open path", series, "", "share")


def _drawn(name: str, c: dict[str, Any], what: str) -> Chart:
    """Return a chart of a family in the plane in which its order shows most; long families are labelled in part."""
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
        caption=f"{what[:1].upper() + what[1:]}. The plane is the one in which circles and open arcs in this order "
        f"share most of their variance. The plane of the first harmonic holds {100 * c['share']:.0f} % of the family's "
        f"variance ({100 * c['expected']:.0f} % for isotropic rows).",
    )
