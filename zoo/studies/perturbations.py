"""Does a change of activations along an autoencoder's features cost a language model more than another of equal size?

If a network stores features of the residual stream in superposition and removes small errors, errors along features
should change predictions more than equally long errors in other directions. Four experiments compare KL(P of the clean
run ‖ P of the edited run):
`errors` of autoencoders against random errors, changes of codes that keep the `support`, `sphere`s around activations,
and the `exchange` of codes or directions.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from zoo import catalog, estimates
from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.shared_tasks.horizon import held_out_tokens, text_of
from zoo.shared_tasks.models import steps_of, wanted_steps
from zoo.shared_tasks.perturbations import (
    Coder,
    ErrorEffects,
    ExchangeEffects,
    SphereEffects,
    SupportEffects,
    Texts,
    TrainCoder,
)
from zoo.source import Source
from zoo.study import AtLeastTwo, Results, Study, Task
from zoo.wording import listed

EXPERIMENTS = ("errors", "support", "sphere", "exchange")
SHORTEST = 4  # tokens of a window
PATTERN = "sae-resid.{model}.layer-*.seed-*"  # names of the shipped autoencoders of a model
TWIN = ".null"  # at the end of the name of a null twin
SAME_MODEL = {"gpt2-small": "gpt2"}  # TransformerLens's name of a model -> its name on the hub
STYLES: tuple[Style, ...] = ("line", "dashed", "dotted")
SMALLEST = 1e-7  # nats; smaller divergences are drawn at this height
DIVERGENCE = "KL, nats"


@dataclass(frozen=True)
class Perturbations(Study):
    """Activations at the site of an autoencoder are changed, and the effect on predictions is measured.

    Args:
        model: A language model, as `zoo.load` takes it.
        sae: Autoencoders or dictionaries of the model's activations, as `zoo.load` takes them, or patterns of names of
            shipped ones. By default the shipped autoencoders of the model's residual stream.
        layer: Layer of autoencoders that do not tell the site of their activations; all others must be of this layer.
            The number of layers is the residual stream after the last one.
        site: Site of autoencoders that do not tell it, such as resid_pre or mlp_out.
        steps: Training steps of the model, ascending, or "all". The study then trains autoencoders for every step, and
            `sae` must not be set.
        train_layers: Layers before which the study itself trains TopK autoencoders of the residual stream, in place of
            `sae`; for models without autoencoders. With `steps`, by default the layer in the middle.
        latents: Number of latents of trained autoencoders; by default 4 times the width of the model.
        active: Number of latents that are on per token, of trained autoencoders.
        training_steps: Training steps of autoencoders, of 512 tokens each.
        seeds: Number of trained autoencoders of each step and layer.
        experiments: What is measured: errors, support, sphere, exchange.
        text_config: Config whose `data` part defines the text; by default the text of the model's own training, or
            Python's standard library for a model that the zoo did not train. `--config` is the same setting.
        documents: Number of texts, windows of documents that the model was not trained on. Windows do not overlap. If
            there are fewer documents, some give several windows, and these count as one document in all intervals. The
            held-out text of the shipped models has 43 documents of at least 129 tokens.
        length: Number of tokens that the model reads of a document; at most its context length.
        positions: Number of tokens whose errors are measured one at a time.
        pairs: Number of tokens for `support` and `exchange`.
        norms: Norms of changes that keep the support, as multiples of the norm of the reconstruction.
        exponent_radii: Radii of the circle between two active atoms, in the same unit as `radii`.
        sphere_positions: Number of tokens whose spheres are measured.
        radii: Radii of the spheres, ascending, as multiples of the norm of the activation minus the mean.
        directions: Number of random directions of a token, of each of three kinds, in equal parts for all radii.
        atoms: Largest number of inactive atoms of a token whose divergences are measured.
        starts: Number of starts of gradient ascent on a sphere.
        ascent_radius: Radius of this sphere, in the same unit as `radii`.
        ascent_steps: Steps of gradient ascent.
        seed: Seed of tokens and of random changes.
        batch: Number of documents that are run at a time.
    """

    model: str = "gpt2-mini.learned"
    sae: tuple[str, ...] = ()
    layer: NonNegativeInt | None = None
    site: str | None = None
    steps: tuple[str, ...] | None = None
    train_layers: tuple[NonNegativeInt, ...] = ()
    latents: PositiveInt | None = None
    active: PositiveInt = 16
    training_steps: PositiveInt = 2000
    seeds: AtLeastTwo = 2
    experiments: tuple[str, ...] = EXPERIMENTS
    text_config: str | None = None
    documents: AtLeastTwo = 64
    length: PositiveInt = 128
    positions: AtLeastTwo = 1000
    pairs: AtLeastTwo = 200
    norms: tuple[PositiveFloat, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    exponent_radii: tuple[PositiveFloat, ...] = (0.1, 0.5)
    sphere_positions: AtLeastTwo = 20
    radii: tuple[PositiveFloat, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    directions: PositiveInt = 10_000
    atoms: PositiveInt = 512
    starts: PositiveInt = 16
    ascent_radius: PositiveFloat = 0.5
    ascent_steps: PositiveInt = 50
    seed: NonNegativeInt = 0
    batch: PositiveInt = 16
    title = "What does a perturbation along features do to the logits?"
    aliases: ClassVar[Mapping[str, str]] = {"config": "text_config"}

    def check(self) -> None:
        """Refuse unknown experiments, repeated values and windows that are too short."""
        for one in self.experiments:
            if one not in EXPERIMENTS:
                raise ZooError(f"experiments has {one!r}; expected some of {', '.join(EXPERIMENTS)}")
        for name in ("experiments", "sae", "norms", "radii", "exponent_radii"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ZooError(f"{name} has a value twice")
        for name in ("norms", "radii", "exponent_radii"):
            if list(getattr(self, name)) != sorted(getattr(self, name)):
                raise ZooError(f"the {name} must be ascending")
        if self.length < SHORTEST:
            raise ZooError(f"length is {self.length}; it must be at least {SHORTEST}")
        wanted_steps(self.steps)
        if len(set(self.train_layers)) < len(self.train_layers):
            raise ZooError("train_layers has a value twice")
        for name in ("sae", "layer") if self.steps or self.train_layers else ():
            if getattr(self, name) not in ((), None):
                raise ZooError(f"the study trains autoencoders with steps or train_layers; do not set {name} as well")
        if self.layer is None and self.site is not None:
            raise ZooError("site is set without layer; set both")

    @cached_property
    def _coders(self) -> dict[Coder, Source | None]:
        """The autoencoders, by layer, with their null twins."""
        from zoo.analysis.documents import several_windows
        from zoo.protocols import LanguageModel, missing_in

        source = Source.open(self.model)
        trains = bool(self.steps or self.train_layers)
        steps = steps_of(source, wanted_steps(self.steps)) if trains else [None]
        model: Any = source.load(steps[-1])
        if missing_in(model, LanguageModel):
            raise ZooError(f"{self.model} is a {type(model).__name__}; the study needs a language model")
        saes = [] if trains else [Source.open(name) for name in self._names()]
        placed: list[tuple[Any, ...]] = [(sae, self._site_of(sae.name, sae, model)) for sae in saes]
        placed += [(one, site, one.step) for one, site in self._trained(source, steps, model) if trains]
        data, _ = text_of(source, self.text_config, len(model.W_E))
        length = min(self.length, model.context_length or self.length)
        held_out, _, end, prefix = held_out_tokens(data)
        several_windows(held_out, end, self.documents, length + 1, 0, prefix)
        documents = Texts(source, self.text_config, _tokens_of(data), len(model.W_E), self.documents, length)
        limit = self.documents * (length - 2)
        for name in ("positions", "pairs", "sphere_positions"):
            if getattr(self, name) > limit:
                raise ZooError(
                    f"{name} is {getattr(self, name)}; {self.documents} documents of {length} tokens have {limit} "
                    "tokens between their first and last ones"
                )
        coders = [Coder(documents, source, *one) for one in placed]
        ordered = sorted(coders, key=lambda one: (_order(one.site), one.step or 0, one.name))
        return {one: _twin_of(one.name) if isinstance(one.sae, Source) else None for one in ordered}

    def _trained(self, source: Source, steps: Sequence[int | None], model: Any) -> list[tuple[TrainCoder, str]]:
        """The tasks that train autoencoders, and the sites of their activations."""
        from zoo.interventions import check_sites, hook_name

        L, width = model.n_layers, model.W_E.shape[1]
        for layer in self.train_layers:
            if layer > L:
                raise ZooError(
                    f"there is no layer {layer}; {self.model} has layers 0 to {L - 1}, and {L} is after them"
                )
        latents, found = self.latents or 4 * width, []
        if self.active > latents // 2:
            raise ZooError(f"active is {self.active}; it must be at most half of {latents} latents")
        for layer in self.train_layers or (L // 2,):
            site = hook_name(layer, "resid_pre") if layer < L else hook_name(L - 1, "resid_post")
            check_sites(model, [site])
            sizes = latents, self.active, self.training_steps
            found += [(TrainCoder(source, step, layer, *sizes, s), site) for step in steps for s in range(self.seeds)]
        return found

    def _names(self) -> list[str]:
        """The names of the autoencoders."""
        names: list[str] = []
        for pattern in self.sae or (PATTERN.format(model=self.model),):
            shipped = [name for name in catalog.list_models(pattern) if not name.endswith(TWIN) or name == pattern]
            if not shipped and (not self.sae or any(sign in pattern for sign in "*?[")):
                raise ZooError(
                    f"no shipped autoencoder has a name like {pattern}; name autoencoders with --sae, or let the study "
                    "train them with --train_layers"
                )
            names += shipped or [pattern]
        return list(dict.fromkeys(names))

    def _site_of(self, name: str, sae: Source, model: Any) -> str:
        """The site of an autoencoder, which is refused if it does not fit the model."""
        from zoo.interventions import check_sites, hook_name
        from zoo.protocols import Reconstructs, missing_in, offered

        net: Any = sae.load()
        if missing_in(net, Reconstructs) or "W_dec" not in net.state_dict():
            raise ZooError(f"{name} is a {type(net).__name__}; the study needs an autoencoder or a dictionary")
        told, L = sae.provenance(), model.n_layers
        of, own = told.get("model"), told.get("hook_name")
        if of is not None and _short_name(str(of)) != _short_name(self.model):
            raise ZooError(f"{name} is an autoencoder of {of}, not of {self.model}")
        if self.layer is not None and self.layer > L:
            raise ZooError(
                f"there is no layer {self.layer}; {self.model} has layers 0 to {L - 1}, and {L} is after them"
            )
        wanted = None if self.layer is None else _canonical(hook_name(self.layer, self.site or "resid_pre"), L)
        if own is None and wanted is None:
            raise ZooError(f"{name} does not tell the site of its activations; set layer")
        site = wanted if own is None else _canonical(str(own), L)
        if wanted is not None and site != wanted:
            raise ZooError(f"{name} is an autoencoder of {own}, not of {wanted}")
        if not re.fullmatch(r"blocks\.\d+\.hook_\w+", str(site)):
            raise ZooError(f"{name} is an autoencoder of {site}; a perturbation needs a site blocks.L.hook_...")
        check_sites(model, [str(site)])
        width = model.W_E.shape[1]
        if net.W_dec.shape[1] != width:
            raise ZooError(
                f"{name} has atoms of {net.W_dec.shape[1]} dimensions; activations of {self.model} have {width}"
            )
        if offered(net, "signed_codes") and {"support", "exchange"} & set(self.experiments):
            raise ZooError(f"{name} has codes of both signs; measure it with --experiments errors sphere")
        return str(site)

    def _tasks_of(self, coder: Coder, twin: Source | None) -> dict[str, Task]:
        """The tasks of an autoencoder, by experiment."""
        sizes = self.directions, self.atoms, self.starts, self.ascent_radius, self.ascent_steps
        found: dict[str, Task] = {
            "errors": ErrorEffects(coder, self.positions, self.seed, self.batch),
            "support": SupportEffects(coder, self.pairs, self.seed, self.norms, self.exponent_radii),
            "sphere": SphereEffects(coder, self.sphere_positions, self.seed, twin, self.radii, *sizes),
            "exchange": ExchangeEffects(coder, self.pairs, self.seed),
        }
        return {name: found[name] for name in self.experiments}

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of all autoencoders and experiments."""
        found = [task for one in self._coders.items() for task in self._tasks_of(*one).values()]
        return list(dict.fromkeys(found))

    def report(self, results: Results) -> Report:
        """Return a report with a section for every experiment."""
        from zoo.analysis.error_correction import decision, sides, signs_of

        names = _labels([coder.name for coder in self._coders])
        found: list[_Measured] = []
        last = max(coder.step or 0 for coder in self._coders)
        for name, (coder, twin) in zip(names, self._coders.items(), strict=True):
            own = {kind: results[task] for kind, task in self._tasks_of(coder, twin).items()}
            drawn = (coder.step or 0) == last and coder.site not in [one.coder.site for one in found if one.first]
            found.append(_Measured(name, coder, drawn, own))
        for one in found:
            one.signs = signs_of(one.results, self.exponent_radii, self.radii)
        told = sides({one.name: one.signs for one in found})
        for one in found:
            one.sides, one.decision = told[one.name], decision(told[one.name])
            one.told["error correction"] = one.decision
        parts = [_SECTIONS[name](self, found) for name in self.experiments]
        sections = [section for section, _ in parts]
        if self.steps:
            sections.insert(0, _training(self, found))
        sections.append(_comparisons([count for _, counts in parts for count in counts]))
        numbers = {one.coder.name: one.told for one in found}
        headline = "\n\n".join([_headline(self, found), "\n".join(f"- {section.finding}" for section, _ in parts)])
        recognised = (
            "The study `planted-perturbations` applies the same rule in networks whose features and error correction "
            "are known, and tells which of them it finds."
        )
        verdict = Verdict(headline, self._certainty(found), _evidence(found), numbers, recognised, self._not_tested())
        return Report(f"{self.model}; {_autoencoders(len(found))}", verdict, sections)

    def _certainty(self, found: Sequence["_Measured"]) -> str:
        """How the answer is found, and how sure it is."""
        from zoo.analysis.error_correction import MARGINS

        measured = found[0].results
        n = max(len(np.unique(one["texts" if "texts" in one else "rows"])) for one in measured.values())
        return (
            "If a network corrects errors along features, changes along features cost more (the KL is larger) than "
            "other changes of the same length, and the longer they are, the larger is this ratio. Error correction is "
            "*seen* if all three signs of the table are above their margins, *not seen* if all three are below them, "
            "and otherwise *undecided*. The margins were chosen after the results of networks with known features, "
            "and the errors of language models, had been seen. A sign counts if it differs from its "
            f"margin at 5 % after Holm's correction for all {len(MARGINS) * len(found)} comparisons. All other "
            "intervals of this page are not corrected for their number. Numbers are the smallest and the largest over "
            f"autoencoders, with 95 % intervals over documents: {self.documents} texts of {n} documents are measured, "
            "and one run of training of the model."
        )

    def _not_tested(self) -> str:
        left = [name for name in EXPERIMENTS if name not in self.experiments]
        lost = f" Of the experiments, {listed(left)} {'was' if len(left) == 1 else 'were'} left out." if left else ""
        return (
            "Other models and texts, the first position of a text, and whether atoms of autoencoders are the model's "
            "features. If they are not, error correction along the true features can be missed. Effects that are "
            f"smaller than the margins can exist. Signs above the margins can have other causes.{lost}"
        )


