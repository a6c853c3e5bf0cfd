"""How many features can one attention head tell apart, by construction and learned?"""

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

VOCABULARY = 50257  # of GPT-2
PRECISIONS = ("float32", "float64")
POSITIONS = (2, 16)  # of two features each
NOISE_PAIRS, NOISE_SHAPES = (4, 16, 64, 256, 1024), ((256, 16), (512, 64), (1024, 16))  # and D, d_head
USABLE = ((256, 16, 100), (512, 32, 100))  # D, d_head and competitors
TIES = tuple((beta, 4, 16, 0.1) for beta in (1.0, 3.0, 10.0, 30.0, 100.0))  # and tied positions, positions, noise
D_MODEL, D_HEAD = 16, 8  # of trained heads
RARE = 0.01  # share of failures below which something hardly breaks
ENOUGH = 0.95  # share of right answers at which few dimensions count as enough
COLORS = ("first", "second", "third", "fourth")
HEADS = {"learned": "learned", "constructed": "constructed", "chance": "a random position"}
OVERLAPS = {"overlap": "learned vectors", "permuted": "learned vectors, groups permuted", "random": "random vectors"}
NOISE = {
    "yes": "Noise of a score and theory agree",
    "no": "Noise of a score and theory do not agree",
    "undecided": "Whether noise of a score and theory agree is undecided",
}


@dataclass(frozen=True)
class PlaceOnCircle(Task):
    """Tokens at equal distances on a circle, in one precision."""

    dtype: str
    n_tokens: int

    def do(self, work: Work) -> Result:
        """How many tokens it is `certain` to tell apart, and how many of the vocabulary are `misled`."""
        import torch

        from zoo.models.toy import attention

        dtype = getattr(torch, self.dtype)
        misled = attention.misled_tokens(self.n_tokens, dtype, window=8)
        return {"certain": attention.largest_circle(dtype), "misled": misled}

    def seconds(self) -> float:
        """Measured."""
        return 0.1


@dataclass(frozen=True)
class MixOnCircle(Task):
    """Two features at once at every position, each on the circle."""

    n_positions: int
    seed: int

    def do(self, work: Work) -> Result:
        """`failure`: the share of queries that attend to a wrong position."""
        from zoo.models.toy import attention

        return {"failure": attention.simulated_two_feature_failure(5000, self.n_positions, 50_000, self.seed)}

    def seconds(self) -> float:
        """Measured."""
        return 0.02


@dataclass(frozen=True)
class FindOwnToken(Task):
    """Tokens with random vectors in few dimensions, which attend to the highest score."""

    n_tokens: int
    k: int
    seed: int

    def do(self, work: Work) -> Result:
        """Share of tokens that attend to themselves, `raw` and, in float64, `normalised` to equal length."""
        import torch.nn.functional as F

        from zoo.models.toy import attention

        tokens = attention.projected_tokens(self.n_tokens, self.k, seed=self.seed)
        normalised = attention.own_token_attention(F.normalize(tokens.double()), n_queries=500)
        return {"raw": attention.own_token_attention(tokens, n_queries=500), "normalised": normalised}

    def seconds(self) -> float:
        """Mostly scores."""
        return 0.01 + 5e-6 * self.n_tokens


@dataclass(frozen=True)
class MeasureNoise(Task):
    """Skip bigrams written into a head."""

    n_pairs: int
    d_model: int
    d_head: int
    seed: int

    def do(self, work: Work) -> Result:
        """`noise`: root mean square of scores that should be 0."""
        import torch

        from zoo.models.toy.skip_bigram_head import simulated_scores

        sizes = (self.n_pairs, self.d_model, self.d_head, 256, 256)
        draws = [simulated_scores(*sizes, seed=10 * self.seed + i)[0] for i in range(10)]
        return {"noise": torch.stack(draws).square().mean().sqrt().item()}

    def seconds(self) -> float:
        """Mostly the draw of the pairs."""
        return 0.01 + 1.3e-7 * self.n_pairs * self.d_model


@dataclass(frozen=True)
class FindUsablePairs(Task):
    """Skip bigrams written into a head, until a competitor of the partner wins too often."""

    d_model: int
    d_head: int
    n_competitors: int
    seed: int
    level: float = 0.05

    def do(self, work: Work) -> Result:
        """The most pairs at which a competitor rarely wins, against a score of `one` and the `partner`'s own."""
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
        """Measured."""
        return 0.3


