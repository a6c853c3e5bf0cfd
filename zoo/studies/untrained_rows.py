"""Which rows of an embedding look untrained, and what changes if they are kept?"""

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

SHOWN, LISTED = 8, 200  # names of rows that were set aside, by reason, in a sentence and in a table


@dataclass(frozen=True)
class UntrainedRowsStudy(StudyOfDictionaries):
    """Rows are judged by their names, their counts, a common cluster and a random start.

    Args:
        families: File with families of tokens in a known order, beside the zoo's: YAML or JSON.
    """

    families: str | None = None

    @cached_property
    def _kept(self) -> list[LearnDictionaries]:
        rows = replace(self.rows, keep=True)
        return self.learn("embedding", rows=rows, gauged=0, only_if_aside=True)

    @cached_property
    def _aside(self) -> list[LearnDictionaries]:
        return self.learn("embedding")

    def _search(self, keep: bool) -> SearchStructure:
        rows = replace(self.rows, keep=keep)
        return SearchStructure(rows, None, known_families(self.families), only_if_aside=keep)

    def tasks(self) -> Sequence[Task]:
        """The rows; and, if some look untrained, dictionaries and the search for structure with them kept."""
        untrained = self.untrained
        if self.keep_untrained:
            return [untrained]
        return [untrained, *self._kept, *self._aside, self._search(True), self._search(False)]

    def report(self, results: Results) -> Report:
        """The rows by the reason, and errors and findings with them and without."""
        rows = results[self.untrained]
        n_rows = rows["n_tokens"] - (0 if self.keep_untrained else rows["untrained"])
        what = "kept, as was asked" if self.keep_untrained else "set aside"
        finding = (
            f"{rows['untrained']:,} of {rows['n_tokens']:,} rows look untrained and were {what}."
            if rows["untrained"]
            else "None: no row looks untrained."
        )
        changes = self._changes(results) if rows["untrained"] and not self.keep_untrained else None
        tables: list[Table | str] = [_reasons(rows["aside"])] if rows["aside"] else []
        if changes:
            finding += f" With them kept the held-out error of sparse coding is {changes['error']}."
            tables.append(f"With the untrained rows kept: {changes['told']}.")
        section = Section(
            self.name,
            "Which rows were set aside as untrained?",
            finding,
            tables=tables,
            not_shown=(
                "That all other rows were trained: a row is kept where nothing decides. A rare token's row can be "
                "barely trained without being near the common cluster or a random start."
            ),
            numbers={key: rows[key] for key in ("n_tokens", "untrained", "aside", "auc")} | {"n_rows": n_rows},
        )
        numbers = {"changes": changes, "tokens_known": rows["tokens"] is not None, "n_rows": n_rows}
        return Report(self._subject(rows, n_rows), Verdict(finding, "", numbers=numbers), [section])

    def _changes(self, results: Results) -> dict[str, Any]:
        """What changes if the untrained rows are kept."""
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
        told = f"held-out FVU {kept} instead of {aside}"
        if with_them == without:
            return {"error": kept, "told": f"{told}; the same structure is found"}
        lost, gained = (", ".join(sorted(names)) for names in (without - with_them, with_them - without))
        told += (f"; no longer found: {lost}" if lost else "") + (f"; found in addition: {gained}" if gained else "")
        return {"error": kept, "told": told}

    def _subject(self, rows: Result, n_rows: int) -> str:
        text = f"{self.source}: {rows['n_tokens']:,} tokens in {rows['d_model']} dimensions"
        found = [any(rows["cluster_found"]), any(norm is not None for norm in rows["random_start_norm"])]
        unseen = [
            what
            for what, seen in zip(("common cluster of untrained rows", "random start"), found, strict=True)
            if not seen
        ]
        undecided = (
            f" No {' and no '.join(unseen)} stands out, so rows were kept where nothing else decides." if unseen else ""
        )
        if not rows["untrained"]:
            return f"{text}. No row looks untrained.{undecided}"
        kept = "they were kept" if self.keep_untrained else f"they were set aside, and {n_rows:,} rows are studied"
        reasons = [f"{reason} {len(tokens):,} ({_some(tokens)})" for reason, tokens in rows["aside"].items()]
        told = [f"{name} ({n:,}) with an area under the curve of {auc:.3f}" for name, (auc, n) in rows["auc"].items()]
        tells = f" Nearness to the cluster's centre tells {' and '.join(told)}." if told else ""
        return (
            f"{text}. {rows['untrained']:,} rows look untrained; {kept}. Reasons: "
            f"{'; '.join(reasons)}.{undecided}{tells}"
        )


def _reasons(aside: dict[str, list[str]]) -> Table:
    rows: list[list[Any]] = [[reason, len(tokens), _some(tokens, LISTED)] for reason, tokens in aside.items()]
    return Table(["reason", "rows", "tokens"], rows)


def _some(tokens: Sequence[str], most: int = SHOWN) -> str:
    """Some of the tokens, spread over all, and how many more there are."""
    shown = [f"`` {label(token)} ``" for token in tokens[:: -(-len(tokens) // most)]]
    return ", ".join(shown) + (f" and {len(tokens) - len(shown):,} more" if len(shown) < len(tokens) else "")