class _Measured:
    """An autoencoder and its results.

    Attributes:
        name: Short name in tables.
        first: Whether it is the first autoencoder of its site; charts of single autoencoders show only these.
        told: Numbers for the verdict; sections add to them.
        signs: Signs of error correction, see `zoo.analysis.error_correction`.
        sides: Whether each of them is above or below its margin.
        decision: Whether error correction is seen.
    """

    def __init__(self, name: str, coder: Coder, first: bool, results: dict[str, Any]) -> None:
        self.name, self.coder, self.first, self.results = name, coder, first, results
        self.told: dict[str, Any] = {"site": coder.site}
        self.signs: dict[str, Any] = {}
        self.sides: dict[str, Any] = {}
        self.decision = "undecided"


class _Compared(NamedTuple):
    """Two measurements of the same tokens: the ratio of their means, and the sign test over documents."""

    ratio: Estimate
    test: Any  # a `zoo.analysis.document_tests.SignTest`

    def signs(self) -> str:
        """The sign test in a cell: documents above and below, and the p-value."""
        return f"{self.test.above} : {self.test.below}, p = {self.test.p_value:.2g}"


def _compared(values: np.ndarray, reference: np.ndarray, rows: np.ndarray) -> _Compared:
    from zoo.analysis.document_tests import ratio_of_means, sign_test

    return _Compared(ratio_of_means(values, reference, rows), sign_test(values, reference, rows))