@dataclass(frozen=True)
class BreakTies(Task):
    """Partners at several positions, whose scores noise makes unequal."""

    beta: float
    n_tied: int
    n_positions: int
    noise: float
    seed: int

    def do(self, work: Work) -> Result:
        """`entropy` of attention over tied positions, at an inverse temperature."""
        from zoo.models.toy.skip_bigram_head import tied_attention

        return dict(tied_attention(self.beta, self.n_tied, self.n_positions, self.noise, seed=self.seed))

    def seconds(self) -> float:
        """Measured."""
        return 0.01


@dataclass(frozen=True)
class TrainHeads(Task):
    """Heads of all seeds, trained on skip bigrams side by side in one module."""

    n_pairs: int
    d_model: int
    d_head: int
    n_heads: int
    steps: int
    seed: int = 0

    def do(self, work: Work) -> Result:
        """By head: how often it, the construction and chance are right, and the overlap of its groups' vectors."""
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
        """Mostly training."""
        return 0.6 + 0.004 * self.steps


Found = Mapping[Any, Sequence[Result]]  # by sizes: results of all draws
Samples = Mapping[Any, np.ndarray]  # by sizes: one number of all draws


@dataclass(frozen=True)
class AttentionFeatures(Study):
    """Attention that finds tokens on a circle and in few dimensions, and that holds skip bigrams between features.

    Args:
        vocabularies: Tokens V whose vectors are drawn at random.
        dimensions: Dimensions k of these vectors.
        n_pairs: Skip bigrams that heads are trained on.
        steps: Optimizer steps of the heads.
        seeds: Draws of everything random, and heads trained for each number of pairs.
    """

    vocabularies: tuple[PositiveInt, ...] = (1000, 8192, 50257)
    dimensions: tuple[PositiveInt, ...] = (2, 4, 8, 12, 16, 24, 32, 48, 64)
    n_pairs: tuple[PositiveInt, ...] = (16, 32, 64, 128)
    steps: PositiveInt = 1500
    seeds: AtLeastTwo = 5

    def tasks(self) -> Sequence[Task]:
        """One for every measurement and draw; heads of all seeds are trained together."""
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
        """What heads tell apart, beside theory and beside what is written down."""
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
            ["Is the noise of constructed skip bigrams that of theory?", fit.brief, fit.answer],
            ["Do learned heads beat the construction?", measured, answer],
        ]
        headline = f"Trained attention heads find skip bigrams more often than constructed ones {answer}."
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} draws, or heads. Intervals are not corrected for "
            "their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "seeds": self.seeds, "agreement": fit, "heads": heads}
        subject = "Tokens and features whose vectors are known, and one attention head"
        return Report(subject, Verdict(headline, certainty, table, numbers), sections)


def _of(found: Found, key: str) -> Samples:
    return {sizes: np.array([r[key] for r in each]) for sizes, each in found.items()}


