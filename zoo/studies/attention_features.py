"""How many features can one attention head distinguish, with constructed and with trained weights?

Tokens lie on a circle or have random vectors in few dimensions, and each token has to attend to itself. Heads also hold
skip bigrams: a query feature has to attend to the position of its partner feature. Skip bigrams are written into the
weights by a construction, or trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.analysis.agreement import Agreement
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

VOCABULARY = 50257  # number of tokens of GPT-2
PRECISIONS = ("float32", "float64")
POSITIONS = (2, 16)  # numbers of positions, each with two features
NOISE_PAIRS, NOISE_SHAPES = (4, 16, 64, 256, 1024), ((256, 16), (512, 64), (1024, 16))  # numbers of pairs; (D, d_head)
USABLE = ((256, 16, 100), (512, 32, 100))  # (D, d_head, competitors)
TIES = tuple((beta, 4, 16, 0.1) for beta in (1.0, 3.0, 10.0, 30.0, 100.0))  # (beta, tied, positions, noise)
D_MODEL, D_HEAD = 16, 8  # sizes of the trained heads
RARE = 0.01  # share of failures below which attention on a circle counts as hardly failing
ENOUGH = 0.95  # share of right answers from which a number of dimensions counts as enough
COLORS = ("first", "second", "third", "fourth")
HEADS = {"learned": "trained", "constructed": "constructed", "chance": "random position"}
OVERLAPS = {"overlap": "learned vectors", "permuted": "learned vectors, groups permuted", "random": "random vectors"}
NOISE = {
    "yes": "The noise of scores agrees with theory",
    "no": "The noise of scores does not agree with theory",
    "undecided": "It is undecided whether the noise of scores agrees with theory",
}


@dataclass(frozen=True)
class PlaceOnCircle(Task):
    """Place tokens at equal distances on a circle, and count which ones a floating-point precision distinguishes."""

    dtype: str
    n_tokens: int

    def do(self, work: Work) -> Result:
        """Return two counts.

        `certain` is the largest number of tokens that the precision is guaranteed to distinguish. `misled` is the
        number of tokens of the vocabulary that attend to another token.
        """
        import torch

        from zoo.models.toy import attention

        dtype = getattr(torch, self.dtype)
        misled = attention.misled_tokens(self.n_tokens, dtype, window=8)
        return {"certain": attention.largest_circle(dtype), "misled": misled}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.1


@dataclass(frozen=True)
class MixOnCircle(Task):
    """Put two features at every position, each a point on the circle, and count wrong answers."""

    n_positions: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return `failure`, the share of queries that attend to a wrong position."""
        from zoo.models.toy import attention

        return {"failure": attention.simulated_two_feature_failure(5000, self.n_positions, 50_000, self.seed)}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.02


@dataclass(frozen=True)
class FindOwnToken(Task):
    """Give tokens random vectors in few dimensions, and count the tokens whose highest score is their own."""

    n_tokens: int
    k: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return the share of tokens that attend to themselves.

        `raw` is for the vectors as drawn, `normalised` for the same vectors scaled to equal length, in float64.
        """
        import torch.nn.functional as F

        from zoo.models.toy import attention

        tokens = attention.projected_tokens(self.n_tokens, self.k, seed=self.seed)
        normalised = attention.own_token_attention(F.normalize(tokens.double()), n_queries=500)
        return {"raw": attention.own_token_attention(tokens, n_queries=500), "normalised": normalised}

    def seconds(self) -> float:
        """Return an estimate of the time to compute all scores, which is most of the time."""
        return 0.01 + 5e-6 * self.n_tokens


@dataclass(frozen=True)
class MeasureNoise(Task):
    """Write skip bigrams into the weights of a head, and measure the noise of its scores."""

    n_pairs: int
    d_model: int
    d_head: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return `noise`, the root mean square of the scores that should be 0."""
        import torch

        from zoo.models.toy.skip_bigram_head import simulated_scores

        sizes = (self.n_pairs, self.d_model, self.d_head, 256, 256)
        draws = [simulated_scores(*sizes, seed=10 * self.seed + i)[0] for i in range(10)]
        return {"noise": torch.stack(draws).square().mean().sqrt().item()}

    def seconds(self) -> float:
        """Return an estimate of the time to draw the pairs, which is most of the time."""
        return 0.01 + 1.3e-7 * self.n_pairs * self.d_model


