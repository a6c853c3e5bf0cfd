"""The search for circles, binding and neighbours of one kind, in an embedding and in null models, as tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonargparse.typing import PositiveInt

from zoo.analysis.token_families import Ordered
from zoo.families_file import read_families
from zoo.matrices import PLANTED_SPARSITY
from zoo.shared_tasks.rows import Rows, StudyOfRows
from zoo.study import Result, Results, Task, Work

ALPHA = 0.05  # chance of any false finding among all tests of one matrix
DRAWS_WITH_RINGS = 5  # of the null model, in which rings of unknown order are looked for too

Families = tuple[tuple[str, str, tuple[str, ...]], ...]  # name, order, members


@dataclass(frozen=True)
class SearchStructure(Task):
    """Look for all kinds of structure in the rows, or in a draw of the null model made of them.

    Args:
        rows: The rows.
        null: Number of the draw; None for the rows themselves.
        families: That are looked for.
        only_if_aside: Do nothing unless rows that look untrained were set aside, and are kept here.
    """

    rows: Rows
    null: int | None
    families: Families
    only_if_aside: bool = False

    def needs(self) -> Sequence[Task]:
        """The rows, and how many were set aside."""
        aside = self.rows.untrained if self.only_if_aside else None
        return [self.rows, aside] if aside else [self.rows]

    def seconds(self) -> float:
        """As `benchmarks.embedding_study_cost` measured it."""
        V, D = self.rows.source.shape(self.rows.step)
        return 2 + 2.5e-10 * V * V * D

    def do(self, work: Work) -> Result:
        """Circles, rings, relations and agreement of neighbours."""
        import torch

        from zoo.analysis.structure import neighbours_of, rings, structure
        from zoo.datamodules import CovarianceMatchedRows, PlantedRows

        if self.only_if_aside and self.rows.untrained and not work[self.rows.untrained]["untrained"]:
            return {}
        rows = work[self.rows]
        W, tokens = torch.from_numpy(rows["W_E"]), rows["tokens"]
        known = {name: Ordered(order, list(members)) for name, order, members in self.families}  # type: ignore[arg-type]
        if self.null is None:
            return structure(W, tokens, known)
        with_rings = self.null < DRAWS_WITH_RINGS
        found = structure(CovarianceMatchedRows(seed=self.null).rows(W), tokens, known, with_rings)
        found["superposed_rings"] = []
        if with_rings:
            superposed = PlantedRows(2 * W.shape[1], PLANTED_SPARSITY, seed=self.null).rows(W)
            found["superposed_rings"] = rings(superposed, neighbours_of(superposed))
        return found


def known_families(file: str | None) -> Families:
    """The families that are looked for, see `read_families`."""
    return tuple((name, of.order, tuple(of.members)) for name, of in read_families(file).items())


@dataclass(frozen=True)
class StudyOfStructure(StudyOfRows):
    """A study that tells a part of the search in one embedding and in draws of its null model.

    Args:
        families: File with families of tokens in a known order, beside the zoo's: YAML or JSON. The tests of all
            families share the correction for their number.
        null_draws: Draws of the covariance-matched null model that are searched in the same way.
    """

    families: str | None = None
    null_draws: PositiveInt = 20

    @cached_property
    def _searches(self) -> list[SearchStructure]:
        """Of the rows, and of draws of the null model."""
        known = known_families(self.families)
        return [SearchStructure(self.rows, draw, known) for draw in (None, *range(self.null_draws))]

    def search(self) -> list[SearchStructure]:
        """The tasks."""
        return self._searches

    def searched(self, results: Results) -> dict[str, Any]:
        """What was found in the rows and in the draws, all tests, findings, and the tokens of the rows."""
        from zoo.analysis.structure import false_findings, findings, tests

        found, *null = [results[task] for task in self._searches]
        lines = tests(found)
        return {
            "found": found,
            "null": null,
            "tests": lines,
            "findings": findings(lines, ALPHA),
            "false_findings": false_findings(null, ALPHA),
            "tokens": results[self.rows]["tokens"],
        }


def told_of_tests(searched: dict[str, Any]) -> str:
    """What the tests of all kinds of structure share."""
    from zoo.analysis.structure import false_rate

    return (
        f"All tests of rows (neighbours of one kind, binding, circles) share a chance of {ALPHA:g} of any false "
        "finding (Holm). The whole search was also made in draws of the covariance-matched null model with the tokens' "
        f"names kept: {false_rate(searched['false_findings'])}."
    )


def one_test(searched: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """One test."""
    return next(t for t in searched["tests"] if (t["kind"], t["name"]) == (kind, name))


def findings_of(searched: dict[str, Any], kind: str) -> list[str]:
    """Names of what was found of a kind."""
    return [line["name"] for line in searched["findings"] if line["kind"] == kind]
