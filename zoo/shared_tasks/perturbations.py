"""Tasks that measure what changes along an autoencoder's features do to a language model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.shared_tasks.horizon import Documents, held_out_tokens, text_of
from zoo.shared_tasks.models import build, stored
from zoo.source import Source
from zoo.study import Result, Task, Work
from zoo.training_process import config_texts, fit

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.analysis.perturbation_effects import Subject


OF_TEXT = ("corpus", "val_fraction", "test_fraction")  # arguments of datamodules
TRAINED_AS = "cli_configs/sae/residual_stream_small.yaml"


@dataclass(frozen=True)
class Texts(Documents):
    """Draw windows of held-out documents that do not overlap, see `zoo.analysis.documents.several_windows`."""

    def do(self, work: Work) -> Result:
        """Return `evaluation`, the windows (n, T + 1), and the `document` of each (n,)."""
        import numpy as np

        from zoo.analysis.documents import several_windows

        held_out, _, end, prefix = held_out_tokens(text_of(self.source, self.text_config, self.vocab_size)[0])
        windows, document = several_windows(held_out, end, self.n, self.length + 1, 0, prefix)
        return {"evaluation": windows.astype(np.int32), "document": document}


@dataclass(frozen=True)
class TrainCoder(Task):
    """Train a TopK autoencoder of a language model's residual stream, on the text of the model's own training.

    An interrupted run is resumed. Settings that are not given here are those of
    `cli_configs/sae/residual_stream_small.yaml`.

    Args:
        model: The language model.
        step: Its training step; None for the last one.
        layer: The layer before which the residual stream is read; the number of layers: after the last one.
        latents: Number of latents.
        k: Number of latents that are on per vector.
        steps: Training steps, of 512 vectors each.
        seed: Seed of the initial atoms and of the order of the text.
    """

    model: Source
    step: int | None
    layer: int
    latents: int
    k: int
    steps: int
    seed: int
    here = True
    on_gpu = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields, with a hash of the weights instead of the model and its step."""
        told = {key: value for key, value in super().named_by().items() if key not in ("model", "step")}
        return {**told, "weights": self.model.weights_fingerprint(self.step)}

    def do(self, work: Work) -> Result:
        """Return the autoencoder, as `zoo.shared_tasks.models.stored` does."""
        import yaml

        told = (self.model.provenance(self.step).get("config") or {}).get("data") or {}
        own = {key: value for key, value in (told.get("init_args") or {}).items() if key in OF_TEXT and value}
        data = {"model": self.model.name, "layer": self.layer, "seed": self.seed, **own}
        data |= {} if self.step is None else {"step": self.step}
        text = yaml.safe_dump({"seed_everything": self.seed, "data": {"init_args": data}})
        words = ["--model.sae.d_sae", self.latents, "--model.sae.k", self.k, "--trainer.max_steps", self.steps]
        configs = (*config_texts(TRAINED_AS), text)
        words += ["--trainer.val_check_interval", self.steps]
        run = fit(configs, [str(word) for word in words], work.folder, work.device)
        return stored(Source.open(run).load())

    def seconds(self) -> float:
        """Return the time that was measured for a model of 2 layers and width 64."""
        return 15 + 0.015 * self.steps

    def __str__(self) -> str:
        return f"TrainCoder({self.model.name}, step {self.step}, layer {self.layer}, seed {self.seed})"


@dataclass(frozen=True)
class Coder:
    """An autoencoder of a language model's activations.

    Args:
        documents: The task that draws the texts.
        model: The language model.
        sae: The autoencoder, or the task that trains it.
        site: Name of the site whose activations it reconstructs.
        step: Training step of the model; None for the last one.
    """

    documents: Texts
    model: Source
    sae: Source | TrainCoder
    site: str
    step: int | None = None

    @property
    def name(self) -> str:
        """Name of the autoencoder."""
        if isinstance(self.sae, Source):
            return self.sae.name
        return f"layer-{self.sae.layer}.step-{self.step}.seed-{self.sae.seed}"


