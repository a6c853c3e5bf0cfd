"""Cross-entropy of a language model, computed from its final residual stream without storing all logits at once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.precision import at_least_float32, precise_dtype

LOGITS_AT_ONCE = {"cpu": 2**21}  # number of logits that fit into the cache, by type of device
LOGITS_ON_OTHERS = 2**28  # enough to keep an accelerator busy
LOGITS_COMPILED = 2**31  # on accelerators, where compiled code computes loss and gradient in one pass over the logits
ALIGNMENT = 64  # on an accelerator, products with W_U are slow unless its number of rows is a multiple of this
LEFT_OUT = -100  # target that is ignored


def unembedded_nats(x: Tensor, W_U: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over tokens of the cross-entropy of the logits `x W_U^T`, in nats.

    Logits are computed in the type of `x`, or in that of autocast, and everything after them in at least float32. They
    are computed for some tokens at a time, and their gradients in the same pass, so that logits are neither stored nor
    recomputed. On an accelerator, `W_U` is padded with rows of zeros to a size for which products are fast; the loss
    ignores these rows. In a compiled network on an accelerator, more tokens are taken at a time.

    Args:
        x: Final residual stream, after the final layer norm, (..., D).
        W_U: Unembedding, (V, D), one row per token.
        targets: Tokens to be predicted, (...) int64; targets of -100 are ignored.

    Returns:
        The sum, () in at least float32. It can be differentiated once.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    x, targets = x.flatten(0, -2), targets.flatten()
    with torch.autocast(kind, enabled=False):
        if torch.is_grad_enabled() and (x.requires_grad or W_U.requires_grad):
            return _Nats.apply(x, W_U, targets, dtype, W_U.requires_grad)
        return _nats(x, W_U, targets, dtype, False, False)[0]


def rows_of_zeros(V: int, kind: str) -> int:
    """Return the number of rows to add to a matrix of V rows, so that its products are fast on a type of device."""
    return 0 if kind == "cpu" else -V % ALIGNMENT


def tokens_at_once(V: int, kind: str) -> int:
    """Return for how many tokens, a power of 2, logits are computed at a time on a type of device."""
    others = LOGITS_COMPILED if torch.compiler.is_compiling() else LOGITS_ON_OTHERS
    n = max(1, LOGITS_AT_ONCE.get(kind, others) // V)
    return 2 ** (n.bit_length() - 1)


class _Nats(torch.autograd.Function):
    """Sum of the losses. Its gradients are computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_U: Tensor, targets: Tensor, dtype: torch.dtype, moves: bool) -> Tensor:
        """Return the sum, ()."""
        nats, dx, dW = _nats(x, W_U, targets, dtype, True, moves)
        ctx.save_for_backward(dx, dW)
        ctx.dtypes = x.dtype, W_U.dtype
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to `x` and `W_U`."""
        dx, dW = ctx.saved_tensors
        for_x, for_W = ctx.dtypes
        dx = (dx.to(grad.dtype) * grad).to(for_x)
        return dx, None if dW is None else (dW.to(grad.dtype) * grad).to(for_W), None, None, None


def _nats(
    x: Tensor, W_U: Tensor, targets: Tensor, dtype: torch.dtype, differentiate: bool, moves: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the sum of the losses, its gradient with respect to `x` (N, D), and with `moves` also to `W_U` (V, D)."""
    V, kind = len(W_U), x.device.type
    at_once, fill = tokens_at_once(V, kind), rows_of_zeros(V, kind)
    W = F.pad(W_U.to(dtype), (0, 0, 0, fill))
    no_token = torch.arange(V + fill, device=x.device) >= V
    precise = precise_dtype(W)
    total = x.new_zeros((), dtype=precise)
    dW: Tensor | None = None
    dxs: list[Tensor] = []
    for x_part, target in zip(x.to(dtype).split(at_once), targets.split(at_once), strict=True):
        kept, target = (target != LEFT_OUT)[:, None], target.clamp(min=0)[:, None]
        logits = x_part @ W.T
        if fill:
            logits.masked_fill_(no_token, -torch.inf)
        log_p = at_least_float32(logits).log_softmax(1)
        nats = -log_p.gather(1, target)
        total = total + nats.where(kept, 0).sum()
        if not differentiate:
            continue
        d = log_p.exp_().to(dtype).scatter_(1, target, torch.expm1(-nats).to(dtype))  # with respect to the logits
        dxs.append((d @ W) * kept)
        if not moves:
            continue
        x_part = x_part * kept
        if dW is None:
            dW = d.T @ x_part
        elif dtype == precise:
            dW.addmm_(d.T, x_part)
        else:
            dW = dW.to(precise).add_(d.T @ x_part)
    return total, torch.cat(dxs) if differentiate else None, dW[:V] if dW is not None else None
