"""Structure that sparse coding does not look for: agreement of neighbours, binding by a matrix, circles.

Everything is looked for in the embedding and, in the same way, in draws of its covariance-matched null model, in which
whatever is found is a false finding. Rings of unknown order are only shown, beside the roundest groups of Gaussian rows
and of planted superpositions: rows that share atoms lie rounder than Gaussian ones, so no ring tells structure outside
superposition by its shape alone.
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
from zoo.near_neighbours import nearest

PAIRS = 400  # of a relation, at most
LEAST_RELATION = max(40, LEAST_PAIRS)
CLEAR_GAIN = 0.05  # in R², of a matrix over scale and offset


def structure(
    W: torch.Tensor,
    tokens: Sequence[str] | None,
    known: Mapping[str, Ordered] | None = None,
    with_rings: bool = True,
) -> dict[str, Any]:
    """Circles, rings, relations and agreement of neighbours in rows (V, D), plain JSON.

    Args:
        W: The rows.
        tokens: Text of every row's token, if they are known.
        known: Families that are looked for; `known_families` by default.
        with_rings: Whether rings of unknown order are, which takes longest and is no test.
    """
    neighbours = neighbours_of(W)
    found: dict[str, Any] = {"circles": {}, "absent": [], "relations": {}, "agreement": None}
    found |= named(W, tokens, neighbours, known) if tokens else {}
    return found | {"rings": rings(W, neighbours) if with_rings else []}


def named(
    W: torch.Tensor,
    tokens: Sequence[str],
    neighbours: torch.Tensor,
    known: Mapping[str, Ordered] | None = None,
) -> dict[str, Any]:
    """What is tested in rows of known tokens; see `structure`, and `nearest` for the neighbours (V, at least 5)."""
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


def neighbours_of(W: torch.Tensor) -> torch.Tensor:
    """The nearest rows of every row, by cosine about the mean row, (V, 23)."""
    return nearest(F.normalize(W - W.mean(0)), min(max(SIZES) - 1, len(W) - 1))[1]


def rings(W: torch.Tensor, neighbours: torch.Tensor) -> list[dict[str, Any]]:
    """The roundest groups of neighbouring rows (V, D), see `roundest`."""
    return [
        {"spread": ring.spread, "members": ring.members.tolist(), "places": ring.places.tolist()}
        for ring in roundest(W, neighbours)
    ]


def tests(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Every test of a matrix, with its p-value adjusted for all of them together (Holm).

    A finding is surprising and large: a family in order lies on a circle, and on no open line or arc; a matrix gains
    more than 0.05 in R² over scale, offset and shrinkage, on random folds and on folds of fillers of a kind it has not
    seen.

    Args:
        found: Of `structure`.
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
    """The tests that found something."""
    return [line for line in lines if line["adjusted"] <= alpha and line["large"]]


def false_findings(null_models: Sequence[dict[str, Any]], alpha: float) -> list[int]:
    """Number of findings in every null model."""
    return [len(findings(tests(found), alpha)) for found in null_models]


def false_rate(false: Sequence[int]) -> str:
    """How many null models had a finding, in words, with the exact upper limit of the rate."""
    had = sum(count > 0 for count in false)
    limit = rate_limit(had, len(false))
    return f"{had} of {len(false)} null models had a finding; the 95 % upper limit of the rate is {limit:.2g}"