def _over_documents(values: np.ndarray, rows: np.ndarray, middle: Callable[..., Any] = np.mean) -> Estimate:
    """The mean over documents of the mean or median of their tokens; tokens that are NaN are left out."""
    return estimates.mean(_by_document(values, rows, middle))


def _share(values: np.ndarray, rows: np.ndarray) -> Estimate:
    """The mean over documents of the mean share of their tokens, with an interval between 0 and 1."""
    return estimates.mean(_by_document(values, rows, np.mean), 0.0, 1.0)


def _by_document(values: np.ndarray, rows: np.ndarray, middle: Callable[..., Any]) -> list[float]:
    known = np.isfinite(values)
    return [float(middle(values[known & (rows == row)])) for row in np.unique(rows[known])]


def _nats(estimate: Estimate) -> str:
    return f"{estimate:.3g}"


class _Count(NamedTuple):
    """What was compared, the number that says no difference, and one interval for every autoencoder."""

    what: str
    against: float
    found: Sequence[Estimate]

    def counts(self) -> list[int]:
        """How many intervals lie above the number, below it, and on both sides of it."""
        known = [one for one in self.found if np.isfinite(one.mean)]
        above, below = sum(one.low > self.against for one in known), sum(one.high < self.against for one in known)
        return [above, below, len(known) - above - below]


