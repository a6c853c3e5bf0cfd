"""Where codes may be nonzero, and the products that need to look nowhere else.

With k of K latents on, a dense product with the codes multiplies by zero K - k times of K. On a support of N pairs
(example, latent) decoding, the decoder's and the encoder's gradients cost N d_in each instead of B K d_in, and are the
same numbers up to rounding (Gao et al. 2024, arXiv 2406.04093, appendix D). All three are weighted sums of rows, which
`gathered_rows` makes in one pass over memory.
"""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.models.sae import dispatch
from zoo.models.sae.gathered_rows import dot_products, gathered_dtype, weighted_sums
from zoo.precision import at_least_float32, precise_dtype

# Share of nonzero codes above which dense products are faster.
DENSE_ABOVE = {"cpu": 0.1}
DENSE_ABOVE_ON_ACCELERATORS = 0.01
SAMPLED = 256  # examples whose codes tell how many are nonzero
COUNTED = {"cpu": 128}  # examples whose codes are counted at a time, so that they stay in the cache
COUNTED_ON_ACCELERATORS = 4096


class Support:
    """Pairs (example, latent), sorted by example.

    Args:
        latents: Latent of each pair, (N,) int64.
        offsets: Index of each example's first pair, (B,) int64.
        d_sae: Number of latents K.
    """

    def __init__(self, latents: Tensor, offsets: Tensor, d_sae: int) -> None:
        self.latents, self.offsets, self.d_sae = latents, offsets, d_sae

    @classmethod
    def of_mask(cls, mask: Tensor) -> "Support":
        """The true entries of a mask (B, K)."""
        (B, K), places = mask.shape, mask.flatten().nonzero().squeeze(1)
        return cls(places % K, torch.searchsorted(places, torch.arange(0, B * K, K, device=mask.device)), K)

    @classmethod
    def of_indices(cls, indices: Tensor, d_sae: int) -> "Support":
        """The same number of latents for every example, (B, k) int64."""
        B, k = indices.shape
        return cls(indices.flatten(), torch.arange(0, B * k, k, device=indices.device), d_sae)

    def where(self, mask: Tensor) -> "Support":
        """The pairs for which a mask (N,) is true."""
        before = F.pad(mask.cumsum(0), (1, 0))
        return Support(self.latents[mask], before[self.offsets], self.d_sae)

    @cached_property
    def rows(self) -> Tensor:
        """Example of each pair, (N,) int64."""
        counts = F.pad(self.offsets, (0, 1), value=len(self.latents)).diff()
        examples = torch.arange(len(self.offsets), device=self.offsets.device)
        return examples.repeat_interleave(counts, output_size=len(self.latents))

    @cached_property
    def _by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs in order of their latent (N,), the rows in that order (N,), and each latent's first place (K,)."""
        latents, order = self.latents.int().sort(stable=True)  # which sorts int32 faster than int64
        every = torch.arange(self.d_sae, dtype=torch.int32, device=latents.device)
        return order, self.rows[order], torch.searchsorted(latents, every)

    def take(self, dense: Tensor) -> Tensor:
        """The entries of a matrix (B, K) on the support, (N,), without a gradient."""
        return dense.detach().flatten()[self.rows * self.d_sae + self.latents]

    def spread(self, vector: Tensor) -> Tensor:
        """A number per latent (K,) given to each pair, (N,)."""
        return _Spread.apply(vector, self)

    def affine(self, x: Tensor, W: Tensor, b: Tensor, values: Tensor) -> Tensor:
        """x W + b on the support, (N,), whose numbers are known already; gradients cost N d_in.

        Args:
            x: (B, d_in).
            W: (d_in, K).
            b: (K,).
            values: The result, (N,).
        """
        return _Affine.apply(x, W, b, at_least_float32(values), self)

    def relu(self, pre: Tensor) -> Tensor:
        """ReLU of pre-activations (N,), which may be overwritten."""
        return pre.relu_()

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """Codes (N,) times `W_dec` (K, d_in), (B, d_in)."""
        return _Decode.apply(values, W_dec, self)

    def counts(self, values: Tensor) -> Tensor:
        """In how many examples each latent fires, (K,) int64."""
        on = (values != 0).long()
        return on.new_zeros(self.d_sae).scatter_add_(0, self.latents, on)

    def dense(self, values: Tensor) -> Tensor:
        """Codes as a matrix, (B, K)."""
        B = len(self.offsets)
        flat = values.new_zeros(B * self.d_sae).index_put((self.rows * self.d_sae + self.latents,), values)
        return flat.view(B, self.d_sae)

    def total(self, values: Tensor, per_latent: Tensor) -> Tensor:
        """Sum of the codes, each times its latent's number (K,), ()."""
        return (values * self.spread(per_latent)).sum()

    def sum_by_latent(self, values: Tensor) -> Tensor:
        """Sum of the pairs' values over the examples, (K,), in a fixed order of addition."""
        return self.rows_by_latent(values, values.new_ones(len(self.offsets), 1)).squeeze(1)

    def rows_by_latent(self, values: Tensor, rows: Tensor) -> Tensor:
        """Transposed codes times `rows` (B, d), (K, d)."""
        order, row, starts = self._by_latent
        return weighted_sums(values[order], rows, row, starts)