@dataclass(frozen=True)
class FindUsablePairs(Task):
    """Find the largest number of skip bigrams in a head at which another feature rarely exceeds the right score."""

    d_model: int
    d_head: int
    n_competitors: int
    seed: int
    level: float = 0.05

    def do(self, work: Work) -> Result:
        """Return the largest number of pairs at which a competitor rarely has the highest score.

        For `one` the competitors have to exceed a score of 1, for `partner` the partner's own noisy score.
        """
        from zoo.models.toy.skip_bigram_head import simulated_confusion, usable_pairs

        sizes, most = (self.d_model, self.d_head, self.n_competitors), {}
        for signal in ("one", "partner"):
            low, high = 1.0, 2.0 * usable_pairs(*sizes, self.level)
            while high > 1.03 * low:
                middle = (low * high) ** 0.5
                shares = simulated_confusion(round(middle), *sizes, n_draws=5, seed=self.seed)
                low, high = (middle, high) if shares[signal] <= self.level else (low, middle)
            most[signal] = low
        return most

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.3


@dataclass(frozen=True)
class BreakTies(Task):
    """Put partners with equal ideal scores at several positions, and measure how much noise breaks the tie."""

    beta: float
    n_tied: int
    n_positions: int
    noise: float
    seed: int

    def do(self, work: Work) -> Result:
        """Return `entropy`, that of attention over the tied positions, at the inverse temperature `beta`."""
        from zoo.models.toy.skip_bigram_head import tied_attention

        return dict(tied_attention(self.beta, self.n_tied, self.n_positions, self.noise, seed=self.seed))

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.01


@dataclass(frozen=True)
class TrainHeads(Task):
    """Train one head per seed on skip bigrams, all of them side by side in one module."""

    n_pairs: int
    d_model: int
    d_head: int
    n_heads: int
    steps: int
    seed: int = 0

    def do(self, work: Work) -> Result:
        """Return lists with one number per head.

        They hold how often the head, the construction and a random position are right, and the overlap of the vectors
        of the head's groups of features.
        """
        import lightning as L
        import torch

        from zoo.analysis.exclusive_groups import compare_group_overlap
        from zoo.datamodules import SkipBigramDataModule
        from zoo.models import AdamLinear, SkipBigramAttention, SkipBigramHead
        from zoo.quiet_fit import fit

        L.seed_everything(self.seed, verbose=False)
        data = SkipBigramDataModule(n_pairs=self.n_pairs, n_seeds=self.n_heads, seed=self.seed)
        sizes = (data.n_features, self.d_model, self.d_head)
        module = SkipBigramAttention(*sizes, self.n_heads, AdamLinear(1e-2, 0, 0.5))
        fit(module, data, self.steps)
        constructed = SkipBigramHead.constructed(*sizes, data.pairs, seed=self.seed)
        batches = list(data.test_dataloader())
        x, ideal = (torch.cat([b[key].unflatten(0, (self.n_heads, -1)) for b in batches], 1) for key in ("x", "ideal"))
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

    def seconds(self) -> float:
        """Return an estimate of the time to train, which is most of the time."""
        return 0.6 + 0.004 * self.steps


Found = Mapping[Any, Sequence[Result]]  # by sizes: results of all draws
Samples = Mapping[Any, np.ndarray]  # by sizes: one number of all draws


