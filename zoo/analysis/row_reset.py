"""Replaces one row of a GPT-2's token embedding, and then trains either that row or all other weights.

Many such resets run in parallel, independently of each other. Each has its own token, contexts and row. In `train_rest`
each also has its own copy of all other weights.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.errors import ZooError
from zoo.metrics import log_probabilities, token_nats
from zoo.models import GPT2

W_E = "transformer.wte.weight"
BYTES_AT_ONCE = 2**27  # memory for logits and copies of weights; it limits how many resets run in parallel
Losses = Callable[[Tensor], Tensor]  # windows (R, n, T + 1) -> (R, n, T)


class Tuned(NamedTuple):
    """Losses and rows of R resets at P steps of fine-tuning."""

    loss: Tensor  # (P, R), nats per token, on contexts that were not trained on
    rows: Tensor  # (P, R, D), the row of each reset's token


def random_rows(rows: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random row for every token. It has the distance of the token's row from the mean row.

    Args:
        rows: The embedding, (V, D).
        tokens: Token ids, (R,).
        generator: Random number generator of the directions, which are isotropic.

    Returns:
        The random rows, (R, D).
    """
    mean = rows.mean(0)
    distance = (rows[tokens] - mean).norm(dim=1, keepdim=True)
    return mean + distance * F.normalize(torch.randn(len(tokens), rows.shape[1], generator=generator), dim=1)


def measured_at(steps: int, n: int = 5) -> list[int]:
    """Return the training steps at which to measure: 0, and up to n - 1 log-spaced steps that include the last."""
    return [0, *sorted({round(step) for step in np.geomspace(1, steps, n - 1)})]


def token_losses(model: GPT2, windows: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
    """Return the loss at every position for R models that differ from `model` in one row each.

    Args:
        model: The network whose other weights all R models share, in eval mode.
        windows: Token ids, (R, n, T + 1).
        tokens: Token whose row differs, for each model, (R,).
        rows: Row of this token, (R, D). If the unembedding is tied, it is the token's row there as well.

    Returns:
        Losses in nats, (R, n, T).
    """
    R, n, T = *windows.shape[:2], windows.shape[2] - 1
    ids = windows[..., :-1]
    own = (ids == tokens[:, None, None]).unsqueeze(-1)
    x = torch.where(own, rows[:, None, None], model.W_E[ids]) + model.transformer.wpe.weight[:T]
    h = model.transformer.ln_f(model.blocks(x.flatten(0, 1)))  # (R n, T, D)
    logits = model.lm_head(h).view(R, n, T, -1)
    if model.tied:
        of_own = torch.einsum("rntd,rd->rnt", h.view(R, n, T, -1), rows).unsqueeze(-1)
        logits = logits.scatter(-1, tokens[:, None, None, None].expand_as(of_own), of_own)
    return token_nats(log_probabilities(logits), windows[..., 1:])


def counted(windows: Tensor, tokens: Tensor) -> Tensor:
    """Return the positions that a token's row can affect: its first occurrence in each window, and those after it.

    Args:
        windows: Token ids, (..., n, T + 1).
        tokens: Token ids, (...).

    Returns:
        Whether each position counts, (..., n, T) bool.
    """
    return (windows[..., :-1] == tokens[..., None, None]).cumsum(-1) > 0


def train_rows(
    model: GPT2,
    tokens: Tensor,
    rows: Tensor,
    train: Tensor,
    evaluation: Tensor,
    points: Sequence[int],
    batch: int = 4,
    learning_rate: float = 0.01,
) -> Tuned:
    """Train only one row per reset, by Adam with a learning rate that falls linearly to 0.

    Args:
        model: The network, which is not changed.
        tokens: Token ids, (R,).
        rows: Initial rows, (R, D). The model's own rows give a control without a reset.
        train: Windows to train on, (R, n, T + 1), used in turn.
        evaluation: Windows to evaluate on, (R, m, T + 1).
        points: Steps at which to evaluate, ascending; training ends at the last one.
        batch: Number of windows per reset in a training step, and evaluated at a time.
        learning_rate: Learning rate at the start, in units of the embedding.

    Returns:
        Losses and rows at the points.

    Raises:
        ZooError: If shapes do not fit.
    """
    _check(model, tokens, rows, train, evaluation)

    def tune(part: slice) -> Tuned:
        of, row = tokens[part], rows[part].detach().clone().requires_grad_()

        def losses(windows: Tensor) -> Tensor:
            return token_losses(model, windows, of, row)

        return _tune([row], losses, lambda: row, of, train[part], evaluation[part], points, batch, learning_rate)

    return _in_parts(len(tokens), _bytes_of_logits(model, batch, train), tune)


def train_rest(
    model: GPT2,
    tokens: Tensor,
    rows: Tensor,
    train: Tensor,
    evaluation: Tensor,
    points: Sequence[int],
    batch: int = 4,
    learning_rate: float = 0.001,
) -> Tuned:
    """Train all weights except one row per reset, which keeps the values of `rows`.

    Each reset has its own copy of all weights. A copy, its gradient and Adam's two moments take 16 bytes per weight.
    As many resets run in parallel as fit into `BYTES_AT_ONCE` together with their logits, and at least one. Arguments,
    results and errors are those of `train_rows`. If the unembedding is tied, the token's row there is not trained
    either.
    """
    _check(model, tokens, rows, train, evaluation)

    def losses_of_copy(copy: dict[str, Tensor], windows: Tensor) -> Tensor:
        logits = functional_call(model, copy, (windows[:, :-1],))  # (n, T, V)
        return token_nats(log_probabilities(logits), windows[:, 1:])

    def tune(part: slice) -> Tuned:
        of = tokens[part]
        at = (torch.arange(len(of)), of)
        copies = {name: p.detach().repeat(len(of), *[1] * p.ndim) for name, p in model.named_parameters()}
        copies[W_E][at] = rows[part]
        parameters = [p.requires_grad_() for p in copies.values()]
        copies[W_E].register_hook(lambda grad: grad.index_put(at, grad.new_zeros(())))

        def losses(windows: Tensor) -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):  # kernels of the other backends would be called once per copy
                return vmap(losses_of_copy)(copies, windows)

        def own() -> Tensor:
            return copies[W_E][at]

        return _tune(parameters, losses, own, of, train[part], evaluation[part], points, batch, learning_rate)

    per_copy = 16 * sum(p.numel() for p in model.parameters())
    return _in_parts(len(tokens), per_copy + _bytes_of_logits(model, batch, train), tune)