def _autoencoders(n: int) -> str:
    return f"{n} autoencoder{'' if n == 1 else 's'}"


def _headline(study: Perturbations, found: Sequence["_Measured"]) -> str:
    """The answer in words."""
    n = {kind: sum(one.decision == kind for one in found) for kind in ("seen", "not seen", "undecided")}
    errors = [one.signs["errors"].estimate for one in found if "errors" in one.signs]
    cost = f" Errors of autoencoders cost {_range(errors)} times as much as random errors with the same covariance."
    cost = cost if errors else ""
    if n["not seen"] == len(found):
        return f"No sign of error correction along features in {study.model}.{cost}"
    if n["seen"] == len(found):
        return f"{study.model} corrects errors along the features of all {_autoencoders(len(found))}.{cost}"
    if n["undecided"] == len(found):
        return f"Whether {study.model} corrects errors along features is undecided.{cost}"
    counts = [f"{kind} in {k}" for kind, k in n.items() if k]
    return f"Error correction along features of {study.model} is {listed(counts)} of {_autoencoders(len(found))}.{cost}"


def _evidence(found: Sequence["_Measured"]) -> str:
    """The signs of all autoencoders as a Markdown table."""
    from zoo.analysis.error_correction import MARGINS

    def cell(one: "_Measured", name: str) -> str:
        if name not in one.signs:
            return "not measured"
        return f"{one.signs[name].estimate:.2f}, {one.sides[name]}"

    rows = [[one.name, *(cell(one, name) for name in MARGINS), one.decision] for one in found]
    columns = ["errors / covariance-matched", "exponent p minus permuted", "excess over permuted"]
    named = [f"{told} (margin {least:g})" for told, least in zip(columns, MARGINS.values(), strict=True)]
    return Table(["autoencoder", *named, "error correction"], rows).markdown()


def _range(estimates_: Sequence[Estimate], spec: str = ".2f") -> str:
    """The smallest and the largest of some estimates, with their intervals."""
    known = sorted((one for one in estimates_ if np.isfinite(one.mean)), key=lambda one: one.mean)
    if not known:
        return "an unknown number of"
    return f"{known[0]:{spec}}" + (f" to {known[-1]:{spec}}" if len(known) > 1 else "")


def _comparisons(counts: Sequence[_Count]) -> Section:
    """All comparisons, with the number of autoencoders on each side."""
    table = Table(
        ["compared", "no difference", "above", "below", "undecided"],
        [[count.what, f"{count.against:g}", *count.counts()] for count in counts],
        note="Numbers of autoencoders, by where the whole 95 % interval over documents lies.",
    )
    return Section(
        "comparisons",
        "In how many autoencoders does each comparison show a difference?",
        f"The table counts {len(counts)} comparisons. Their intervals are not corrected for their number, and the "
        "verdict does not depend on them.",
        tables=[table],
        null_models="Those of the experiments above.",
        not_shown="The size of a difference; it is in the tables above.",
    )


def _training(study: Perturbations, found: Sequence["_Measured"]) -> Section:
    """The signs over training steps."""
    from zoo.analysis.error_correction import MARGINS

    words = {
        "errors": ("Errors over covariance-matched errors", "ratio of KL"),
        "exponent": ("Exponent of features minus permuted", "difference of p"),
        "excess": ("Response beyond the quadratic form", "ratio to permuted atoms"),
    }
    groups: dict[tuple[str, int], list[_Measured]] = {}
    for one in found:
        groups.setdefault((one.coder.site, one.coder.sae.seed), []).append(one)  # type: ignore[union-attr]
    charts, rows = [], []
    for name in (name for name in MARGINS if name in found[0].signs):
        title, label = words[name]
        lines = []
        for (_, seed), ones in groups.items():
            steps = [str(one.coder.step) for one in ones]
            told = f"layer {ones[0].coder.sae.layer}, seed {seed}"  # type: ignore[union-attr]
            lines.append(Series.of(told, steps, [one.signs[name].estimate for one in ones]))
        lines.append(Series("margin", steps, [MARGINS[name]] * len(steps), "dashed"))
        caption = "Bands: 95 % intervals over documents."
        charts.append(Chart(f"training-{name}", title, lines, "training step", label, caption=caption))
    for one in found:
        kl = one.results.get("errors")
        cells = [one.signs[name].estimate for name in MARGINS if name in one.signs]
        fvu = float(kl["fvu"]) if kl else float("nan")
        rows.append([str(one.coder.step), one.name, fvu, *cells, one.decision])
    columns = ["training step", "autoencoder", "FVU", *(words[name][0] for name in MARGINS if name in found[0].signs)]
    by_step = {one.coder.step: [] for one in found}  # type: ignore[var-annotated]
    for one in found:
        by_step[one.coder.step].append(one.decision)
    told = "; ".join(f"step {step}: {listed(list(dict.fromkeys(each)))}" for step, each in by_step.items())
    return Section(
        "training",
        "How does error correction along features change over training?",
        f"Error correction by training step: {told}.",
        tables=[Table([*columns, "error correction"], rows)],
        charts=charts,
        null_models="Step 0 is the untrained network. Permuted atoms and covariance-matched errors are those of the "
        "experiments below.",
        not_shown=f"One run of training of the model is shown, with {study.seeds} autoencoders of every step. "
        "Autoencoders of different steps have different atoms.",
    )


