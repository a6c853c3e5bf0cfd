"""How much a change of a language model's activations changes its predictions.

The measure is KL(P of the clean run ‖ P of the edited run) of the next-token distributions, in nats::

    kl = kl_of(model, "blocks.3.hook_resid_pre", input_ids, sae)  # (B, T), all positions replaced by sae(x)

A `CleanRun` computes the clean run once, for many edits::

    clean = CleanRun(model, 3, input_ids)
    clean.kl(sae)  # (B, T), all positions edited
    clean.kl_from(rows, positions, changes)  # (n, T), one position edited in each of n runs
    clean.kl_at(row, position)(changes)  # (n,), n changes of the same position, measured there

Activations to be edited and logits are at least float32, and the divergence is computed in float64. By default, the
first position of every text is neither edited nor counted, because many models have outliers there (attention sinks).
The result is NaN at positions that are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.errors import ZooError
from zoo.interventions import Edit, activations, check_sites, hook_name, layer_of, logits
from zoo.metrics import log_probabilities, token_kl
from zoo.precision import at_least_float32, float64

if TYPE_CHECKING:
    from zoo.protocols import LanguageModel

BYTES_AT_ONCE = 2**26  # memory for log-probabilities in float64; it limits how many runs are made at once
SAME = 1e-4  # largest difference of logits, relative to the largest logit, between two ways of computing them
Past = list[tuple[Tensor, Tensor]]  # keys and values of t earlier positions in every layer, (1, H, t, D / H) each


def kl_of(
    model: LanguageModel,
    site: str | int,
    input_ids: Tensor,
    edit: Edit,
    skip_positions: int = 1,
    counted: Tensor | None = None,
) -> Tensor:
    """Return KL(P of the clean run ‖ P of the edited run) at every position, (B, T) float64 in nats.

    All counted positions are edited at once. The result is NaN at positions that are not counted.

    Args:
        model: The language model.
        site: Name of a site "blocks.L.hook_...", or a layer L for the residual stream before it.
        input_ids: Token ids, (B, T) int64. Padding must be on the right.
        edit: Function from the activations of the site (B, T, D), at least float32, to those that are used instead.
        skip_positions: Number of positions at the start of every text that are neither edited nor counted.
        counted: False at further positions that are neither edited nor counted, such as padding; (B, T) bool. By
            default there are none.

    Raises:
        ZooError: If the model has no such site or layer, or the edit returns another shape.
    """
    return CleanRun(model, site, input_ids, skip_positions, counted).kl(edit)


class CleanRun:
    """The clean run of some texts, with which edited runs are compared.

    Args:
        model: The language model.
        site: Name of a site "blocks.L.hook_...", or a layer L for the residual stream before it. The number of layers
            is the residual stream after the last one.
        input_ids: Token ids, (B, T) int64. Padding must be on the right.
        skip_positions: Number of positions at the start of every text that are neither edited nor counted.
        counted: False at further positions that are neither edited nor counted, such as padding; (B, T) bool. By
            default there are none.

    Attributes:
        site: Name of the site.
        x: Its clean activations, (B, T, D), at least float32.
        counted: Whether a position is edited and counted, (B, T) bool.

    Raises:
        ZooError: If the model has no such site or layer.
    """

    def __init__(
        self,
        model: LanguageModel,
        site: str | int,
        input_ids: Tensor,
        skip_positions: int = 1,
        counted: Tensor | None = None,
    ) -> None:
        self.model, self.input_ids, self.site = model, input_ids, _site(model, site)
        layer, name = layer_of(self.site), self.site.partition(".hook_")[2]
        self._start = layer + 1 if name == "resid_post" else layer
        self._in_stream = name in ("resid_pre", "resid_post")
        stream = self.site if self._in_stream else hook_name(layer, "resid_pre")
        found = activations(model, input_ids, [stream, self.site])
        self._stream, self._x = found[stream], found[self.site]  # in the precision of the model
        self.x = at_least_float32(self._x)
        with torch.no_grad():
            self._clean = torch.cat([self._run(rows, self._x[rows]) for rows in self._batches(*input_ids.shape)])
        self.counted = (torch.arange(input_ids.shape[1], device=input_ids.device) >= skip_positions).expand_as(
            input_ids
        )
        if counted is not None:
            self.counted = self.counted & counted

    @torch.no_grad()
    def kl(self, edit: Edit) -> Tensor:
        """Return the divergence with all counted positions edited, (B, T) in nats; NaN where it is not counted.

        Args:
            edit: Function from the activations (B, T, D) to those that are used instead.

        Raises:
            ZooError: If the edit returns another shape.
        """
        new = edit(self.x.clone())
        if new.shape != self.x.shape:
            raise ZooError(f"the edit of {self.site} returns {tuple(new.shape)}; it must be {tuple(self.x.shape)}")
        new = torch.where(self.counted[..., None], new.to(self._x.dtype), self._x)
        batches = self._batches(*new.shape[:2])
        return torch.cat([_kl_where(self.counted[b], self._clean[b], self._run(b, new[b])) for b in batches])

    @torch.no_grad()
    def kl_from(self, rows: Tensor, positions: Tensor, changes: Tensor) -> Tensor:
        """Return the divergence in n runs, with one position edited in each of them, (n, T) in nats.

        An edit has no effect at earlier positions. There, and at positions that are not counted, the result is NaN.

        Args:
            rows: Text of every run, (n,) int64.
            positions: Position that is edited, (n,) int64.
            changes: What is added to the activations there, (n, D).

        Raises:
            ZooError: If a position is not counted, or the changes have another width.
        """
        self._check(changes)
        rows, positions = rows.to(self.input_ids.device), positions.to(self.input_ids.device)
        if not bool(self.counted[rows, positions].all()):
            raise ZooError("a position to be edited is not counted: it is padding, or at the start of its text")
        parts, T = [], self.input_ids.shape[1]
        for part in self._batches(len(rows), T):
            at, own = positions[part], rows[part]
            new, index = self._x[own].clone(), torch.arange(len(own), device=own.device)
            new[index, at] = (self.x[own, at] + changes[part]).to(new.dtype)
            later = torch.arange(T, device=at.device) >= at[:, None]
            parts.append(_kl_where(later & self.counted[own], self._clean[own], self._run(own, new)))
        return torch.cat(parts)

    def kl_at(self, row: int, position: int) -> Callable[[Tensor], Tensor]:
        """Return the function from changes of one position (n, D) to the divergences at this position, (n,) in nats.

        The function is differentiable. For its cost, see `logits_at`.

        Raises:
            ZooError: If the position is not counted. The function raises it if the changes have another width.
        """
        run = self.logits_at(row, position)
        with torch.no_grad():
            clean = run(torch.zeros_like(self.x[row, position])[None])

        def respond(changes: Tensor) -> Tensor:
            return torch.cat([_kl(clean, run(changes[part])) for part in self._batches(len(changes), 1)])

        return respond

    def logits_at(self, row: int, position: int) -> Callable[[Tensor], Tensor]:
        """Return the function from changes of one position (n, D) to the logits at this position, (n, V).

        If possible, the model runs on one token per change, in the layers from the site on: the keys and values of
        earlier positions are computed once. This requires that the attention of all these layers is torch's
        `scaled_dot_product_attention`, and that the logits are the same as those of whole texts, which is checked for
        two changes. The zoo's GPT-2 and models of `transformers` with learned positions fulfil this. In other models,
        every change costs a run of the text up to this position.

        Raises:
            ZooError: If the position is not counted. The function raises it if the changes have another width.
        """
        if not bool(self.counted[row, position]):
            raise ZooError(f"position {position} of text {row} is not counted: it is padding, or at the start of it")
        past = self._past(row, position)

        def run(changes: Tensor) -> Tensor:
            self._check(changes)
            return self._whole(row, position, changes) if past is None else self._last(row, position, changes, past)

        return run

    def _whole(self, row: int, position: int, changes: Tensor) -> Tensor:
        """Return the logits at a position after changes of it (n, D), from runs of the text up to it."""
        n, rows = len(changes), torch.full((len(changes),), row, device=self.input_ids.device)
        changed = (self.x[row, position] + changes).to(self._x.dtype)
        before = self._x[row, :position].expand(n, -1, -1)
        return self._run(rows, torch.cat([before, changed[:, None]], 1), slice(0, position + 1))[:, -1]

    def _last(self, row: int, position: int, changes: Tensor, past: Past) -> Tensor:
        """Return the same logits as `_whole`, from runs of this position with the keys and values of earlier ones."""
        rows = torch.full((len(changes),), row, device=self.input_ids.device)
        changed = (self.x[row, position] + changes).to(self._x.dtype)
        with _WithPast(past):
            return self._run(rows, changed[:, None], slice(position, position + 1))[:, -1]

    @torch.no_grad()
    def _past(self, row: int, position: int) -> Past | None:
        """Return the keys and values of the positions before this one; None if they cannot be used."""
        recorded, x = _Recorded(), self.x[row, position]
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(x), generator=generator).to(x)
        changes = torch.stack([torch.zeros_like(x), random * x.norm() / random.norm()])
        with recorded:
            whole = self._whole(row, position, changes)
        heads = [(q.shape[:2], k.shape[:3]) for q, k, _ in recorded.seen]
        if len(heads) != self.model.n_layers - self._start or any(k != (*q, position + 1) for q, k in heads):
            return None
        past = [(k[:1, :, :-1], v[:1, :, :-1]) for _, k, v in recorded.seen]
        difference = (self._last(row, position, changes, past) - whole).abs().max()
        return past if difference <= SAME * whole.abs().max() else None

    def _run(self, rows: Tensor | slice, new: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Return the logits, at least float32, of texts whose activations at the site are `new`."""
        ids = self.input_ids[rows, tokens]
        if self._in_stream:
            return at_least_float32(logits(self.model, ids, start=(self._start, new)))
        start = (self._start, self._stream[rows, tokens])
        return at_least_float32(logits(self.model, ids, {self.site: lambda _: new}, start))

    def _batches(self, n: int, T: int) -> Iterator[slice]:
        """Return slices of n runs of T tokens that fit into memory."""
        size = max(1, BYTES_AT_ONCE // (8 * T * len(self.model.W_E)))
        return (slice(first, first + size) for first in range(0, n, size))

    def _check(self, changes: Tensor) -> None:
        if changes.ndim != 2 or changes.shape[1] != self.x.shape[-1]:
            wanted = f"(n, {self.x.shape[-1]})"
            raise ZooError(f"the changes are {tuple(changes.shape)}; at {self.site} they must be {wanted}")


def _site(model: LanguageModel, site: str | int) -> str:
    """Return the name of a site "blocks.L.hook_..." of the model.

    Raises:
        ZooError: If there is none.
    """
    if isinstance(site, int):
        if not 0 <= site <= model.n_layers:
            raise ZooError(f"there is no layer {site}; the model has layers 0 to {model.n_layers - 1}")
        site = hook_name(site, "resid_pre") if site < model.n_layers else hook_name(site - 1, "resid_post")
    check_sites(model, [site])
    if ".hook_" not in site or site.endswith("scale"):
        raise ZooError(f"{site} is a scale of a layer norm; a perturbation needs a site blocks.L.hook_...")
    return site


def _kl(clean: Tensor, edited: Tensor) -> Tensor:
    return token_kl(log_probabilities(float64(clean)), log_probabilities(float64(edited)))


def _kl_where(counted: Tensor, clean: Tensor, edited: Tensor) -> Tensor:
    """Return the divergences of logits (n, T, V), (n, T); NaN where they are not counted."""
    kl = _kl(clean[counted], edited[counted])
    counted = counted.to(kl.device)
    return torch.full_like(counted, torch.nan, dtype=kl.dtype).masked_scatter(counted, kl)


class _Recorded(TorchFunctionMode):
    """Keeps what every attention reads: queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.seen.append(args[:3])
        return func(*args, **(kwargs or {}))


class _WithPast(TorchFunctionMode):
    """Lets every attention of runs of one token also read keys and values of earlier positions."""

    def __init__(self, past: Past) -> None:
        super().__init__()
        self.past = iter(past)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        (q, k, v), (keys, values) = args[:3], next(self.past)  # (n, H, 1, D / H), (1, H, t, D / H)
        scores = torch.cat([torch.einsum("nhqd,htd->nhqt", q, keys[0]), (q * k).sum(-1, keepdim=True)], -1)
        weights = (scores * q.shape[-1] ** -0.5).softmax(-1)
        return torch.einsum("nhqt,htd->nhqd", weights[..., :-1], values[0]) + weights[..., -1:] * v