def _tune(
    parameters: list[Tensor],
    losses: Losses,
    rows: Callable[[], Tensor],
    tokens: Tensor,
    train: Tensor,
    evaluation: Tensor,
    points: Sequence[int],
    batch: int,
    learning_rate: float,
) -> Tuned:
    def total(windows: Tensor) -> Tensor:
        return (losses(windows) * counted(windows, tokens)).sum((1, 2))

    def places(windows: Tensor) -> Tensor:
        return counted(windows, tokens).sum((1, 2))

    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    found = []
    for step in range(points[-1] + 1):
        if step in points:
            with torch.no_grad():
                judged = torch.stack([total(windows) for windows in evaluation.split(batch, 1)]).sum(0)
            found.append((judged / places(evaluation), rows().detach().clone()))
        if step == points[-1]:
            break
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / points[-1])
        windows = train[:, torch.arange(step * batch, (step + 1) * batch) % train.shape[1]]
        optimizer.zero_grad()
        (total(windows) / places(windows)).sum().backward(inputs=parameters)
        optimizer.step()
    loss, row = zip(*found, strict=True)
    return Tuned(torch.stack(loss), torch.stack(row))


def _in_parts(n: int, bytes_each: int, tune: Callable[[slice], Tuned]) -> Tuned:
    size = max(1, BYTES_AT_ONCE // bytes_each)
    found = [tune(slice(first, first + size)) for first in range(0, n, size)]
    return Tuned(torch.cat([f.loss for f in found], 1), torch.cat([f.rows for f in found], 1))


def _bytes_of_logits(model: GPT2, batch: int, train: Tensor) -> int:
    """Return the memory of one reset: logits, their softmax, and the gradients of both."""
    return 16 * batch * train.shape[2] * len(model.W_U)


def _check(model: GPT2, tokens: Tensor, rows: Tensor, train: Tensor, evaluation: Tensor) -> None:
    R, D = len(tokens), model.W_E.shape[1]
    if rows.shape != (R, D):
        raise ZooError(f"rows are {list(rows.shape)}; {R} tokens of a model of width {D} need {[R, D]}")
    for name, windows in (("train", train), ("evaluation", evaluation)):
        if windows.ndim != 3 or len(windows) != R or not 2 <= windows.shape[2] <= model.context_length + 1:
            raise ZooError(
                f"{name} is {list(windows.shape)}; expected windows for {R} tokens, with at most "
                f"{model.context_length} inputs and one more target"
            )
        if not (windows[..., :-1] == tokens[:, None, None]).any(-1).all():
            raise ZooError(f"{name} has windows whose inputs do not contain their token")