class Everywhere:
    """All pairs: what `Support` offers, for codes too dense to gain from it.

    Where there are kernels, `relu` makes the codes' sums and counts in the same pass, for `total` and `counts`.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (K,)
        self._counts: Tensor | None = None  # (K,)

    def take(self, dense: Tensor) -> Tensor:
        """The matrix itself."""
        return dense

    def spread(self, vector: Tensor) -> Tensor:
        """A number per latent, broadcast over the examples."""
        return vector

    def affine(self, x: Tensor, W: Tensor, b: Tensor, values: Tensor) -> Tensor:
        """x W + b, which is known already, with its gradients."""
        return values

    def relu(self, pre: Tensor) -> Tensor:
        """ReLU of pre-activations (B, K), which may be overwritten."""
        if not dispatch.by_kernels(pre.device):
            return pre.relu_()
        codes, self._sums, self._counts = _ReLU.apply(pre)
        return codes

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """Codes (B, K) times `W_dec` (K, d_in), (B, d_in)."""
        return values @ W_dec

    def counts(self, values: Tensor) -> Tensor:
        """In how many examples each latent fires, (K,) int64."""
        if self._counts is not None:
            return self._counts
        parts = values.split(COUNTED.get(values.device.type, COUNTED_ON_ACCELERATORS))
        return torch.stack([part.sign().abs_().sum(0, dtype=torch.float32) for part in parts]).long().sum(0)

    def dense(self, values: Tensor) -> Tensor:
        """Codes as a matrix, (B, K)."""
        return values

    def total(self, values: Tensor, per_latent: Tensor) -> Tensor:
        """Sum of the codes, each times its latent's number (K,), ()."""
        precise = precise_dtype(values)
        with torch.autocast(values.device.type, enabled=False):
            sums = values.sum(0, dtype=precise) if self._sums is None else self._sums
            return sums @ per_latent.to(precise)


def support_where(mask: Tensor) -> Support | Everywhere:
    """The true entries of a mask (B, K), or everything if there are so many that dense products are faster."""
    return Everywhere() if _many(_sample(mask)) else Support.of_mask(mask)


def support_above(pre: Tensor, bound: Tensor | float) -> Support | Everywhere:
    """The entries of pre-activations (B, K) above a bound, () or (K,), as `support_where`, without a mask if many.

    On an accelerator it is everything: dense products are as fast there with 4 entries of 24,576 and up to 9 times as
    fast with more, and counting the entries would make the host wait in every step.
    """
    if pre.device.type != "cpu":
        return Everywhere()
    return Everywhere() if _many(_sample(pre) > bound) else Support.of_mask(pre > bound)


def _sample(dense: Tensor) -> Tensor:
    return dense[:: max(1, len(dense) // SAMPLED)]


def _many(mask: Tensor) -> bool:
    limit = DENSE_ABOVE.get(mask.device.type, DENSE_ABOVE_ON_ACCELERATORS)
    return bool(mask.count_nonzero() > limit * mask.numel())


def relu_with_sums(pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU of a matrix (B, K) in its place, and for every column the sum and how many entries are above 0 (int64)."""
    codes = pre.relu_()
    return codes, codes.sum(0, dtype=precise_dtype(codes)), (codes > 0).sum(0)


def relu_backward(grad: Tensor, codes: Tensor, of_sums: Tensor) -> Tensor:
    """Gradient of the matrix, from that of the ReLU (B, K), the ReLU, and the gradient of the columns' sums (K,)."""
    return ((grad + of_sums) * (codes > 0)).to(codes.dtype)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, sums, counts = dispatch.by_kernel("relu_with_sums", relu_with_sums, pre.device, pre)
        ctx.mark_dirty(codes)
        ctx.mark_non_differentiable(counts)
        ctx.save_for_backward(codes)
        return codes, sums, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_sums: Tensor, _: Any) -> Tensor:
        (codes,) = ctx.saved_tensors
        return dispatch.by_kernel("relu_backward", relu_backward, grad.device, grad, codes, of_sums)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, values: Tensor, support: Support) -> Tensor:
        ctx.save_for_backward(x.to(gathered_dtype(values)), W)
        ctx.support = support
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, W), support = ctx.saved_tensors, ctx.support
        d_x, d_W, d_b = ctx.needs_input_grad[:3]
        return (
            weighted_sums(grad, W.T.contiguous(), support.latents, support.offsets) if d_x else None,
            support.rows_by_latent(grad, x).T.contiguous() if d_W else None,  # laid out as W, for the sums to come
            support.sum_by_latent(grad) if d_b else None,
            None,
            None,
        )


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, support: Support) -> Tensor:
        atoms = W_dec.to(gathered_dtype(values))
        ctx.save_for_backward(values, atoms)
        ctx.support = support
        return weighted_sums(values, atoms, support.latents, support.offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (values, atoms), support = ctx.saved_tensors, ctx.support
        d_values = d_W = None
        if ctx.needs_input_grad[0]:  # the dot product of the example's gradient with the latent's atom
            d_values = dot_products(grad.contiguous(), atoms, support.latents, support.offsets, support.rows)
        if ctx.needs_input_grad[1]:
            d_W = support.rows_by_latent(values, grad.to(atoms.dtype))
        return d_values, d_W, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor, support: Support) -> Tensor:
        ctx.support = support
        return vector[support.latents]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.support.sum_by_latent(grad), None
