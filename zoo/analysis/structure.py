"""Tests for structure that sparse coding does not look for: agreement of neighbours, binding by a matrix, circles.

All tests are made on the embedding and, in the same way, on draws of its covariance-matched null model, in which every
finding is false. Rings of unknown order are shown without a test, next to the roundest groups of Gaussian rows and of
planted superpositions. Rows that share atoms form rounder groups than Gaussian rows do. So the shape of a ring alone is
no evidence of structure outside superposition.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zoo.analysis.binding import LEAST_PAIRS, binding
from zoo.analysis.circle_search import SIZES, roundest
from zoo.analysis.circles import LEAST, circle
from zoo.analysis.multiple_tests import draws_needed, holm, rate_limit
from zoo.analysis.neighbour_agreement import neighbour_agreement
from zoo.analysis.token_families import Ordered, families, kinds, known_families, relations
from zoo.matrices import SEARCHED
from zoo.near_neighbours import nearest

PAIRS = 400  # largest number of pairs of a relation
LEAST_RELATION = max(40, LEAST_PAIRS)
CLEAR_GAIN = 0.05  # gain in R² of a matrix, above which it counts as large


def structure(
    W: torch.Tensor,
    tokens: Sequence[str] | None,
    known: Mapping[str, Ordered] | None = None,
    with_rings: bool = True,
) -> dict[str, Any]:
    """Search rows for circles, rings, relations and agreement of neighbours, and return the results as plain JSON.

    Args:
        W: Rows of the embedding, (V, D).
        tokens: Text of every row's token; None if not known.
        known: Families to search for; by default `known_families`.
        with_rings: Whether to search for rings of unknown order as well. This takes longest and is no test.
    """
    neighbours = neighbours_of(W)
    found: dict[str, Any] = {"circles": {}, "absent": [], "relations": {}, "agreement": None}
    found |= named(W, tokens, neighbours, known) if tokens else {}
    return found | {"rings": rings(W, neighbours) if with_rings else []}


def named(
    W: torch.Tensor,
    tokens: Sequence[str],
    neighbours: tuple[torch.Tensor, torch.Tensor],
    known: Mapping[str, Ordered] | None = None,
) -> dict[str, Any]:
    """Return the results of all tests that require known tokens; see `structure` and `neighbours_of`."""
    known = known_families() if known is None else known
    labels, members, pairs = kinds(tokens), families(tokens, known=known), relations(tokens, least=LEAST_RELATION)
    several = len(set(labels)) > 1
    n_draws = draws_needed(several + len(pairs) + sum(len(family.members) >= LEAST for family in members))
    found: dict[str, Any] = {"circles": {}, "relations": {}, "agreement": None, "draws": n_draws}
    found["absent"] = [name for name in known if name not in {family.name for family in members}]
    if several:
        near = neighbour_agreement(W, labels, n_draws=n_draws, neighbours=neighbours)
        found["agreement"] = {**near._asdict(), "kappa": near.kappa}
    for family in members:
        told: dict[str, Any] = {"members": family.members, "order": family.order, "forms": len(family.rows)}
        if len(family.members) >= LEAST:
            c = circle(torch.stack([W[form] for form in family.rows]), n_draws)
            told |= {**c._asdict(), "plane": c.plane[0].tolist(), "shape": c.shape}
        found["circles"][family.name] = {"p_value": None} | told
    for relation in pairs:
        chosen = relation.pairs
        if len(chosen) > PAIRS:
            chosen = [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))[:PAIRS]]
        a, b = (W[list(side)] for side in zip(*chosen, strict=True))
        result = binding(a, b, n_draws)._asdict()
        found["relations"][relation.name] = {**result, "all_pairs": len(relation.pairs), "example": relation.example}
    return found


def neighbours_of(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices of all rows (V, D), or of 8,192 random ones, (n,), and of their nearest rows, (n, at most 23).

    Rows are compared by cosine after the mean row is subtracted, and neighbours are among all rows.
    """
    some = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(W))[:SEARCHED]))
    return some, nearest(F.normalize(W - W.mean(0)), min(max(SIZES) - 1, len(W) - 1), some)[1]


def rings(W: torch.Tensor, neighbours: tuple[torch.Tensor, torch.Tensor]) -> list[dict[str, Any]]:
    """Return the roundest groups of a row and its neighbours, see `roundest` and `neighbours_of`."""
    groups = torch.cat([neighbours[0].unsqueeze(1), neighbours[1]], 1)
    return [
        {"spread": ring.spread, "members": ring.members.tolist(), "places": ring.places.tolist()}
        for ring in roundest(W, groups)
    ]


def tests(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every test of a matrix, with its p-value adjusted for the number of tests (Holm).

    A finding has a small adjusted p-value and a large effect. The effect is large if neighbours agree more often than
    by chance, if a family lies on a circle and not on an open line or arc, or if a matrix gains more than 0.05 in R²
    over scale, offset and shrinkage (both on random folds and on folds that are clusters of a).

    Args:
        found: Result of `structure`.
    """
    lines: list[dict[str, Any]] = []
    if found["agreement"]:
        agreement = found["agreement"]
        lines.append({"kind": "neighbours", "name": "neighbours of one kind", "p_value": agreement["p_value"]})
        lines[-1] |= {"size": agreement["kappa"], "large": agreement["kappa"] > 0}
    for name, r in found["relations"].items():
        lines.append({"kind": "binding", "name": name, "p_value": max(r["p_value"], r["class_p_value"])})
        least = min(r["gain"], r["class_gain"])
        lines[-1] |= {"size": least, "large": least > CLEAR_GAIN, "rank": r["rank"]}
    for name, c in found["circles"].items():
        if c["p_value"] is not None:
            lines.append({"kind": "circles", "name": name, "p_value": c["p_value"]})
            lines[-1] |= {"size": c["share"], "large": c["shape"] == "circle"}
    adjusted = holm([line["p_value"] for line in lines])
    for line, p in zip(lines, adjusted, strict=True):
        line["adjusted"] = float(p)
    return lines


def findings(lines: Sequence[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """Return the tests that are findings: adjusted p-value at most `alpha`, and a large effect."""
    return [line for line in lines if line["adjusted"] <= alpha and line["large"]]


def false_findings(null_models: Sequence[dict[str, Any]], alpha: float) -> list[int]:
    """Return the number of findings in every null model."""
    return [len(findings(tests(found), alpha)) for found in null_models]


def false_rate(false: Sequence[int]) -> str:
    """Return a sentence: how many null models had a finding, and the exact upper limit of this rate."""
    had = sum(count > 0 for count in false)
    limit = rate_limit(had, len(false))
    return f"{had} of {len(false)} null models had a finding; the 95 % upper limit of the rate is {limit:.2g}"
