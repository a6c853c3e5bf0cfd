"""What the networks of the study `superposition_phases` say, as numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo.studies import superposition_phases as study
from zoo.studies.embedding.numbers import mean_and_interval
from zoo.studies.two_feature_theory import expected_loss, minimum


def read(folder: Path, seeds: int | None = None) -> dict[str, Any]:
    """The results of a finished study.

    Args:
        folder: Of the study.
        seeds: How many of the networks at each point count; all by default.

    Returns:
        Densities `p` and importances of all points, the phases of `theory` and of the best `trained` networks, where
        they `agree`, the share of points where a single `seed` agrees, the densities at which superposition ends,
        `flips` of the seeds and `theory_flip` at the same densities, and the study's `text`.
    """
    runs = [json.loads(file.read_text("utf-8")) for file in (folder / "runs").glob("seed-*.json")]
    runs = sorted(runs, key=lambda run: run["seed"])[:seeds]
    p, importance = study.grid(runs[0]["points"])
    trained, tries = np.split(np.array([run["theta"] for run in runs]), [len(p)], axis=1)
    theory, _ = minimum(p, importance)
    best, losses = study.best_of(trained, p, importance)
    flips = np.array([study.trained_flip(one) for one in tries])
    at = study.FLIP_DENSITIES
    kinds = study.phase(theory)
    shares = [float(study.agree(kinds, study.phase(one), importance).mean()) for one in trained]
    return {
        "p": p.tolist(),
        "importance": importance.tolist(),
        "theory": kinds.tolist(),
        "trained": study.phase(best).tolist(),
        "agree": study.agree(kinds, study.phase(best), importance).tolist(),
        "seed_agrees": mean_and_interval(shares),
        "excess": (losses / expected_loss(theory, p, importance) - 1).tolist(),
        "flips": flips.tolist(),
        "flip": mean_and_interval(flips[np.isfinite(flips)].tolist()),
        "theory_flip": study.flip_density(at, minimum(at, np.ones_like(at))[0]),
        "seeds": len(runs),
        "text": study.report(trained, theory, flips).split("\n", 2)[2],
    }
