"""Tasks that measure what changes along an autoencoder's features do to a language model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.shared_tasks.horizon import Documents
from zoo.source import Source
from zoo.study import Result, Task, Work

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.analysis.perturbation_effects import Subject


@dataclass(frozen=True)
class Coder:
    """An autoencoder of a language model's activations.

    Args:
        documents: The task that draws the documents.
        model: The language model.
        sae: The autoencoder.
        site: Name of the site whose activations it reconstructs.
    """

    documents: Documents
    model: Source
    sae: Source
    site: str


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
        told = {"model": one.model.weights_fingerprint(), "sae": one.sae.weights_fingerprint(), "site": one.site}
        return super().named_by() | {"coder": {"documents": one.documents} | told}

    def needs(self) -> Sequence[Task]:
        """Return the task that draws the documents."""
        return [self.coder.documents]

    def subject(self, work: Work) -> tuple[Subject, Tensor, Tensor]:
        """Return what is measured, and the texts and positions of the tokens."""
        import torch

        from zoo.analysis.perturbation_effects import Subject, draw_tokens

        model, sae = self.coder.model.load(), self.coder.sae.load()
        model, net = (one.to(work.device, torch.float32) for one in (model, sae))
        ids = torch.from_numpy(work[self.coder.documents]["evaluation"]).long().to(work.device)[:, :-1]
        subject = Subject(model, self.coder.site, ids, net.reconstruct, net.W_dec.detach())  # type: ignore
        return subject, *draw_tokens(self.tokens, len(ids), ids.shape[1], self.seed)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.coder.sae.name})"


@dataclass(frozen=True)
class ErrorEffects(_Effects):
    """Measure the autoencoder's error, see `zoo.analysis.perturbation_effects.error_effects`.

    Args:
        batch: Number of documents that are run at a time.
    """

    batch: int

    def do(self, work: Work) -> Result:
        """Return the result of `error_effects`, and the texts `rows` of the tokens (P,)."""
        from zoo.analysis.perturbation_effects import error_effects

        subject, rows, positions = self.subject(work)
        return {**error_effects(subject, rows, positions, self.seed, self.batch), "rows": rows.numpy()}


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

        return {**support_effects(*self.subject(work), self.norms, self.radii, self.seed)}


@dataclass(frozen=True)
class SphereEffects(_Effects):
    """Measure spheres around activations, see `zoo.analysis.perturbation_effects.sphere_effects`.

    Args:
        null: The autoencoder's null twin, or None.
        radii: Radii, as multiples of the norm of the activation minus the mean.
        directions: Number of random directions of a token.
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
        return {**sphere_effects(subject, atoms, rows, positions, *sizes, self.seed)}


@dataclass(frozen=True)
class ExchangeEffects(_Effects):
    """Exchange codes or directions, see `zoo.analysis.perturbation_effects.exchange_effects`."""

    def do(self, work: Work) -> Result:
        """Return the result of `exchange_effects`."""
        from zoo.analysis.perturbation_effects import exchange_effects

        return {**exchange_effects(*self.subject(work), self.seed)}