def _judged(runs: Mapping[int, Result]) -> list[dict[str, Any]]:
    """Trained heads, by number of pairs.

    Seeds are paired in `against_constructed`, the share of right answers minus that of the construction, and in
    `against_permuted`, the overlap of the groups' vectors minus that of permuted groups.
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
    """Numbers by sizes as plain JSON."""
    return [{"sizes": list(sizes), "value": value} for sizes, value in found.items()]


def _theory(name: str, x: Sequence[Any], y: Sequence[float], color: str) -> Series:
    return Series(name, x, y, "dashed", labels=["theory"] * len(x), color=color)


def _circle(limits: Mapping[str, Result]) -> Section:
    from zoo.models.toy import attention

    parts = []
    for name, limit in limits.items():
        fits = "enough" if limit["misled"] == 0 else f"not enough: {limit['misled']:,} of them attend to another"
        parts.append(f"{name} is {fits} (it is sure to tell {limit['certain']:,} apart)")
    finding = (
        "Yes, in exact arithmetic, for the own score exceeds a neighbour's by 1 - cos(2 pi / V). For the V = "
        f"{VOCABULARY:,} tokens of GPT-2 {listed(parts)}."
    )
    v = np.geomspace(10, 1e9, 33).round().astype(int).tolist()
    gaps = [attention.circle_gap(n) for n in v]
    lines = [Series("own score minus a neighbour's", v, gaps, "line", color=COLORS[0])]
    for (name, limit), color in zip(limits.items(), COLORS[1:], strict=False):
        level = attention.circle_gap(limit["certain"])
        lines.append(Series(f"rounding of {name}", [v[0], v[-1]], [level] * 2, "dashed", color=color))
    labels, caption = ("tokens V", "difference of scores"), "Scores below a dashed line may be rounded into each other."
    rows = [[name, limit["certain"], limit["misled"]] for name, limit in limits.items()]
    beta = attention.circle_beta(VOCABULARY, 0.9)
    note = f"Attention 0.9 to the own token of {VOCABULARY:,} takes beta = {beta:.2e}, in float64."
    columns = ["precision", "tokens it is sure to tell apart", f"of {VOCABULARY:,}, attend to another"]
    return Section(
        "circle",
        "Do 2 dimensions suffice to find the own token among all?",
        finding,
        tables=[Table(columns, rows, note=note)],
        charts=[Chart("circle", "What precision a circle takes", lines, *labels, True, True, caption=caption)],
        null_models="Exact arithmetic, where the answer is known.",
        not_shown="Anything that is learned, and features that are not mutually exclusive.",
        numbers={"limits": limits, "vocabulary": VOCABULARY},
    )


def _two_features(found: Samples) -> Section:
    from zoo.models.toy import attention

    expected = {n: attention.two_feature_failure(n) for n in found}
    spans = {n: mean(values) for n, values in found.items()}
    fit = Agreement.of(np.array([values / expected[n] for n, values in found.items()]))
    shares = [f"{span} of queries fail among {n:,} positions" for n, span in spans.items()]
    theories = listed([f"{value:.3f}" for value in expected.values()])
    names = [f"{n:,} positions" for n in found]
    lines = [
        Series.of("simulated", names, [*spans.values()], "bars", color=COLORS[0]),
        Series("theory", names, [*expected.values()], "points", color=COLORS[1]),
        Series("a random position", names, [1 - 1 / n for n in found], "points", color=COLORS[2]),
    ]
    breaks = "It breaks" if all(span.low > RARE for span in spans.values()) else "It hardly breaks"
    agree = {"yes": "as theory says", "no": "unlike theory", "undecided": "which is not clearly what theory says"}
    return Section(
        "two-features",
        "Does a circle still tell tokens apart when two features are present at once?",
        f"{breaks}: {listed(shares)}, {agree[fit.answer]} ({theories}).",
        tables=[Table(["positions of 2 features", "fail", "theory"], [[n, spans[n], expected[n]] for n in found], 4)],
        charts=[Chart("two-features", "Queries that attend to a wrong position", lines, "", "share that fails")],
        null_models="Theory of uniform angles; a random position, which fails in all but one of so many cases.",
        not_shown="Features that are placed better than at random on the circle, and more than two dimensions.",
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
    took = listed([f"k = {k} for V = {v:,}" if k else f"no k for V = {v:,}" for v, k in enough.items()])
    least = min(float(values.mean()) for values in normalised.values())
    finding = (
        f"Of the dimensions tried, {100 * ENOUGH:.0f} % attend to their own token from {took} on. Shares differ from "
        f"theory by {off:.3f} at most, and {held} of the {len(wide)} intervals that have a width hold it. "
        "Vectors of equal length do so "
        + ("always, up to precision" if least > 0.999 else "less often than theory says")
        + f": {least:.4f} at least."
    )
    lines = []
    for v, color in zip(sizes, cycle(COLORS[:3])):
        k = sorted(d for n, d in raw if n == v)
        lines.append(_theory(f"V = {v:,}", k, [expected[v, d] for d in k], color))
        lines.append(Series.of(f"V = {v:,}", k, [spans[v, d] for d in k], "points", color=color))
    k = sorted({d for _, d in normalised})
    lowest = [min(float(x.mean()) for (_, n), x in normalised.items() if n == d) for d in k]
    lines.append(Series("of equal length, the worst V", k, lowest, "dotted", color=COLORS[3]))
    title, caption = "Queries that attend to their own token", "Dashed: theory. Whiskers: 95 % over draws of vectors."
    rows = [[*size, spans[size], expected[size], mean(normalised[size])] for size in raw]
    columns = ["V", "k", "attend to their own token", "theory", "the same, of equal length"]
    return Section(
        "dimensions",
        "How many random dimensions tell a vocabulary apart?",
        finding,
        tables=[Table(columns, rows, 4)],
        charts=[Chart("dimensions", title, lines, "dimensions k", "share", caption=caption)],
        null_models="E[Phi(r)^(V - 1)] with r ~ chi(k), which has nothing to fit; the same vectors at equal length.",
        not_shown="Learned vectors, which are not independent; positive temperatures; other tokens of the vocabulary "
        "than those that asked.",
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
        f"{NOISE[fit.answer]}: {fit}. The most pairs at which one of {rivals} competitors wins in 5 % of cases, at D = "
        f"{d_model} and d_head = {d_head}: {mean(partner[first]):.0f} against the partner's own score and "
        f"{mean(one[first]):.0f} against a score of 1 (formula {formula[first]}). Of {tied} tied partners noise of "
        f"{spread} leaves an entropy of {mean(ties[hard]):.2f} at beta = {beta:g}, where log {tied} = "
        f"{np.log(tied):.2f} is all of it."
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
        Series.of("against a score of 1", names, [*map(mean, one.values())], "bars", color=COLORS[0]),
        Series.of("against the partner's own score", names, [*map(mean, partner.values())], "bars", color=COLORS[1]),
        Series("formula", names, [*formula.values()], "points", color=COLORS[2]),
    ]
    title, labels = "Noise of a score that should be 0", ("pairs B", "rms score")
    charts = [Chart("skip-bigrams-noise", title, lines, *labels, True, True, caption="Dashed: theory.")]
    title, labels = f"Entropy of attention over {tied} tied partners", ("beta, inverse temperature", "nats")
    charts.append(Chart("skip-bigrams-ties", title, entropies, *labels, log_x=True))
    charts.append(Chart("skip-bigrams-usable", "Pairs that a head can hold", held, "D x d_head", "usable pairs B"))
    usable = [[*size, mean(one[size]), mean(partner[size]), formula[size]] for size in pairs]
    columns = ["D", "d_head", "competitors", "usable B against a score of 1", "against the partner's own", "formula"]
    note = "Usable B: the most pairs at which any of the competitors wins with probability 0.05 at most."
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
        null_models="Theory of the noise, sqrt(B / (D d_head)) up to a factor that tends to 1, the Gaussian formula "
        "of the usable pairs, and ties without noise.",
        not_shown="Other constructions than a sum of outer products through a random projection; more than one "
        "feature per position; values and outputs of the head.",
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
    orthogonal = "but are not" if first["raw_overlap"].low > 0.01 else "and with the fewest pairs are"
    finding = (
        f"Learned heads attend to a partner more often than constructed ones at {better} of {len(heads)} numbers of "
        f"pairs: {first['learned']} against {first['constructed']} with {first['pairs']}, {last['learned']} against "
        f"{last['constructed']} with {last['pairs']}. Vectors of exclusive groups overlap less than permuted groups at "
        f"{apart} of {len(heads)} ({significant} of {count} heads at p < 0.05), {orthogonal} orthogonal: "
        f"{first['raw_overlap']} with {first['pairs']} pairs, {last['raw_overlap']} with {last['pairs']} (random "
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
        "Shares of queries that attend to a partner, then overlaps of the groups' vectors. The groups of "
        f"{significant} of {count} heads overlap less than permuted ones at p < 0.05, once centred {centred}."
    )
    return Section(
        "learned-heads",
        "Does a trained head hold more skip bigrams, and give exclusive groups subspaces of their own?",
        finding,
        tables=[Table(columns, [[one["pairs"], *(one[key] for key in keys)] for one in heads], note=note)],
        charts=[
            chart("right", "Attends to a partner", HEADS, "", "share of queries"),
            chart("overlap", "Overlap of exclusive groups' vectors", OVERLAPS, "raw_", label),
            chart("overlap-centred", "Overlap of exclusive groups' centred vectors", OVERLAPS, "centred_", label),
        ],
        null_models="The construction with the same pairs; a random position; the learned vectors with permuted "
        "groups; random vectors.",
        not_shown="Other sizes of the head, a frozen embedding, values and outputs (only where it looks). The "
        "p-values of heads trained on the same pairs are not corrected for their number.",
        numbers={"heads": heads},
    )
