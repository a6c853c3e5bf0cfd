"""Structure that sparse coding does not look for: agreement of neighbours, matrix binding, circles (A4, A8, A9).

Everything is done to the embedding and, in the same way, to draws of its covariance-matched null model, in which
whatever is found is a false finding. Rings of unknown order are only shown, beside the roundest groups of Gaussian rows
and of planted superpositions: rows that share atoms lie rounder than Gaussian ones, so no ring tells structure outside
superposition by its shape alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo import sources
from zoo.analysis.binding import LEAST_PAIRS, binding
from zoo.analysis.circle_search import SIZES, roundest
from zoo.analysis.circles import circle
from zoo.analysis.multiple_tests import holm
from zoo.analysis.neighbour_agreement import neighbour_agreement
from zoo.analysis.token_families import families, kinds, relations
from zoo.datamodules import CovarianceMatchedRows, PlantedRows
from zoo.near_neighbours import nearest
from zoo.studies.matrices import PLANTED_SPARSITY
from zoo.studies.tasks import write_json

PAIRS = 400  # of a relation, at most
PERMUTATIONS = 499
CLEAR_GAIN = 0.05  # in R², of a matrix over scale and offset
LEAST_MEMBERS = 7  # of a family: 6 have so few orders that the best of them is no surprise among a dozen tests
MADE_WITH = {"version": 2, "pairs": PAIRS, "permutations": PERMUTATIONS, "sizes": list(SIZES)}


@dataclass(frozen=True)
class Draw:
    """The rows, or a draw of the null model made of them."""

    rows: str  # .npy file
    null: int | None  # number of the draw

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        name = "embedding" if self.null is None else f"null-{self.null}"
        return out / "structure" / f"{name}.json"

    def done(self, out: Path) -> bool:
        """Whether that was found in the way it is looked for now."""
        file = self.file(out)
        return file.exists() and json.loads(file.read_text("utf-8")).get("made_with") == MADE_WITH


def look(draw: Draw, out: Path) -> None:
    """Look for all of it in one matrix, and write what is there."""
    W, tokens = sources.embedding(draw.rows), sources.token_strings(draw.rows)
    if draw.null is None:
        return write_json(draw.file(out), structure(W, tokens) | {"made_with": MADE_WITH})
    found = structure(CovarianceMatchedRows(seed=draw.null).rows(W), tokens)
    superposed = PlantedRows(2 * W.shape[1], PLANTED_SPARSITY, seed=draw.null).rows(W)
    found |= {"superposed_rings": rings(superposed, _neighbours(superposed)), "made_with": MADE_WITH}
    write_json(draw.file(out), found)


def structure(W: torch.Tensor, tokens: Sequence[str] | None) -> dict[str, Any]:
    """Circles, rings, relations and agreement of neighbours in rows (V, D) of known or unknown tokens, plain JSON."""
    neighbours = _neighbours(W)
    found: dict[str, Any] = {"rings": rings(W, neighbours), "circles": {}, "relations": {}, "agreement": None}
    if tokens is None:
        return found
    labels = kinds(tokens)
    if len(set(labels)) > 1:
        near = neighbour_agreement(W, labels, n_permutations=PERMUTATIONS, neighbours=neighbours)
        found["agreement"] = {**near._asdict(), "kappa": near.kappa}
    for family in families(tokens):
        if len(family.members) >= LEAST_MEMBERS:
            c = circle(torch.stack([W[form] for form in family.rows]))
            labelled = {"members": family.members, "forms": len(family.rows), "plane": c.plane.tolist()}
            found["circles"][family.name] = {**c._asdict(), **labelled, "closed": c.closed}
        else:
            found["circles"][family.name] = {"members": family.members, "p_value": None}
    for relation in relations(tokens, least=max(40, LEAST_PAIRS)):
        pairs = relation.pairs
        if len(pairs) > PAIRS:
            pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:PAIRS]]
        a, b = (W[list(side)] for side in zip(*pairs, strict=True))
        result = binding(a, b, PERMUTATIONS)._asdict()
        found["relations"][relation.name] = {**result, "all_pairs": len(relation.pairs), "example": relation.example}
    return found


def _neighbours(W: torch.Tensor) -> torch.Tensor:
    """The nearest rows of every row, by cosine about the mean row, (V, 23)."""
    return nearest(F.normalize(W - W.mean(0)), min(max(SIZES) - 1, len(W) - 1))[1]


def rings(W: torch.Tensor, neighbours: torch.Tensor) -> list[dict[str, Any]]:
    """The roundest groups of neighbouring rows (V, D), see `roundest`."""
    return [
        {"spread": ring.spread, "members": ring.members.tolist(), "places": ring.places.tolist()}
        for ring in roundest(W, neighbours)
    ]


def read(out: Path, draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """What was found in every draw."""
    return [json.loads(draw.file(out).read_text("utf-8")) for draw in draws]


def tests(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Every test of a matrix, with its p-value adjusted for all of them together (Holm).

    A finding is surprising and large: a circle describes its family better than an open arc does; a matrix gains more
    than 0.05 in R² over scale, offset and shrinkage, on random folds and on folds of fillers of a kind it has not seen.

    Args:
        found: Of `structure`.
    """
    lines: list[dict[str, Any]] = []
    if found["agreement"]:
        agreement = found["agreement"]
        lines.append({"experiment": "A4", "name": "neighbours of one kind", "p_value": agreement["p_value"]})
        lines[-1] |= {"size": agreement["kappa"], "large": agreement["kappa"] > 0}
    for name, r in found["relations"].items():
        lines.append({"experiment": "A8", "name": name, "p_value": max(r["p_value"], r["class_p_value"])})
        least = min(r["gain"], r["class_gain"])
        lines[-1] |= {"size": least, "large": least > CLEAR_GAIN, "rank": r["rank"]}
    for name, c in found["circles"].items():
        if c["p_value"] is not None:
            lines.append({"experiment": "A9", "name": name, "p_value": c["p_value"]})
            lines[-1] |= {"size": c["share"], "large": c["closed"]}
    adjusted = holm([line["p_value"] for line in lines])
    for line, p in zip(lines, adjusted, strict=True):
        line["adjusted"] = float(p)
    return lines


def findings(lines: Sequence[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """The tests that found something."""
    return [line for line in lines if line["adjusted"] <= alpha and line["large"]]


def false_findings(null_models: Sequence[dict[str, Any]], alpha: float) -> list[int]:
    """Number of findings in every null model."""
    return [len(findings(tests(found), alpha)) for found in null_models]