@dataclass(frozen=True)
class AttentionFeatures(Study):
    """Measure how well one attention head finds the right token or feature, and compare it with theory.

    Args:
        vocabularies: Numbers of tokens V whose vectors are drawn at random.
        dimensions: Numbers of dimensions k of these vectors.
        n_pairs: Numbers of skip bigrams that heads are trained on.
        steps: Optimizer steps of every training.
        seeds: Number of random draws of every measurement, and of heads trained for each number of pairs.
    """

    vocabularies: tuple[PositiveInt, ...] = (1000, 8192, 50257)
    dimensions: tuple[PositiveInt, ...] = (2, 4, 8, 12, 16, 24, 32, 48, 64)
    n_pairs: tuple[PositiveInt, ...] = (16, 32, 64, 128)
    steps: PositiveInt = 1500
    seeds: AtLeastTwo = 5

    def tasks(self) -> Sequence[Task]:
        """Return one task for every measurement and draw; the heads of all seeds are trained in one task."""
        kinds = (self._mixed(), self._projected(), self._noise(), self._usable(), self._ties())
        found: list[Task] = [PlaceOnCircle(dtype, VOCABULARY) for dtype in PRECISIONS]
        return [*found, *(task for kind in kinds for tasks in kind.values() for task in tasks), *self._heads().values()]

    def _mixed(self) -> dict[int, list[Task]]:
        return {n: [MixOnCircle(n, seed) for seed in range(self.seeds)] for n in POSITIONS}

    def _projected(self) -> dict[tuple[int, int], list[Task]]:
        sizes = [(v, k) for v in self.vocabularies for k in self.dimensions]
        return {size: [FindOwnToken(*size, seed) for seed in range(self.seeds)] for size in sizes}

    def _noise(self) -> dict[tuple[int, int, int], list[Task]]:
        sizes = [(pairs, *shape) for shape in NOISE_SHAPES for pairs in NOISE_PAIRS]
        return {size: [MeasureNoise(*size, seed) for seed in range(self.seeds)] for size in sizes}

    def _usable(self) -> dict[tuple[int, int, int], list[Task]]:
        return {size: [FindUsablePairs(*size, seed) for seed in range(self.seeds)] for size in USABLE}

    def _ties(self) -> dict[tuple[float, int, int, float], list[Task]]:
        return {size: [BreakTies(*size, seed) for seed in range(self.seeds)] for size in TIES}

    def _heads(self) -> dict[int, Task]:
        return {pairs: TrainHeads(pairs, D_MODEL, D_HEAD, self.seeds, self.steps) for pairs in self.n_pairs}

    def report(self, results: Results) -> Report:
        """Return a report that compares simulated attention with theory, and trained heads with constructed ones."""
        from zoo.models.toy.skip_bigram_head import score_noise

        def read(kind: Mapping[Any, Sequence[Task]]) -> Found:
            return {sizes: [results[task] for task in tasks] for sizes, tasks in kind.items()}

        limits = {dtype: results[PlaceOnCircle(dtype, VOCABULARY)] for dtype in PRECISIONS}
        noise, heads = _of(read(self._noise()), "noise"), _judged({n: results[t] for n, t in self._heads().items()})
        fit = Agreement.of(np.array([values / score_noise(*sizes) for sizes, values in noise.items()]))
        sections = [
            _circle(limits),
            _two_features(_of(read(self._mixed()), "failure")),
            _dimensions(read(self._projected())),
            _constructed(noise, fit, read(self._usable()), _of(read(self._ties()), "entropy")),
            _learned(heads),
        ]
        better, last = sum(one["against_constructed"].sign == "above" for one in heads), heads[-1]
        measured = f"{last['learned']} against {last['constructed']} with {last['pairs']} pairs"
        answer = f"at {better} of {len(heads)} numbers of pairs"
        evidence = [
            ["Does the noise of constructed skip bigrams agree with theory?", fit.brief, fit.answer],
            ["Do trained heads find skip bigrams more often than constructed ones?", measured, answer],
        ]
        headline = f"Trained attention heads find skip bigrams more often than constructed ones {answer}."
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} draws or heads. The intervals are not corrected "
            "for their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "seeds": self.seeds, "agreement": fit, "heads": heads}
        subject = "One attention head that reads tokens or features with known vectors"
        return Report(subject, Verdict(headline, certainty, table, numbers), sections)