@dataclass(frozen=True)
class _Effects(Task):
    """A measurement on one autoencoder.

    Args:
        coder: The autoencoder, the model and the documents.
        tokens: Number of tokens.
        seed: Seed of tokens and of random changes.
    """

    coder: Coder
    tokens: int
    seed: int
    here = True
    on_gpu = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields, with hashes of the weights instead of the sources."""
        one = self.coder
        sae = one.sae.weights_fingerprint() if isinstance(one.sae, Source) else one.sae
        told = {"model": one.model.weights_fingerprint(one.step), "sae": sae, "site": one.site}
        return super().named_by() | {"coder": {"documents": one.documents} | told}

    def needs(self) -> Sequence[Task]:
        """Return the tasks that draw the texts and, if the study does so, train the autoencoder."""
        sae = self.coder.sae
        return [self.coder.documents, *([sae] if isinstance(sae, TrainCoder) else [])]

    def subject(self, work: Work) -> tuple[Subject, Tensor, Tensor]:
        """Return what is measured, and the texts and positions of the tokens."""
        import torch

        from zoo.analysis.perturbation_effects import Subject, draw_tokens

        model, own = self.coder.model.load(self.coder.step), self.coder.sae
        sae = own.load() if isinstance(own, Source) else build(work[own])
        model, net = (one.to(work.device, torch.float32) for one in (model, sae))
        ids = torch.from_numpy(work[self.coder.documents]["evaluation"]).long().to(work.device)[:, :-1]
        subject = Subject(model, self.coder.site, ids, net.reconstruct, net.W_dec.detach())  # type: ignore
        return subject, *draw_tokens(self.tokens, len(ids), ids.shape[1], self.seed)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.coder.name})"

    def documents(self, work: Work, rows: Any) -> Any:
        """Return the documents of texts, (n,), which are the independent units."""
        return work[self.coder.documents]["document"][rows]


@dataclass(frozen=True)
class ErrorEffects(_Effects):
    """Measure the autoencoder's error, see `zoo.analysis.perturbation_effects.error_effects`.

    Args:
        batch: Number of documents that are run at a time.
    """

    batch: int

    def do(self, work: Work) -> Result:
        """Return the result of `error_effects`, and documents: `rows` of the tokens (P,), `texts` of all texts (n,)."""
        from zoo.analysis.perturbation_effects import error_effects

        subject, rows, positions = self.subject(work)
        found = error_effects(subject, rows, positions, self.seed, self.batch)
        return {**found, "rows": self.documents(work, rows.numpy()), "texts": work[self.coder.documents]["document"]}


@dataclass(frozen=True)
class SupportEffects(_Effects):
    """Measure changes that keep the support, see `zoo.analysis.perturbation_effects.support_effects`.

    Args:
        norms: Norms of the changes, as multiples of that of the reconstruction.
        radii: Radii of the exponents, as multiples of the norm of the activation minus the mean.
    """

    norms: tuple[float, ...]
    radii: tuple[float, ...]

    def do(self, work: Work) -> Result:
        """Return the result of `support_effects`."""
        from zoo.analysis.perturbation_effects import support_effects

        found = support_effects(*self.subject(work), self.norms, self.radii, self.seed)
        return {**found, "rows": self.documents(work, found["rows"])}


@dataclass(frozen=True)
class SphereEffects(_Effects):
    """Measure spheres around activations, see `zoo.analysis.perturbation_effects.sphere_effects`.

    Args:
        null: The autoencoder's null twin, or None.
        radii: Radii, as multiples of the norm of the activation minus the mean.
        directions: Number of random directions of a token, of each kind.
        atoms: Largest number of inactive atoms, and of atoms of each null dictionary.
        starts: Number of starts of gradient ascent.
        ascent_radius: Radius of gradient ascent.
        ascent_steps: Steps of gradient ascent.
    """

    null: Source | None
    radii: tuple[float, ...]
    directions: int
    atoms: int
    starts: int
    ascent_radius: float
    ascent_steps: int

    def named_by(self) -> dict[str, Any]:
        """Return the fields, with hashes of the weights instead of the sources."""
        return super().named_by() | {"null": self.null and self.null.weights_fingerprint()}

    def do(self, work: Work) -> Result:
        """Return the result of `sphere_effects`."""
        from zoo.analysis.perturbation_effects import sphere_effects

        subject, rows, positions = self.subject(work)
        null: Any = self.null and self.null.load()
        atoms = None if null is None else null.W_dec.detach().to(subject.W_dec)
        sizes = self.radii, self.directions, self.atoms, self.starts, self.ascent_radius, self.ascent_steps
        found = sphere_effects(subject, atoms, rows, positions, *sizes, self.seed)
        return {**found, "rows": self.documents(work, found["rows"])}


@dataclass(frozen=True)
class ExchangeEffects(_Effects):
    """Exchange codes or directions, see `zoo.analysis.perturbation_effects.exchange_effects`."""

    def do(self, work: Work) -> Result:
        """Return the result of `exchange_effects`."""
        from zoo.analysis.perturbation_effects import exchange_effects

        found = exchange_effects(*self.subject(work), self.seed)
        return {**found, "rows": self.documents(work, found["rows"])}
