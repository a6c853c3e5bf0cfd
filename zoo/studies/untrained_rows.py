"""Which rows of an embedding look untrained, and how do results change if these rows are kept?

A row looks untrained if its token never occurs, cannot occur in a text or has a reserved name, or if the row lies in a
common cluster near the mean row or is still at its random start. Such rows are excluded from other studies by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from zoo import estimates
from zoo.report import Report, Section, Table, Verdict
from zoo.report.labels import label
from zoo.shared_tasks.dictionaries import LearnDictionaries, pursued_error
from zoo.shared_tasks.pursuit import StudyOfDictionaries
from zoo.shared_tasks.structure import ALPHA, SearchStructure, known_families
from zoo.study import Result, Results, Task

LISTED = 200  # largest number of excluded tokens per reason that are listed


@dataclass(frozen=True)
class UntrainedRowsStudy(StudyOfDictionaries):
    """Rows that look untrained are listed, and results with and without these rows are compared.

    Args:
        families: YAML or JSON file with families of tokens in a known order, in addition to the built-in ones.
        compare: Whether to compare results with and without the untrained rows.
    """

    families: str | None = None
    compare: bool = True

    @cached_property
    def _kept(self) -> list[LearnDictionaries]:
        rows = replace(self.coded, keep=True)
        return self.learn("embedding", rows=rows, gauged=0, only_if_aside=True)

    @cached_property
    def _aside(self) -> list[LearnDictionaries]:
        return self.learn("embedding")

    def _search(self, keep: bool) -> SearchStructure:
        rows = replace(self.rows, keep=keep)
        return SearchStructure(rows, None, known_families(self.families), only_if_aside=keep)

    def tasks(self) -> Sequence[Task]:
        """Return the task that finds untrained rows and, unless they are kept, tasks that measure the effect.

        These learn dictionaries and search for structure, with the untrained rows and without them.
        """
        untrained = self.untrained
        if self.keep_untrained or not self.compare:
            return [untrained]
        return [untrained, *self._kept, *self._aside, self._search(True), self._search(False)]

    def report(self, results: Results) -> Report:
        """Return a report on untrained rows by reason, and on errors and findings with and without these rows."""
        rows = results[self.untrained]
        n_rows = rows["n_tokens"] - (0 if self.keep_untrained else rows["untrained"])
        what = "kept, because of --keep-untrained" if self.keep_untrained else "excluded"
        finding = (
            f"{rows['untrained']:,} of {rows['n_tokens']:,} rows look untrained and were {what}."
            if rows["untrained"]
            else "No row looks untrained."
        )
        compared = rows["untrained"] and self.compare and not self.keep_untrained
        changes = self._changes(results) if compared else None
        tables: list[Table | str] = [_reasons(rows["aside"])] if rows["aside"] else []
        tables += [details] if (details := _details(rows)) else []
        if changes:
            finding += f" If these rows are kept, the held-out error of sparse coding is {changes['error']}."
            tables.append(f"If rows that look untrained are kept: {changes['told']}.")
        section = Section(
            self.name,
            "Which rows look untrained?",
            finding,
            tables=tables,
            not_shown=(
                "It does not show that all other rows were trained: a row is kept if no criterion applies to it. The "
                "row of a rare token can be barely trained without being near the common cluster or a random start."
            ),
            numbers={key: rows[key] for key in ("n_tokens", "untrained", "aside", "auc")} | {"n_rows": n_rows},
        )
        numbers = {"changes": changes, "tokens_known": rows["tokens"] is not None, "n_rows": n_rows}
        return Report(self._subject(rows, n_rows), Verdict(finding, "", numbers=numbers), [section])

    def _changes(self, results: Results) -> dict[str, Any]:
        """Return the error with untrained rows kept, and a text on how errors and findings change."""
        from zoo.analysis.structure import findings, tests

        kept, aside = (estimates.share([pursued_error(results[t]) for t in own]) for own in (self._kept, self._aside))
        with_them, without = (
            {
                line["name"]
                for line in findings(tests(results[self._search(keep)]), ALPHA)
                if line["kind"] != "neighbours"
            }
            for keep in (True, False)
        )
        told = f"the held-out FVU is {kept} instead of {aside}"
        if with_them == without:
            return {"error": kept, "told": f"{told}; circles and relations that are found are the same"}
        lost, gained = (", ".join(sorted(names)) for names in (without - with_them, with_them - without))
        told += (f"; no longer found: {lost}" if lost else "") + (f"; found in addition: {gained}" if gained else "")
        return {"error": kept, "told": told}

    def _subject(self, rows: Result, n_rows: int) -> str:
        text = f"{self.source}: {rows['n_tokens']:,} tokens in {rows['d_model']} dimensions"
        if not rows["untrained"]:
            return f"{text}. No row looks untrained."
        kept = "they were kept" if self.keep_untrained else f"they were excluded, and {n_rows:,} rows are studied"
        return f"{text}. {rows['untrained']:,} rows look untrained; {kept}."


def _details(rows: Result) -> str:
    """Return sentences on the criteria that did not apply, and on how well the cluster separates rows."""
    found = [any(rows["cluster_found"]), any(norm is not None for norm in rows["random_start_norm"])]
    criteria = ("common cluster of untrained rows", "random start")
    unseen = [what for what, seen in zip(criteria, found, strict=True) if not seen]
    told = [f"{name} ({n:,}; area under the ROC curve {auc:.3f})" for name, (auc, n) in rows["auc"].items()]
    sentences = []
    if unseen:
        sentences.append(
            f"No {' and no '.join(unseen)} was detected, so rows were kept unless another criterion applies."
        )
    if told:
        sentences.append(
            f"The distance to the cluster's centre separates these rows from all others: {' and '.join(told)}."
        )
    return " ".join(sentences)


def _reasons(aside: dict[str, list[str]]) -> Table:
    rows: list[list[Any]] = [[reason, len(tokens), _some(tokens, LISTED)] for reason, tokens in aside.items()]
    return Table(["reason", "rows", "tokens"], rows)


def _some(tokens: Sequence[str], most: int) -> str:
    """Return a list of some of the tokens, evenly spaced among all, and the number of the others."""
    shown = [f"`` {label(token)} ``" for token in tokens[:: -(-len(tokens) // most)]]
    return ", ".join(shown) + (f" and {len(tokens) - len(shown):,} more" if len(shown) < len(tokens) else "")
