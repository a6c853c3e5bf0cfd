"""Effective layer horizon: how many of the latest outputs do the sublayers of a language model need?

A model has N sublayers: attention and MLP of every layer, or one if both read the same stream. Output 0 is the residual
stream before layer 0. Output n is what sublayer n adds to the stream. Input n, the sum of outputs 0 to n - 1, is what
sublayer n reads; input N + 1 is what the unembedding reads. A truncated input is the same sum in which only some
outputs are kept, and every other output is replaced by a filler. The horizon is the smallest k such that for every
k' >= k the loss stays within a tolerance if every input keeps its last k' outputs.

Source: A. Turner 2024, "Can transformers act on information beyond an effective layer horizon?",
turntrout.com/effective-layer-horizon. There, all inputs are replaced by sums of the clean outputs, which is the reading
"all" here, and left-out outputs are zero.

All functions work on any `zoo.protocols.LanguageModel`. Windows are token ids (B, T + 1), one window per document: T
inputs, and the targets shifted by one position. The loss of a document is the mean over positions 1 to T - 1.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.interventions import Edit, Sublayer, hook_name, layer_of, logits, sublayers
from zoo.metrics.next_token import log_probabilities, token_nats
from zoo.protocols import LanguageModel

Reading = Literal["one", "all", "recursive"]
Filler = Literal["zero", "mean", "resampled"]
Kept = Sequence[Sequence[int]]  # for inputs 1 to N + 1, the outputs that are kept, ascending
UNEMBEDDING_SCALE = "ln_final.hook_scale"
MOST_KS = 24  # values of k that are all measured by default
DEEP_KS = 16  # values of k by default if there are more


@dataclass(frozen=True)
class CleanRun:
    """What a model computes on B documents without truncation.

    Args:
        model: The model, with L layers and N sublayers.
        windows: Token ids, (B, T + 1).
        parts: The sublayers 1 to N.
        outputs: Outputs 0 to N, (B, T, D) each.
        inputs: Inputs 1 to N + 1, (B, T, D) each.
        streams: Residual stream before layers 0 to L - 1 and after the last one, (B, T, D) each.
        scales: Numbers by which the layer norms divide, (B, T, 1), by the name of the site.
        loss: Loss of every document in nats, (B,) float64.
    """

    model: LanguageModel
    windows: Tensor
    parts: Sequence[Sublayer]
    outputs: Sequence[Tensor]
    inputs: Sequence[Tensor]
    streams: Sequence[Tensor]
    scales: dict[str, Tensor]
    loss: Tensor

    def layer_of_input(self, n: int) -> int:
        """Return the layer of the sublayer that reads input n, or L for the unembedding."""
        return self.parts[n - 1].layer if n <= len(self.parts) else self.model.n_layers


class Horizon(NamedTuple):
    """Between which numbers a horizon lies, from increases of the loss with their intervals.

    If `least` is smaller than `most`, the documents or the values of k that were measured do not decide between them.

    Args:
        least: The smallest horizon that the measured increases allow: one more than the largest k of which the whole
            interval is outside the tolerance.
        most: The smallest k that was measured such that for it and every larger k that was measured, the whole
            interval is within the tolerance. It is an upper end only if the same holds for every larger k that was not
            measured.
    """

    least: int
    most: int


def can_freeze(model: LanguageModel) -> bool:
    """Return whether the model has the scales of all its layer norms as sites."""
    return UNEMBEDDING_SCALE in model.sites and all(part.scales for part in sublayers(model))


def batches(windows: Tensor, size: int) -> Iterator[Tensor]:
    """Return documents in batches of at most `size`, and of at least 2.

    Raises:
        ZooError: If there are fewer than 2 documents.
    """
    if len(windows) < 2:
        raise ZooError(f"{len(windows)} document is given; a horizon needs at least 2, for an interval over documents")
    n = min(-(-len(windows) // size), len(windows) // 2)
    yield from windows.tensor_split(n)


@torch.no_grad()
def clean_run(model: LanguageModel, windows: Tensor) -> CleanRun:
    """Run a model on documents (B, T + 1), and keep its outputs, inputs and scales.

    Raises:
        ZooError: If the model has no layer, or does not have the sites of its sublayers.
    """
    if not model.n_layers:
        raise ZooError("the model has no layer, so it has no sublayer whose horizon could be measured")
    parts, found = sublayers(model), dict[str, Tensor]()
    scales = [name for name in model.sites if name.endswith("hook_scale")] if can_freeze(model) else []
    before = [hook_name(layer, "resid_pre") for layer in range(model.n_layers)]
    last = hook_name(model.n_layers - 1, "resid_post")
    sites = [*before, last, *scales, *(name for part in parts for name in (part.reads, *part.writes))]
    loss = document_losses(model, windows, {name: _recorded(found, name) for name in sites})
    return CleanRun(
        model,
        windows,
        parts,
        [found[before[0]], *(_written(found, part) for part in parts)],
        [*(found[part.reads] for part in parts), found[last]],
        [*(found[name] for name in before), found[last]],
        {name: found[name] for name in scales},
        loss,
    )


def document_losses(
    model: LanguageModel, windows: Tensor, edits: dict[str, Edit], start: tuple[int, Tensor] | None = None
) -> Tensor:
    """Return the loss of every document with edited activations, (B,) float64 on the CPU, in nats per token.

    Arguments are those of `zoo.interventions.logits`, with windows (B, T + 1).
    """
    predicted = logits(model, windows[:, :-1], edits, start)[:, 1:]
    nats = token_nats(log_probabilities(predicted), windows[:, 2:].to(predicted.device))  # (B, T - 1)
    return nats.cpu().double().mean(1)


def mean_outputs(model: LanguageModel, windows: Tensor, batch: int = 8) -> Tensor:
    """Return the mean of every output at position 0 and over all other positions of some documents.

    Args:
        model: The model.
        windows: Token ids, (B, T + 1).
        batch: Number of documents at a time.

    Returns:
        Means, (N + 1, 2, D) float32 on the CPU: [:, 0] at position 0, [:, 1] at the others.
    """
    total: Tensor | None = None
    for part in batches(windows, batch):
        run = clean_run(model, part)
        sums = torch.stack([torch.stack([o[:, 0].float().sum(0), o[:, 1:].float().sum((0, 1))]) for o in run.outputs])
        total = sums.double().cpu() if total is None else total + sums.double().cpu()
    assert total is not None
    n = torch.tensor([len(windows), len(windows) * (windows.shape[1] - 2)])
    return (total / n[:, None]).float()


def fillers(run: CleanRun, kind: Filler, means: Tensor, seed: int = 0) -> list[Tensor]:
    """Return what stands for outputs 0 to N where they are left out.

    Args:
        run: The clean run.
        kind: "zero"; "mean": the mean of that output, with a mean of its own at position 0; "resampled": the same
            output at the same position of another document of the batch.
        means: Result of `mean_outputs`, (N + 1, 2, D).
        seed: Seed of the assignment of documents to one another, in which no document is assigned to itself.

    Returns:
        Tensors that can be broadcast to (B, T, D).
    """
    B, T, _ = run.outputs[0].shape
    if kind == "zero":
        return [torch.zeros_like(output[:1]) for output in run.outputs]
    if kind == "mean":
        at = torch.ones(T, dtype=torch.int64)
        at[0] = 0
        return [mean[at].to(output)[None] for mean, output in zip(means, run.outputs, strict=True)]
    order = torch.randperm(B, generator=torch.Generator().manual_seed(seed))
    other = torch.empty(B, dtype=torch.int64)
    other[order] = order.roll(1)
    return [output[other.to(output.device)] for output in run.outputs]


def last_outputs(k: int, n_sublayers: int) -> list[range]:
    """Return the last k outputs for every input 1 to N + 1, or all if there are fewer."""
    return [range(max(0, n - k), n) for n in range(1, n_sublayers + 2)]


def random_outputs(k: int, n_sublayers: int, seed: int) -> list[list[int]]:
    """Return k random outputs before every input 1 to N + 1, or all if there are fewer: the null model."""
    generator = torch.Generator().manual_seed(seed)
    return [sorted(torch.randperm(n, generator=generator)[:k].tolist()) for n in range(1, n_sublayers + 2)]


@torch.no_grad()
def truncated_losses(
    run: CleanRun,
    kept: Kept,
    filler: Sequence[Tensor],
    reading: Literal["all", "recursive"],
    frozen: bool = False,
    position_0: bool = True,
) -> Tensor:
    """Return the loss of every document if all inputs are truncated, (B,) float64.

    If all inputs keep all outputs, nothing is replaced, and the loss is bit-equal to the clean one.

    Args:
        run: The clean run.
        kept: Outputs that inputs 1 to N + 1 keep.
        filler: What stands for outputs 0 to N where they are left out.
        reading: "all": inputs of sublayers are sums of the clean outputs, so that errors do not accumulate. The
            unembedding reads the sum of the outputs that follow from these inputs. "recursive": all inputs are sums of
            the outputs of the truncated run itself.
        frozen: Whether layer norms divide by the numbers of the clean run.
        position_0: Whether position 0 is truncated as well. If not, it keeps all its clean inputs.

    Raises:
        ZooError: If `frozen` is set and the model does not have the scales of its layer norms as sites.
    """
    N = len(run.parts)
    cut = [n for n in range(1, N + 2) if len(kept[n - 1]) < n]
    if not cut:
        return run.loss
    layer = run.layer_of_input(cut[0])
    edits, written = _frozen_scales(run, layer, frozen), dict[str, Tensor]()
    now = [n for n, part in enumerate(run.parts, 1) if part.layer >= layer]

    def outputs() -> list[Tensor]:
        """Return the outputs of the truncated run, as far as it has come."""
        done = [n for n in now if all(name in written for name in run.parts[n - 1].writes)]
        new = {n: _written(written, run.parts[n - 1]) for n in done}
        return [new.get(n, output) for n, output in enumerate(run.outputs)]

    def replaced(n: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            own = reading == "recursive" or n == N + 1
            return _summed(run, n, outputs() if own else run.outputs, kept[n - 1], filler, position_0)

        return edit

    for n in now:
        part = run.parts[n - 1]
        edits |= {name: _recorded(written, name) for name in part.writes}
        if n in cut or (reading == "all" and n > cut[0]):
            edits[part.reads] = replaced(n)
    if cut[0] == N + 1:
        return document_losses(run.model, run.windows, edits, (layer, replaced(N + 1)(run.inputs[-1])))
    if N + 1 in cut:
        edits[hook_name(run.model.n_layers - 1, "resid_post")] = replaced(N + 1)
    return document_losses(run.model, run.windows, edits, (layer, run.streams[layer]))


@torch.no_grad()
def truncated_input_loss(
    run: CleanRun,
    n: int,
    kept: Sequence[int],
    filler: Sequence[Tensor],
    frozen: bool = False,
    position_0: bool = True,
) -> Tensor:
    """Return the loss of every document if only input n is truncated, (B,) float64: the reading "one".

    Args:
        run: The clean run.
        n: Number of the input, from 1 to N + 1.
        kept: Outputs that it keeps.
        filler: What stands for outputs 0 to N where they are left out.
        frozen: As in `truncated_losses`.
        position_0: As in `truncated_losses`.

    Raises:
        ZooError: As in `truncated_losses`.
    """
    if len(kept) == n:
        return run.loss
    layer, x = run.layer_of_input(n), _summed(run, n, run.outputs, kept, filler, position_0)
    edits = _frozen_scales(run, layer, frozen)
    if n == len(run.inputs):
        return document_losses(run.model, run.windows, edits, (layer, x))
    edits[run.parts[n - 1].reads] = _replaced_by(x)
    return document_losses(run.model, run.windows, edits, (layer, run.streams[layer]))


def loss_increases(
    run: CleanRun,
    reading: Reading,
    kept: Callable[[int], Kept],
    filler: Sequence[Tensor],
    frozen: bool = False,
    position_0: bool = True,
    ks: Sequence[int] | None = None,
) -> Tensor:
    """Return how much more loss every document has at some k than in the clean run.

    Args:
        run: The clean run.
        reading: How inputs are replaced: "one" input at a time, or as in `truncated_losses`.
        kept: Function from k to the outputs that are kept.
        filler: What stands for outputs 0 to N where they are left out.
        frozen: As in `truncated_losses`.
        position_0: As in `truncated_losses`.
        ks: The K values of k; by default 1 to N.

    Returns:
        Increases in nats per token, (B, K) float64. For "one", (B, N + 1, K), with an increase for every input.
    """
    N = len(run.parts)
    found = []
    for k in ks or range(1, N + 1):
        keeps = kept(k)
        if reading == "one":
            losses = [truncated_input_loss(run, n, keeps[n - 1], filler, frozen, position_0) for n in range(1, N + 2)]
            found.append(torch.stack(losses, 1))
        else:
            found.append(truncated_losses(run, keeps, filler, reading, frozen, position_0))
    increases = torch.stack(found, -1)
    return increases - run.loss.view(-1, *[1] * (increases.ndim - 1))


def values_of_k(n_values: int | None, n_sublayers: int) -> tuple[int, ...]:
    """Return values of k from 1 to the number N of sublayers, evenly spread, with both ends.

    Args:
        n_values: Number of values, at least 2; by default all if N is at most 24, and 16 otherwise.
        n_sublayers: Number N of sublayers.
    """
    wanted = n_values or (n_sublayers if n_sublayers <= MOST_KS else DEEP_KS)
    if wanted >= n_sublayers:
        return tuple(range(1, n_sublayers + 1))
    return tuple(1 + round(i * (n_sublayers - 1) / (wanted - 1)) for i in range(wanted))


def horizon(curve: Sequence[Estimate], tolerance: float, ks: Sequence[int] | None = None) -> Horizon:
    """Return between which numbers the smallest k lies such that for every k' >= k the increase is below the tolerance.

    With all N + 1 outputs kept, the increase is 0. That each increase from k on is below the tolerance is shown only if
    each interval is. This needs no correction for the number of increases, because all of them have to be shown.

    Args:
        curve: Increase of the loss at every measured k, with its interval over documents.
        tolerance: Largest increase, in nats per token.
        ks: The measured k, ascending, and then the k with which nothing is left out: one more number than `curve` has.
            By default 1, 2, and so on.
    """
    ks = ks or range(1, len(curve) + 2)
    shown = [one.high < tolerance for one in curve]
    possible = [one.low < tolerance for one in curve]
    return Horizon(
        least=1 + max((k for k, within in zip(ks, possible, strict=False) if not within), default=0),
        most=ks[max((i for i, within in enumerate(shown, 1) if not within), default=0)],
    )


@torch.no_grad()
def total_effects(run: CleanRun, filler: Sequence[Tensor], position_0: bool = True) -> tuple[Tensor, Tensor]:
    """Return how much every later output changes if output m is left out of the residual stream.

    A change is |o' - o| / |o|, where |.| is the root of the sum of squares over all positions from 1 on and all
    dimensions of a document. Csordás, Manning and Potts 2025, "Do Language Models Use Their Depth Efficiently?", arXiv
    2505.13898, measure the same for whole layers that are skipped.

    Args:
        run: The clean run.
        filler: What stands for outputs 0 to N where they are left out.
        position_0: Whether the output is left out at position 0 as well.

    Returns:
        Relative changes (B, N + 1, N + 1), [:, m, n] of output n; 0 for n <= m. And the increase of the loss for every
        m, (B, N + 1).
    """
    N = len(run.parts)
    changes = torch.zeros(len(run.windows), N + 1, N + 1, dtype=torch.float64)
    losses = []
    for m in range(N + 1):
        written, layer = dict[str, Tensor](), 0 if m == 0 else run.parts[m - 1].layer
        edits: dict[str, Edit] = {
            name: _recorded(written, name) for part in run.parts[m:] for name in part.writes if part.layer >= layer
        }
        instead = _instead(run, m, filler, position_0)
        if m == 0:
            edits[hook_name(0, "resid_pre")] = _replaced_by(instead)
        else:  # of a parallel layer, the whole output stands for the first of its two parts
            first, *others = run.parts[m - 1].writes
            edits |= {first: _replaced_by(instead), **dict.fromkeys(others, torch.zeros_like)}
        loss = document_losses(run.model, run.windows, edits, (layer, run.streams[layer]))
        losses.append(loss - run.loss)
        for n in range(m + 1, N + 1):
            changes[:, m, n] = _relative_change(_written(written, run.parts[n - 1]), run.outputs[n])
    return changes, torch.stack(losses, 1)


@torch.no_grad()
def direct_effects(run: CleanRun, filler: Sequence[Tensor], position_0: bool = True) -> tuple[Tensor, Tensor]:
    """Return how much output n changes if output m is left out of input n only.

    Arguments and results are those of `total_effects`. The increase of the loss is that of leaving output m out of what
    the unembedding reads.
    """
    N = len(run.parts)
    changes = torch.zeros(len(run.windows), N + 1, N + 1, dtype=torch.float64)
    losses = []
    for m in range(N + 1):
        for n in range(m + 1, N + 1):
            kept = [i for i in range(n) if i != m]
            x = _summed(run, n, run.outputs, kept, filler, position_0)
            changes[:, m, n] = _relative_change(_output_of(run, n, x), run.outputs[n])
        kept = [i for i in range(N + 1) if i != m]
        losses.append(truncated_input_loss(run, N + 1, kept, filler, position_0=position_0) - run.loss)
    return changes, torch.stack(losses, 1)


class _Done(Exception):
    """Ends a forward pass whose remaining results are not needed."""


def _output_of(run: CleanRun, n: int, x: Tensor) -> Tensor:
    """Return what sublayer n adds to the stream if it reads x (B, T, D)."""
    part, written = run.parts[n - 1], dict[str, Tensor]()

    def record(name: str) -> Edit:
        def keep(added: Tensor) -> Tensor:
            written[name] = added
            if len(written) == len(part.writes):
                raise _Done
            return added

        return keep

    edits: dict[str, Edit] = {part.reads: _replaced_by(x), **{name: record(name) for name in part.writes}}
    with suppress(_Done):
        logits(run.model, run.windows[:, :-1], edits, (part.layer, run.streams[part.layer]))
    return _written(written, part)


def _recorded(found: dict[str, Tensor], name: str) -> Edit:
    def keep(x: Tensor) -> Tensor:
        found[name] = x
        return x

    return keep


def _replaced_by(x: Tensor) -> Edit:
    return lambda _: x


def _written(found: dict[str, Tensor], part: Sublayer) -> Tensor:
    """Return the output of a sublayer, the sum of all that it adds to the stream, (B, T, D)."""
    first, *others = (found[name] for name in part.writes)
    return sum(others, first)


def _summed(
    run: CleanRun, n: int, outputs: Sequence[Tensor], kept: Sequence[int], filler: Sequence[Tensor], position_0: bool
) -> Tensor:
    """Return input n as the sum of outputs, in their order in the stream and in at least float32, (B, T, D)."""
    clean = run.inputs[n - 1]
    if len(kept) == n and outputs is run.outputs:
        return clean
    exact = torch.promote_types(clean.dtype, torch.float32)
    total = torch.zeros_like(clean, dtype=exact)
    for i in range(n):
        total = total + (outputs[i] if i in kept else filler[i]).to(exact)
    total = total.to(clean.dtype)
    if not position_0:
        total[:, 0] = clean[:, 0]
    return total


def _instead(run: CleanRun, m: int, filler: Sequence[Tensor], position_0: bool) -> Tensor:
    """Return what stands for output m where it is left out, (B, T, D)."""
    x = filler[m].expand_as(run.outputs[m]).clone()
    if not position_0:
        x[:, 0] = run.outputs[m][:, 0]
    return x


def _frozen_scales(run: CleanRun, layer: int, frozen: bool) -> dict[str, Edit]:
    """Return edits by which the layer norms from a layer on divide by the numbers of the clean run."""
    if not frozen:
        return {}
    if not run.scales:
        raise ZooError("the model does not have the scales of all its layer norms as sites, so they cannot be frozen")
    later = [name for name in run.scales if name == UNEMBEDDING_SCALE or layer_of(name) >= layer]
    return {name: _replaced_by(run.scales[name]) for name in later}


def _relative_change(new: Tensor, old: Tensor) -> Tensor:
    """Return |new - old| / |old| of every document, without position 0, (B,) float64; 0 if nothing changes."""
    new, old = (x[:, 1:].flatten(1).cpu().double() for x in (new, old))
    change = (new - old).norm(dim=1)
    return torch.where(change == 0, 0.0, change / old.norm(dim=1))
