"""Attention in superposition: tokens on a circle and in few dimensions, skip feature-bigrams by hand and learned."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F

from zoo.analysis.exclusive_groups import compare_group_overlap
from zoo.datamodules import SkipBigramDataModule
from zoo.errors import ZooError
from zoo.models import AdamLinear, SkipBigramAttention, SkipBigramHead
from zoo.models.toy import attention
from zoo.models.toy import skip_bigram_head as bigrams
from zoo.quiet_fit import fit
from zoo.studies.attention_features_report import draw, table
from zoo.studies.tasks import check_folder, do_all, write_json

DIMENSIONS = (2, 4, 8, 12, 16, 24, 32, 48, 64)  # k of C3
NOISE_PAIRS, NOISE_SHAPES = (4, 16, 64, 256, 1024), ((256, 16), (512, 64), (1024, 16))  # B and (D, d_head) of C4
USABLE = ((256, 16, 100), (512, 32, 100))  # D, d_head and competitors of C4
TIES = tuple((beta, 4, 16, 0.1) for beta in (1, 3, 10, 30, 100))  # beta, tied positions, positions and noise of C4
D_MODEL, D_HEAD = 16, 8  # of C5


@dataclass(frozen=True)
class Task:
    """One measurement: `sizes` are the arguments of its kind."""

    kind: str
    sizes: tuple[float, ...]
    seed: int

    def file(self, out: Path) -> Path:
        """Where the result lies."""
        return out / "runs" / f"{self.kind}_{'-'.join(map(str, self.sizes))}_seed-{self.seed}.json"


def run(
    out: Path,
    seeds: int = 5,
    jobs: int = 1,
    vocabularies: Sequence[int] = (1000, 8192, 50257),
    n_pairs: Sequence[int] = (16, 32, 64, 128),
    steps: int = 1500,
) -> list[dict[str, Any]]:
    """Do what is missing, then write `table.md` and `attention_features.png` into the folder.

    Args:
        out: Folder of the study; finished measurements in it are not made again.
        seeds: Draws of everything random, and heads trained for each number of pairs.
        jobs: Processes, of one thread each.
        vocabularies: Tokens V of C3.
        n_pairs: Skip bigrams of the heads in C5.
        steps: Optimizer steps of the heads.

    Returns:
        One dict per measurement: `kind`, `sizes`, `seed` and what was found; the heads' are lists over seeds.

    Raises:
        ZooError: If an argument is out of range, or the folder holds a study with other settings.
    """
    if seeds < 2 or jobs < 1:
        raise ZooError(f"seeds is {seeds} and jobs is {jobs}; an interval needs at least 2 seeds, and jobs at least 1")
    check_folder(out, {"seeds": seeds, "steps": steps})
    kinds: dict[str, Sequence[tuple[float, ...]]] = {
        "circle": [(2,), (16,)],
        "projection": [(v, k) for v in vocabularies for k in DIMENSIONS],
        "noise": [(b, *shape) for shape in NOISE_SHAPES for b in NOISE_PAIRS],
        "usable": USABLE,
        "ties": TIES,
    }
    tasks = [Task(kind, sizes, seed) for kind, each in kinds.items() for sizes in each for seed in range(seeds)]
    tasks += [Task("head", (b, D_MODEL, D_HEAD, seeds, steps), 0) for b in n_pairs]
    do_all(_do, [task for task in tasks if not task.file(out).exists()], out, jobs)
    results = [json.loads(task.file(out).read_text("utf-8")) for task in tasks]
    text = table(results)
    (out / "table.md").write_text(text, "utf-8")
    draw(results).savefig(out / "attention_features.png", dpi=120)
    return results


def _do(task: Task, out: Path) -> None:
    found = KINDS[task.kind](*task.sizes, seed=task.seed)
    write_json(task.file(out), {"kind": task.kind, "sizes": task.sizes, "seed": task.seed} | found)


def circle(n_positions: int, seed: int) -> dict[str, float]:
    """C2: how often the circle fails with two features per position, among so many positions."""
    return {"failure": attention.simulated_two_feature_failure(5000, n_positions, 50_000, seed)}


def projection(n_tokens: int, k: int, seed: int, n_queries: int = 500) -> dict[str, float]:
    """C3: share of tokens that attend to themselves, raw and, in float64, length-normalised."""
    tokens = attention.projected_tokens(n_tokens, k, seed=seed)
    normalised = attention.own_token_attention(F.normalize(tokens.double()), n_queries=n_queries)
    return {"raw": attention.own_token_attention(tokens, n_queries=n_queries), "normalised": normalised}


def noise(n_pairs: int, d_model: int, d_head: int, seed: int) -> dict[str, float]:
    """C4: root mean square of the construction's scores that should be 0."""
    draws = [bigrams.simulated_scores(n_pairs, d_model, d_head, 256, 256, seed=10 * seed + i)[0] for i in range(10)]
    return {"noise": torch.stack(draws).square().mean().sqrt().item()}


def usable(d_model: int, d_head: int, n_competitors: int, seed: int, level: float = 0.05) -> dict[str, float]:
    """C4: the most pairs at which a competitor rarely wins, against 1 and against the partner's own score."""
    most = {}
    for signal in ("one", "partner"):
        low, high = 1.0, 2.0 * bigrams.usable_pairs(d_model, d_head, n_competitors, level)
        while high > 1.03 * low:
            middle = (low * high) ** 0.5
            shares = bigrams.simulated_confusion(round(middle), d_model, d_head, n_competitors, n_draws=5, seed=seed)
            low, high = (middle, high) if shares[signal] <= level else (low, middle)
        most[signal] = low
    return most


def ties(beta: float, n_tied: int, n_positions: int, noise: float, seed: int) -> dict[str, float]:
    """C4: entropy of attention over tied positions, at an inverse temperature."""
    return bigrams.tied_attention(beta, n_tied, n_positions, noise, seed=seed)


def head(n_pairs: int, d_model: int, d_head: int, n_heads: int, steps: int, seed: int) -> dict[str, list[float]]:
    """C5: heads trained on skip bigrams against the construction, and the overlap of their groups' vectors."""
    L.seed_everything(seed, verbose=False)
    data = SkipBigramDataModule(n_pairs=n_pairs, n_seeds=n_heads, seed=seed)
    module = SkipBigramAttention(data.n_features, d_model, d_head, n_heads, AdamLinear(1e-2, 0, 0.5))
    fit(module, data, steps)
    constructed = SkipBigramHead.constructed(data.n_features, d_model, d_head, data.pairs, seed=seed)
    batches = list(data.test_dataloader())
    x, ideal = (torch.cat([b[key].unflatten(0, (n_heads, -1)) for b in batches], 1) for key in ("x", "ideal"))
    matching = (ideal > 0).float()
    found = {"chance": matching.mean((1, 2)).tolist()}
    for name, net in (("learned", module.net), ("constructed", constructed)):
        with torch.no_grad():
            looked_at = net.scores(x).argmax(2, keepdim=True)
        found[name] = matching.gather(2, looked_at).mean((1, 2)).tolist()
    for name, centred in (("raw", False), ("centred", True)):
        groups = module.net.W_E.detach().unflatten(1, (data.n_groups, data.group_size))
        compared = [compare_group_overlap(vectors, centred, seed=i) for i, vectors in enumerate(groups)]
        found |= {f"{name}_{key}": [getattr(c, key) for c in compared] for key in compared[0]._fields}
    return found


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "circle": circle,
    "projection": projection,
    "noise": noise,
    "usable": usable,
    "ties": ties,
    "head": head,
}