def _of(found: Found, key: str) -> Samples:
    return {sizes: np.array([r[key] for r in each]) for sizes, each in found.items()}


def _judged(runs: Mapping[int, Result]) -> list[dict[str, Any]]:
    """Return the results of trained heads, one dict for each number of pairs.

    `against_constructed` is the share of right answers minus that of the construction. `against_permuted` is the
    overlap of the groups' vectors minus that of permuted groups. Both differences are paired by seed.
    """
    keys = [*HEADS, *(f"{name}_{key}" for name in ("raw", "centred") for key in OVERLAPS)]
    return [
        {"pairs": pairs, "heads": len(r["learned"])}
        | {key: mean(r[key]) for key in keys}
        | {
            "against_constructed": mean(np.array(r["learned"]) - np.array(r["constructed"])),
            "against_permuted": mean(np.array(r["raw_overlap"]) - np.array(r["raw_permuted"])),
            "significant": sum(p < 0.05 for p in r["raw_p_value"]),
            "significant_centred": sum(p < 0.05 for p in r["centred_p_value"]),
        }
        for pairs, r in runs.items()
    ]


def _with_sizes(found: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return a mapping from sizes to numbers as plain JSON: a list of dicts."""
    return [{"sizes": list(sizes), "value": value} for sizes, value in found.items()]


def _theory(name: str, x: Sequence[Any], y: Sequence[float], color: str) -> Series:
    return Series(name, x, y, "dashed", labels=["theory"] * len(x), color=color)


def _circle(limits: Mapping[str, Result]) -> Section:
    from zoo.models.toy import attention

    parts = []
    for name, limit in limits.items():
        fits = "enough" if limit["misled"] == 0 else f"not enough: {limit['misled']:,} tokens attend to another token"
        parts.append(f"{name} is {fits} (guaranteed for up to {limit['certain']:,} tokens)")
    finding = (
        "Yes, in exact arithmetic: a token's own score exceeds its neighbour's by 1 - cos(2 pi / V). For the V = "
        f"{VOCABULARY:,} tokens of GPT-2 {listed(parts)}."
    )
    v = np.geomspace(10, 1e9, 33).round().astype(int).tolist()
    gaps = [attention.circle_gap(n) for n in v]
    lines = [Series("own score minus the neighbour's", v, gaps, "line", color=COLORS[0])]
    for (name, limit), color in zip(limits.items(), COLORS[1:], strict=False):
        level = attention.circle_gap(limit["certain"])
        lines.append(Series(f"rounding error of {name}", [v[0], v[-1]], [level] * 2, "dashed", color=color))
    labels, caption = ("tokens V", "difference of scores"), "Below a dashed line, rounding may make scores equal."
    rows = [[name, limit["certain"], limit["misled"]] for name, limit in limits.items()]
    beta = attention.circle_beta(VOCABULARY, 0.9)
    note = f"An attention of 0.9 to the own token among {VOCABULARY:,} requires beta = {beta:.2e}, in float64."
    columns = ["precision", "guaranteed up to V =", f"tokens that attend to another, V = {VOCABULARY:,}"]
    return Section(
        "circle",
        "Do 2 dimensions suffice for each token to attend to itself among all tokens?",
        finding,
        tables=[Table(columns, rows, note=note)],
        charts=[Chart("circle", "Precision that a circle requires", lines, *labels, True, True, caption=caption)],
        null_models="Exact arithmetic, for which the answer is known.",
        not_shown="Nothing is trained here. Features that are not mutually exclusive are not tested.",
        numbers={"limits": limits, "vocabulary": VOCABULARY},
    )


def _two_features(found: Samples) -> Section:
    from zoo.models.toy import attention

    expected = {n: attention.two_feature_failure(n) for n in found}
    spans = {n: mean(values) for n, values in found.items()}
    fit = Agreement.of(np.array([values / expected[n] for n, values in found.items()]))
    shares = [f"{span} of queries attend to a wrong one of {n:,} positions" for n, span in spans.items()]
    theories = listed([f"{value:.3f}" for value in expected.values()])
    names = [f"{n:,} positions" for n in found]
    lines = [
        Series.of("simulated", names, [*spans.values()], "bars", color=COLORS[0]),
        Series("theory", names, [*expected.values()], "points", color=COLORS[1]),
        Series("a random position", names, [1 - 1 / n for n in found], "points", color=COLORS[2]),
    ]
    breaks = "No" if all(span.low > RARE for span in spans.values()) else "Nearly always"
    agree = {"yes": "as in theory", "no": "unlike in theory", "undecided": "which may or may not agree with theory"}
    return Section(
        "two-features",
        "Does a circle still distinguish tokens when every position has two features?",
        f"{breaks}: {listed(shares)}, {agree[fit.answer]} ({theories}).",
        tables=[
            Table(
                ["positions, 2 features each", "share that fails", "theory"],
                [[n, spans[n], expected[n]] for n in found],
                4,
            )
        ],
        charts=[Chart("two-features", "Queries that attend to a wrong position", lines, "", "share that fails")],
        null_models="Theory for uniformly distributed angles; a random position, which is right once in as many cases "
        "as there are positions.",
        not_shown="Arrangements of features on the circle better than a random one, and more than two dimensions, are "
        "not tested.",
        numbers={"simulated": found, "theory": expected, "agreement": fit},
    )


def _dimensions(found: Found) -> Section:
    from zoo.models.toy import attention

    raw, normalised = _of(found, "raw"), _of(found, "normalised")
    sizes = sorted({v for v, _ in raw})
    expected = {size: attention.own_token_accuracy(*size) for size in raw}
    spans = {size: mean(values) for size, values in raw.items()}
    off = max(abs(float(values.mean()) - expected[size]) for size, values in raw.items())
    wide = {size: span for size, span in spans.items() if span.low < span.high}  # not all seeds at 0 or 1
    held = sum(expected[size] in span for size, span in wide.items())
    enough = {v: min((k for (n, k), x in raw.items() if n == v and x.mean() >= ENOUGH), default=None) for v in sizes}
    took = listed([f"k = {k} for V = {v:,}" if k else f"no tested k for V = {v:,}" for v, k in enough.items()])
    least = min(float(values.mean()) for values in normalised.values())
    finding = (
        f"At least {100 * ENOUGH:.0f} % of tokens attend to themselves from {took} on. The shares differ from theory "
        f"by {off:.3f} at most. Of the {len(wide)} intervals with a width above 0, {held} contain the value of theory. "
        "Tokens with vectors of equal length attend to themselves "
        + ("always, up to rounding" if least > 0.999 else "less often than theory predicts")
        + f": the smallest share is {least:.4f}."
    )
    lines = []
    for v, color in zip(sizes, cycle(COLORS[:3])):
        k = sorted(d for n, d in raw if n == v)
        lines.append(_theory(f"V = {v:,}", k, [expected[v, d] for d in k], color))
        lines.append(Series.of(f"V = {v:,}", k, [spans[v, d] for d in k], "points", color=color))
    k = sorted({d for _, d in normalised})
    lowest = [min(float(x.mean()) for (_, n), x in normalised.items() if n == d) for d in k]
    lines.append(Series("vectors of equal length, worst V", k, lowest, "dotted", color=COLORS[3]))
    title, caption = "Tokens that attend to themselves", "Dashed: theory. Whiskers: 95 % intervals over draws."
    rows = [[*size, spans[size], expected[size], mean(normalised[size])] for size in raw]
    columns = ["V", "k", "share that attends to itself", "theory", "share, vectors of equal length"]
    return Section(
        "dimensions",
        "How many dimensions do random vectors need to distinguish the tokens of a vocabulary?",
        finding,
        tables=[Table(columns, rows, 4)],
        charts=[Chart("dimensions", title, lines, "dimensions k", "share", caption=caption)],
        null_models="Theory, E[Phi(r)^(V - 1)] with r ~ chi(k), without fitted parameters; the same vectors scaled to "
        "equal length.",
        not_shown="Learned vectors, which are not independent, and temperatures above 0 are not tested. At most 500 "
        "tokens of a vocabulary are used as queries.",
        numbers={
            "raw": _with_sizes(raw),
            "normalised": _with_sizes(normalised),
            "theory": _with_sizes(expected),
            "enough": enough,
        },
    )


def _constructed(noise: Samples, fit: Agreement, pairs: Found, ties: Samples) -> Section:
    from zoo.models.toy import skip_bigram_head as bigrams

    one, partner = _of(pairs, "one"), _of(pairs, "partner")
    formula = {size: bigrams.usable_pairs(*size) for size in pairs}
    first = next(iter(pairs))
    d_model, d_head, rivals = first
    hard = max(ties)
    beta, tied, _, spread = hard
    finding = (
        f"{NOISE[fit.answer]}: {fit}. A head with D = {d_model} and d_head = {d_head} holds {mean(partner[first]):.0f} "
        f"pairs before any of {rivals} competitors exceeds the partner's own score in 5 % of cases, and "
        f"{mean(one[first]):.0f} before one exceeds a score of 1 (formula: {formula[first]}). Attention over {tied} "
        f"tied partners has an entropy of {mean(ties[hard]):.2f} at a noise of {spread} and beta = {beta:g}; uniform "
        f"attention would have log {tied} = {np.log(tied):.2f}."
    )
    expected = {size: bigrams.score_noise(*size) for size in noise}
    spans = {size: mean(values) for size, values in noise.items()}
    lines = []
    for shape, color in zip(dict.fromkeys(size[1:] for size in noise), cycle(COLORS)):
        name, own = f"D = {shape[0]:,}, d_head = {shape[1]}", [size for size in noise if size[1:] == shape]
        b = [size[0] for size in own]
        lines.append(_theory(name, b, [expected[size] for size in own], color))
        lines.append(Series.of(name, b, [spans[size] for size in own], "points", color=color))
    quiet = {size: bigrams.tied_attention(size[0], size[1], size[2], 0.0, n_draws=1)["entropy"] for size in ties}
    betas, left = [size[0] for size in ties], {size: mean(values) for size, values in ties.items()}
    entropies = [
        Series.of("with noise", betas, [*left.values()], "line", color=COLORS[0]),
        Series("without noise", betas, [*quiet.values()], "dashed", color=COLORS[1]),
    ]
    names = [f"{size[0]} x {size[1]}" for size in pairs]
    held = [
        Series.of("competitors against a score of 1", names, [*map(mean, one.values())], "bars", color=COLORS[0]),
        Series.of("against the partner's own score", names, [*map(mean, partner.values())], "bars", color=COLORS[1]),
        Series("formula", names, [*formula.values()], "points", color=COLORS[2]),
    ]
    title, labels = "Noise of scores that should be 0", ("pairs B", "rms score")
    charts = [Chart("skip-bigrams-noise", title, lines, *labels, True, True, caption="Dashed: theory.")]
    title, labels = f"Entropy of attention over {tied} tied partners", ("beta, inverse temperature", "nats")
    charts.append(Chart("skip-bigrams-ties", title, entropies, *labels, log_x=True))
    charts.append(Chart("skip-bigrams-usable", "Pairs that a head can hold", held, "D x d_head", "usable pairs B"))
    usable = [[*size, mean(one[size]), mean(partner[size]), formula[size]] for size in pairs]
    columns = ["D", "d_head", "competitors", "usable B, score of 1", "usable B, partner's own score", "formula"]
    note = (
        "Usable B is the largest number of pairs at which the probability that any competitor exceeds a score of 1, or "
        "the partner's own score, is at most 0.05."
    )
    return Section(
        "skip-bigrams",
        "How many skip bigrams can one head hold by construction?",
        finding,
        tables=[
            Table(["B", "D", "d_head", "noise", "theory"], [[*s, spans[s], expected[s]] for s in noise], 4),
            Table(columns, usable, 1, note),
            Table(
                ["beta", "tied", "positions", "noise", "entropy, nats", "without noise"],
                [[*size, left[size], quiet[size]] for size in ties],
            ),
        ],
        charts=charts,
        null_models="Theory of the noise, sqrt(B / (D d_head)) up to a factor that tends to 1; the Gaussian formula "
        "for the number of usable pairs; ties without noise.",
        not_shown="Constructions other than a sum of outer products through a random projection, several features per "
        "position, and the values and outputs of the head are not tested.",
        numbers={
            "noise": _with_sizes(noise),
            "agreement": fit,
            "usable": {"one": _with_sizes(one), "partner": _with_sizes(partner)},
            "ties": _with_sizes(ties),
        },
    )


def _learned(heads: Sequence[Mapping[str, Any]]) -> Section:
    better = sum(one["against_constructed"].sign == "above" for one in heads)
    first, last = heads[0], heads[-1]
    apart = sum(one["against_permuted"].sign == "below" for one in heads)
    significant, centred, count = (
        sum(one[k] for one in heads) for k in ("significant", "significant_centred", "heads")
    )
    orthogonal = "but they are not" if first["raw_overlap"].low > 0.01 else "and with the fewest pairs they are"
    finding = (
        f"Trained heads attend to a partner more often than constructed ones at {better} of {len(heads)} numbers of "
        f"pairs: in {first['learned']} of cases against {first['constructed']} with {first['pairs']} pairs, and "
        f"{last['learned']} against {last['constructed']} with {last['pairs']}. The vectors of mutually exclusive "
        f"groups of features overlap less than those of permuted groups at {apart} of {len(heads)} numbers of pairs "
        f"({significant} of {count} heads at p < 0.05), {orthogonal} orthogonal: the overlap is "
        f"{first['raw_overlap']} with {first['pairs']} pairs and {last['raw_overlap']} with {last['pairs']} (random "
        f"vectors {last['raw_random'].mean:.3f}, orthogonal groups 0)."
    )
    x = [str(one["pairs"]) for one in heads]

    def chart(name: str, title: str, names: Mapping[str, str], prefix: str, label: str) -> Chart:
        lines = []
        for (key, text), color in zip(names.items(), COLORS, strict=False):
            spans: list[Estimate] = [one[f"{prefix}{key}"] for one in heads]
            lines.append(Series.of(text, x, spans, "line", color=color))
        return Chart(f"learned-heads-{name}", title, lines, "skip bigrams", label)

    label = "overlap (0: orthogonal)"
    columns = ["pairs", *HEADS.values(), *OVERLAPS.values(), *(f"{text}, centred" for text in OVERLAPS.values())]
    keys = [*HEADS, *(f"{name}_{key}" for name in ("raw", "centred") for key in OVERLAPS)]
    note = (
        "The first columns are shares of queries that attend to a partner, the others are overlaps of the groups' "
        f"vectors. {significant} of {count} heads have groups that overlap less than permuted ones at p < 0.05, and "
        f"{centred} if the vectors of each group are centred."
    )
    return Section(
        "learned-heads",
        "Does a trained head hold more skip bigrams, and does it give mutually exclusive groups separate subspaces?",
        finding,
        tables=[Table(columns, [[one["pairs"], *(one[key] for key in keys)] for one in heads], note=note)],
        charts=[
            chart("right", "Queries that attend to a partner", HEADS, "", "share of queries"),
            chart("overlap", "Overlap of mutually exclusive groups' vectors", OVERLAPS, "raw_", label),
            chart("overlap-centred", "The same overlap, vectors centred in each group", OVERLAPS, "centred_", label),
        ],
        null_models="The construction with the same pairs; a random position; the learned vectors with permuted "
        "groups; random vectors.",
        not_shown="Other sizes of the head, a frozen embedding, and the head's values and outputs are not tested. The "
        "p-values of heads are not corrected for their number.",
        numbers={"heads": heads},
    )