def _errors(study: Perturbations, found: Sequence[_Measured]) -> tuple[Section, list[_Count]]:
    """D1: the autoencoder's own error."""
    from zoo.analysis.perturbation_effects import ERRORS

    tables: list[Table | str] = []
    ratios: dict[tuple[str, str], list[_Compared]] = {}
    for how, text in (
        ("all", "**All positions edited**, KL at all positions"),
        ("at", "**One position edited**, KL at this position"),
        ("after", "**One position edited**, sum of the KL at all later positions"),
    ):
        rows: list[list[Any]] = []
        tests: list[list[Any]] = []
        for one in found:
            result = one.results["errors"]
            values = result[how].reshape(len(ERRORS), -1)
            docs = np.repeat(result["texts"], result["all"].shape[2]) if how == "all" else result["rows"]
            compared = [_compared(values[0], reference, docs) for reference in values[1:]]
            for name, each in zip(ERRORS[1:], compared, strict=True):
                ratios.setdefault((how, name), []).append(each)
            kl = _over_documents(values[0], docs)
            one.told |= {
                f"kl {how}": kl,
                f"ratios {how}": dict(zip(ERRORS[1:], (c.ratio for c in compared), strict=True)),
            }
            first = [one.name, float(result["fvu"])] if how == "all" else [one.name]
            cells = [_nats(kl), f"{np.median(values[0]):.3g}", *(c.ratio for c in compared)]
            rows.append([*first, *cells, kl.n, values.shape[1]])
            tests.append([one.name, *(c.signs() for c in compared)])
        head = ["autoencoder", "FVU"] if how == "all" else ["autoencoder"]
        columns = [*head, "KL, nats", "median KL", *(f"KL / {name}" for name in ERRORS[1:]), "documents", "tokens"]
        tables += [f"{text}:", Table(columns, rows)]
        tables += [Table(["documents above : below", *ERRORS[1:]], tests)]
    names = [one.name for one in found]
    charts = [
        Chart(
            f"errors-{how}",
            title,
            [
                Series.of(name, names, [each.ratio for each in ratios[how, name]], style)
                for name, style in zip(ERRORS[1:], (*STYLES, STYLES[0]), strict=True)
            ],
            "autoencoder",
            "KL of the error / KL of random errors",
            log_y=True,
            caption="1: no difference. Bands: 95 % intervals over documents. Lines guide the eye only.",
        )
        for how, title in (("all", "All positions edited"), ("at", "One position edited, KL there"))
    ]
    counts = [
        _Count(
            f"the KL of the error divided by that of {name} errors ({where})",
            1.0,
            [each.ratio for each in ratios[how, name]],
        )
        for how, where in (("all", "all positions edited"), ("at", "one position edited"))
        for name in ("covariance-matched", "isotropic", "mixture")
    ]
    section = Section(
        "errors",
        "Do errors of autoencoders change predictions more than random errors of the same norms?",
        "With all positions edited, errors of autoencoders cost "
        f"{_range([each.ratio for each in ratios['all', 'covariance-matched']])} times as much as random errors with "
        f"the same covariance, and {_range([each.ratio for each in ratios['all', 'isotropic']])} times as much as "
        "isotropic ones.",
        tables=tables,
        charts=charts,
        null_models=(
            "Every error has random ones of the same norm, token by token: isotropic; draws of a Gaussian with the "
            "errors' mean and covariance; differences of two draws of a Gaussian with the activations' covariance "
            "(mixture, arXiv 2410.12555); and errors of other tokens. The sign test counts documents."
        ),
        not_shown=(
            "A ratio above 1 does not say that the error lies along features. A ratio below 1 can come with a large "
            "KL, so both are shown. Errors can be special in other ways than their covariance."
        ),
        numbers={one.coder.name: one.told for one in found},
    )
    return section, counts


def _support(study: Perturbations, found: Sequence[_Measured]) -> tuple[Section, list[_Count]]:
    """D2: changes of codes that keep the support, and the exponent."""
    from zoo.analysis.perturbation_effects import PAIRS, SUPPORT

    rows: list[list[Any]] = []
    kept_rows: list[list[Any]] = []
    exponents: list[list[Any]] = []
    charts: list[Chart] = []
    by_control: dict[tuple[float, str], list[Estimate]] = {}
    above_two: dict[float, list[Estimate]] = {}
    more: dict[float, list[Estimate]] = {}
    for one in found:
        result = one.results["support"]
        docs, keeps = result["rows"], result["keeps"].astype(float)
        whole = _share(keeps[0], docs)
        lines: dict[str, list[Estimate]] = {name: [] for name in SUPPORT}
        for at, norm in enumerate(study.norms):
            kl = result["kl"][at]
            compared = [_compared(kl[0], reference, docs) for reference in kl[1:]]
            for name, pair in zip(SUPPORT[1:], compared, strict=True):
                by_control.setdefault((norm, name), []).append(pair.ratio)
            for name, values in zip(SUPPORT, kl, strict=True):
                lines[name].append(_over_documents(values, docs))
            share, n = _share(keeps[at + 1], docs), lines[SUPPORT[0]][-1].n
            rows.append([one.name, norm, _nats(lines[SUPPORT[0]][-1]), *(c.ratio for c in compared), n, len(docs)])
            own = keeps[at + 1] > 0
            ratios = [UNKNOWN] * len(compared)
            if len(np.unique(docs[own])) > 1:
                ratios = [_compared(kl[0][own], other[own], docs[own]).ratio for other in kl[1:]]
            kept_rows.append([one.name, norm, whole, share, *ratios, len(np.unique(docs[own])), int(own.sum())])
        for at, radius in enumerate(study.exponent_radii):
            p = result["exponents"][at]
            each = [_over_documents(values, docs, np.median) for values in p]
            differences = [_over_documents(p[0] - other, docs, np.median) for other in p[1:]]
            above_two.setdefault(radius, []).append(each[0])
            more.setdefault(radius, []).append(differences[PAIRS.index("permuted decoder") - 1])
            cosine = float(np.median(np.abs(result["cosines"][0])))
            exponents.append([one.name, radius, *each, *differences, cosine, each[0].n, int(np.isfinite(p[0]).sum())])
            one.told[f"exponent at {radius:g}"] = dict(zip(PAIRS, each, strict=True))
        one.told["share that keeps the support"] = {
            f"{norm:g}": _share(keeps[at], docs) for at, norm in enumerate(study.norms, 1)
        }
        if one.first:
            charts.append(
                _drawn(
                    f"support-{one.name}",
                    f"{one.name}: changes of equal norm",
                    study.norms,
                    lines,
                    "norm of the change / norm of the reconstruction",
                )
            )
    names = [one.name for one in found]
    last = exponents[len(study.exponent_radii) - 1 :: len(study.exponent_radii)]
    charts.insert(
        0,
        Chart(
            "exponents",
            f"Exponent of the response at radius {study.exponent_radii[-1]:g}",
            [
                Series.of(name, names, [row[2 + kind] for row in last], style)
                for kind, (name, style) in enumerate(zip(PAIRS, (*STYLES, STYLES[0]), strict=True))
            ],
            "autoencoder",
            "exponent p",
            caption="A quadratic form has p = 2. Bands: 95 % intervals over documents. Lines guide the eye only.",
        ),
    )
    counts = [
        _Count(
            f"the KL of a change that keeps the support divided by that of {name} (norm {norm:g})",
            1.0,
            by_control[norm, name],
        )
        for norm in study.norms[len(study.norms) // 2 :]
        for name in ("mixture", "permuted decoder")
    ]
    for radius in study.exponent_radii:
        counts.append(_Count(f"the exponent p between active atoms (radius {radius:g})", 2.0, above_two[radius]))
        counts.append(_Count(f"p minus that of the permuted decoder (radius {radius:g})", 0.0, more[radius]))
    ratios_of = [f"KL / {name}" for name in SUPPORT[1:]]
    count = ["documents", "tokens"]
    section = Section(
        "support",
        "Does a change of codes that keeps the support cost more than another of the same norm?",
        f"The exponent p of the response at radius {study.exponent_radii[-1]:g} is "
        f"{_range([row[2 + PAIRS.index('inactive atoms')] for row in last])} for features that are off, "
        f"{_range([row[2] for row in last])} for active ones, and "
        f"{_range([row[2 + PAIRS.index('permuted decoder')] for row in last])} for a permuted decoder; a quadratic "
        f"form has 2. Changes of norm {study.norms[len(study.norms) // 2]:g} that keep the support cost "
        f"{_range(by_control[study.norms[len(study.norms) // 2], 'mixture'])} times as much as random changes of the "
        "same norm with the covariance of activations (mixture).",
        tables=[
            "**All changes of active codes**, none of which becomes 0 or negative:",
            Table(
                ["autoencoder", "norm", "KL, nats", *ratios_of, *count],
                rows,
                note="The norm is a multiple of that of the reconstruction.",
            ),
            "**Only those after which the decoded point has the same support** when it is encoded again:",
            Table(
                ["autoencoder", "norm", "share unchanged", "share that keeps the support", *ratios_of, *count],
                kept_rows,
                note="*Share unchanged*: reconstructions without a change that keep their support when they are "
                "encoded again.",
            ),
            "**Exponents**:",
            Table(
                [
                    "autoencoder",
                    "radius",
                    *(f"p, {name}" for name in PAIRS),
                    *(f"p minus {name}" for name in PAIRS[1:]),
                    "median abs. cosine",
                    *count,
                ],
                exponents,
                note=(
                    "The response on the circle through u and v is fitted by a |α|^p + b |β|^p + g sign(αβ) "
                    "|αβ|^(p/2), "
                    "with α and β the components along u and v, at 16 angles. p: mean over documents of the "
                    "median over tokens."
                ),
            ),
        ],
        charts=charts,
        null_models=(
            "Isotropic changes; draws with the covariance of errors; differences of draws with the covariance of "
            "activations (mixture); isotropic changes within the span of the active atoms; the same change of codes "
            "through a decoder whose atoms are permuted; and on as many inactive atoms. All have the same norm. For "
            "the exponent, two atoms are chosen in the same way among as many atoms of other latents, and among "
            "as many random directions."
        ),
        not_shown=(
            "Changes are added to the activation itself, not to its reconstruction. At norm 1, a change can keep the "
            "support only by raising most codes, which scales the activation, and a layer norm undoes a part of this. "
            "Two atoms with a small cosine "
            "still interfere with all other features, which moves p towards 2. The atoms may not be the model's "
            "features."
        ),
        numbers={one.coder.name: one.told for one in found},
    )
    return section, counts


def _sphere(study: Perturbations, found: Sequence[_Measured]) -> tuple[Section, list[_Count]]:
    """D3: spheres."""
    from zoo.analysis.perturbation_effects import ATOMS, ENDS, HIGH, RANDOM

    groups = [*RANDOM, *ATOMS]
    means: list[list[Any]] = []
    shares: list[list[Any]] = []
    ends: list[list[Any]] = []
    charts: list[Chart] = []
    beyond: dict[float, list[Estimate]] = {}
    minus: list[Estimate] = []
    from_twin: list[Estimate] = []
    for one in found:
        result = one.results["sphere"]
        docs = result["rows"]
        lines: dict[str, list[Estimate]] = {}
        for at, radius in enumerate(study.radii):
            kl, form = result["kl"][at], result["quadratic"][at]
            own = [_over_documents(values, docs) for values in kl]
            excess = [_ratio(a, b, docs) for a, b in zip(kl, form, strict=True)]
            for name, each in zip(groups, own, strict=True):
                lines.setdefault(name, []).append(each)
            means.append([one.name, radius, *map(_nats, own), *excess, own[0].n, len(docs)])
            share = [[_share(v, docs) for v in result["share"][at, atoms]] for atoms in range(len(ATOMS))]
            high = [_share(result["high"][at, atoms, 2], docs) for atoms in range(len(ATOMS))]
            difference = _over_documents(result["share"][at, 0, 2] - result["share"][at, 2, 2], docs)
            beyond.setdefault(radius, []).append(difference)
            shares.append(
                [one.name, radius, *(s for each in share for s in each), difference, *high, own[0].n, len(docs)]
            )
        kinds = [_over_documents(values, docs) for values in result["ends"]]
        difference = _over_documents(result["ends"][0] - result["ends"][1], docs)
        against_twin = _over_documents(result["ends"][0] - result["ends"][2], docs)
        minus.append(difference)
        from_twin.append(against_twin)
        reached = [_over_documents(result[name], docs) for name in ("end_kl", "best_kl")]
        ends.append([one.name, *kinds, difference, against_twin, *map(_nats, reached), kinds[0].n, len(docs)])
        one.told |= {"ends": dict(zip(ENDS, kinds, strict=True)), "ends minus permuted": difference}
        forms = {
            f"{name}, quadratic form": [_over_documents(form[groups.index(name)], docs) for form in result["quadratic"]]
            for name in ("mixture", "active atoms", "other atoms")
        }
        shown = {name: lines[name] for name in ("isotropic", "mixture", "active atoms", "other atoms")}
        if one.first:
            charts.append(
                _drawn(
                    f"sphere-{one.name}",
                    f"{one.name}: spheres around activations",
                    study.radii,
                    shown,
                    "radius / norm of the activation minus the mean",
                    forms,
                )
            )
    count = ["documents", "tokens"]
    n_each = int(found[0].results["sphere"]["each"])
    what = "the share of random directions (mixture) below an active atom minus that below a permuted one"
    counts = [_Count(f"{what} (radius {radius:g})", 0.0, beyond[radius]) for radius in study.radii]
    cosine = "the cosine of ends of ascent to the nearest atom minus that to the nearest one of"
    counts.append(_Count(f"{cosine} the permuted dictionary", 0.0, minus))
    counts.append(_Count(f"{cosine} the null twin", 0.0, from_twin))
    section = Section(
        "sphere",
        "Are atoms special among all directions of a sphere around an activation?",
        "Divided by the quadratic form of the Fisher matrix, the KL along features that are off is "
        f"{_range([one.signs['excess'].estimate for one in found])} times that along permuted atoms. The share of the "
        "mixture's random directions with a smaller KL than an active atom, minus the same share for permuted atoms, "
        f"is {_range(beyond[study.radii[0]])} at radius {study.radii[0]:g}, and {_range(beyond[study.radii[-1]])} at "
        f"radius {study.radii[-1]:g}.",
        tables=[
            "**KL by direction**, and its ratio to the quadratic form r²/2 uᵀFu of the Fisher matrix:",
            Table(
                [
                    "autoencoder",
                    "radius",
                    *(f"KL, {name}" for name in groups),
                    *(f"excess, {name}" for name in groups),
                    *count,
                ],
                means,
            ),
            f"**Share of random directions below an atom**, {n_each} of each kind and token at every radius:",
            Table(
                [
                    "autoencoder",
                    "radius",
                    *(f"{atoms} above {kind}" for atoms in ATOMS for kind in RANDOM),
                    "active atoms minus permuted dictionary (mixture)",
                    *(f"high, {atoms}" for atoms in ATOMS),
                    *count,
                ],
                shares,
                note=f"*High*: share of atoms above {HIGH:.0%} of the random directions of the kind mixture. 1 % "
                f"is expected of one more random direction.",
            ),
            f"**Ends of gradient ascent** at radius {study.ascent_radius:g}, from {study.starts} isotropic "
            f"starts: cosines to the nearest atom, and to the Fisher matrix's largest eigenvector:",
            Table(
                [
                    "autoencoder",
                    *ENDS,
                    "atoms minus permuted dictionary",
                    "atoms minus null twin",
                    "KL at ends, nats",
                    "largest KL of an atom",
                    *count,
                ],
                ends,
                note="*Starts and atoms*: cosine of the starts to the nearest atom. Without a null twin, its "
                "cells are empty.",
            ),
        ],
        charts=charts,
        null_models=(
            "Random directions: isotropic, with the covariance of errors, and with that of activations "
            "(mixture). The "
            "permuted dictionary has the atoms' principal coordinates permuted over atoms, which keeps their "
            "covariance. "
            "The null twin is the same autoencoder, trained on Gaussian vectors with the mean and covariance of "
            "the activations."
        ),
        not_shown=(
            "At a small radius every smooth network has the quadratic form, so that no direction stands out "
            "beyond it. A difference of shares that is already there at a small radius says where the Fisher matrix is "
            "large, and not that errors are corrected. "
            "Only positive directions of atoms are measured, at few tokens. Ascent finds local maxima from isotropic "
            "starts, not all of them."
        ),
        numbers={one.coder.name: one.told for one in found},
    )
    return section, counts


def _exchange(study: Perturbations, found: Sequence[_Measured]) -> tuple[Section, list[_Count]]:
    """D4: right directions with wrong codes, against right codes with wrong directions."""
    from zoo.analysis.perturbation_effects import EXCHANGES

    rows: list[list[Any]] = []
    ratios: list[Estimate] = []
    for one in found:
        result = one.results["exchange"]
        docs, kl = result["rows"], result["kl"]
        own = [_over_documents(values, docs) for values in kl]
        compared, isotropic = _compared(kl[1], kl[0], docs), _compared(kl[0], kl[2], docs)
        ratios.append(compared.ratio)
        one.told["wrong directions / wrong codes"] = compared.ratio
        size = float(np.mean(result["relative_norm"]))
        rows.append(
            [one.name, size, *map(_nats, own), compared.ratio, compared.signs(), isotropic.ratio, own[0].n, len(docs)]
        )
    names = [one.name for one in found]
    counts = [_Count("the KL of wrong directions divided by that of wrong codes", 1.0, ratios)]
    section = Section(
        "exchange",
        "Do wrong directions cost more than wrong codes?",
        f"Right codes with wrong directions cost {_range(ratios)} times as much as right directions with wrong codes.",
        tables=[
            Table(
                [
                    "autoencoder",
                    "mean relative norm",
                    *(f"KL, {name}" for name in EXCHANGES),
                    "wrong directions / wrong codes",
                    "documents above : below",
                    "wrong codes / isotropic",
                    "documents",
                    "tokens",
                ],
                rows,
                note="The relative norm is that of the change, divided by that of the reconstruction.",
            )
        ],
        charts=[
            Chart(
                "exchange",
                "Wrong directions against wrong codes",
                [Series.of("wrong directions / wrong codes", names, ratios, "points")],
                "autoencoder",
                "ratio of KL",
                caption="1: no difference. Whiskers: 95 % intervals over documents.",
            )
        ],
        null_models=(
            "Wrong codes are another token's values on the same support. Wrong directions are those of other "
            "latents' "
            "atoms with the right codes; the change is rescaled to the norm of that of wrong codes. Isotropic "
            "changes have this norm too."
        ),
        not_shown="The autoencoder's atoms may not be the model's features. Changes are added to the activation "
        "itself.",
        numbers={one.coder.name: one.told for one in found},
    )
    return section, counts


_SECTIONS = {"errors": _errors, "support": _support, "sphere": _sphere, "exchange": _exchange}


def _ratio(values: np.ndarray, reference: np.ndarray, rows: np.ndarray) -> Estimate:
    """The ratio of two means over the tokens that have both."""
    from zoo.analysis.document_tests import ratio_of_means

    known = np.isfinite(values) & np.isfinite(reference)
    if len(np.unique(rows[known])) < 2:
        return UNKNOWN
    return ratio_of_means(values[known], reference[known], rows[known])


def _drawn(
    name: str,
    title: str,
    sizes: Sequence[float],
    lines: dict[str, list[Estimate]],
    x_label: str,
    dashed: dict[str, list[Estimate]] | None = None,
) -> Chart:
    """A chart of divergences over the square of sizes; the dashed lines have the colours of those of the same name."""

    def scaled(curve: list[Estimate]) -> list[Estimate]:
        ends = [
            [max(end, SMALLEST) / size**2 for end in (e.mean, e.low, e.high)]
            for e, size in zip(curve, sizes, strict=True)
        ]
        return [Estimate(*end) for end in ends]  # type: ignore[arg-type]

    series = [Series.of(label, sizes, scaled(curve)) for label, curve in lines.items() if np.isfinite(curve[0].mean)]
    for label, curve in (dashed or {}).items():
        if np.isfinite(curve[0].mean):
            y = [one.mean for one in scaled(curve)]
            series.append(Series(label, sizes, y, "dashed", color=label.partition(", ")[0]))
    caption = "Means over documents with 95 % intervals. A quadratic form is a horizontal line."
    caption += " Dashed: that of the Fisher matrix." if dashed else ""
    slug = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
    y_label = f"{DIVERGENCE} / {x_label.partition(' ')[0]}²"
    return Chart(slug, title, series, x_label, y_label, True, True, caption=caption)


def _canonical(site: str, n_layers: int) -> str:
    """The name of a site in which the residual stream after a layer is that before the next one."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", site)
    if found is None:
        return site
    layer = int(found[1]) + (found[2] == "post")
    return f"blocks.{layer}.hook_resid_pre" if layer != n_layers else f"blocks.{layer - 1}.hook_resid_post"


def _order(site: str) -> tuple[int, str]:
    """The key by which sites are sorted: their layer; the residual stream after the last one comes last."""
    return int(site.split(".")[1]), site.replace("resid_pre", "")


def _short_name(model: str) -> str:
    """The last part of a model's name; names of the same model are equal."""
    name = model.removeprefix("hf:").rstrip("/").rpartition("/")[2]
    return SAME_MODEL.get(name, name)


def _twin_of(name: str) -> Source | None:
    """The null twin of an autoencoder, which has its name and `.null`."""
    return Source.open(name + TWIN) if not name.startswith("hf:") and catalog.place(name + TWIN).is_dir() else None


def _labels(names: Sequence[str]) -> list[str]:
    """Names in tables: without the beginning that all have in common, up to a full stop or a slash."""
    if len(names) == 1:
        return [names[0].rstrip("/").rpartition("/")[2]]
    common = 0
    while len({name[: common + 1] for name in names}) == 1:
        common += 1
    cut = max(names[0].rfind(sign, 0, common) for sign in "./") + 1
    return [name[cut:] for name in names]


def _tokens_of(data: Any) -> str:
    """The hash of a text's tokens and tokenizer."""
    return hashlib.sha256(json.dumps(data.cache.meta["sha256"], sort_keys=True).encode()).hexdigest()
