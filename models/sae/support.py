"""The support of codes, which is the set of pairs (example, latent) with possibly nonzero codes, and products on it.

With k of K latents on, a dense product with the codes multiplies by zero K - k times of K. With a support of N pairs,
three products cost N d_in each instead of B K d_in: the reconstruction, and the gradients of decoder and encoder. The
results are the same up to rounding (Gao et al. 2024, arXiv 2406.04093, appendix D). All three are weighted sums of
rows, which `gathered_rows` computes in one pass over memory.
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

# Share of nonzero codes above which dense products are faster, by device type.
DENSE_ABOVE = {"cpu": 0.1}
DENSE_ABOVE_ON_ACCELERATORS = 0.01
SAMPLED = 256  # number of examples from which the share of nonzero codes is estimated
COUNTED = {"cpu": 128}  # number of examples whose codes are counted at a time, so that they stay in the cache
COUNTED_ON_ACCELERATORS = 4096


class Support:
    """A set of N pairs (example, latent), sorted by example.

    Args:
        latents: Latent of each pair, (N,) int64.
        offsets: Index of each example's first pair, (B,) int64.
        d_sae: Number of latents K.
    """

    def __init__(self, latents: Tensor, offsets: Tensor, d_sae: int) -> None:
        self.latents, self.offsets, self.d_sae = latents, offsets, d_sae

    @classmethod
    def of_mask(cls, mask: Tensor) -> "Support":
        """Return the support of the true entries of a mask (B, K)."""
        (B, K), places = mask.shape, mask.flatten().nonzero().squeeze(1)
        return cls(places % K, torch.searchsorted(places, torch.arange(0, B * K, K, device=mask.device)), K)

    @classmethod
    def of_indices(cls, indices: Tensor, d_sae: int) -> "Support":
        """Return the support of the latents (B, k) int64, k for every example."""
        B, k = indices.shape
        return cls(indices.flatten(), torch.arange(0, B * k, k, device=indices.device), d_sae)

    def where(self, mask: Tensor) -> "Support":
        """Return the support of those pairs for which a mask (N,) is true."""
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
        """The pairs sorted by latent (N,), their examples (N,), and the first place of each latent (K,)."""
        latents, order = self.latents.int().sort(stable=True)  # int32 is sorted faster than int64
        every = torch.arange(self.d_sae, dtype=torch.int32, device=latents.device)
        return order, self.rows[order], torch.searchsorted(latents, every)

    def take(self, dense: Tensor) -> Tensor:
        """Return the entries of a matrix (B, K) on the support, (N,), without a gradient."""
        return dense.detach().flatten()[self.rows * self.d_sae + self.latents]

    def spread(self, vector: Tensor) -> Tensor:
        """Return for each pair the entry of its latent in a vector (K,), (N,)."""
        return _Spread.apply(vector, self)

    def affine(self, x: Tensor, W: Tensor, b: Tensor, values: Tensor) -> Tensor:
        """Return x W + b on the support, (N,), from values that are already known, with gradients at a cost of N d_in.

        Args:
            x: (B, d_in).
            W: (d_in, K).
            b: (K,).
            values: The values of x W + b on the support, (N,).
        """
        return _Affine.apply(x, W, b, at_least_float32(values), self)

    def relu(self, pre: Tensor) -> Tensor:
        """Return the ReLU of pre-activations (N,), which may be overwritten."""
        return pre.relu_()

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """Return codes (N,) times `W_dec` (K, d_in), (B, d_in)."""
        return _Decode.apply(values, W_dec, self)

    def counts(self, values: Tensor) -> Tensor:
        """Return the number of examples in which each latent fires, (K,) int64."""
        on = (values != 0).long()
        return on.new_zeros(self.d_sae).scatter_add_(0, self.latents, on)

    def dense(self, values: Tensor) -> Tensor:
        """Return the codes as a matrix, (B, K)."""
        B = len(self.offsets)
        flat = values.new_zeros(B * self.d_sae).index_put((self.rows * self.d_sae + self.latents,), values)
        return flat.view(B, self.d_sae)

    def total(self, values: Tensor, per_latent: Tensor) -> Tensor:
        """Return the sum of the codes, each multiplied by the entry of its latent in `per_latent` (K,), ()."""
        return (values * self.spread(per_latent)).sum()

    def sum_by_latent(self, values: Tensor) -> Tensor:
        """Return for each latent the sum of the values of its pairs, (K,), in a fixed order of addition."""
        return self.rows_by_latent(values, values.new_ones(len(self.offsets), 1)).squeeze(1)

    def rows_by_latent(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return the transposed codes times `rows` (B, d), (K, d)."""
        order, row, starts = self._by_latent
        return weighted_sums(values[order], rows, row, starts)


class Everywhere:
    """The set of all pairs, with the methods of `Support`. It is used when codes are too dense for sparse products.

    If there are kernels, `relu` also computes the sums and counts that `total` and `counts` return, in the same pass.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (K,)
        self._counts: Tensor | None = None  # (K,)

    def take(self, dense: Tensor) -> Tensor:
        """Return the matrix unchanged."""
        return dense

    def spread(self, vector: Tensor) -> Tensor:
        """Return the vector (K,) unchanged, which broadcasts over examples."""
        return vector

    def affine(self, x: Tensor, W: Tensor, b: Tensor, values: Tensor) -> Tensor:
        """Return `values`, which is x W + b with its gradients."""
        return values

    def relu(self, pre: Tensor) -> Tensor:
        """Return the ReLU of pre-activations (B, K), which may be overwritten."""
        if not dispatch.by_kernels(pre.device):
            return pre.relu_()
        codes, self._sums, self._counts = _ReLU.apply(pre)
        return codes

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        """Return codes (B, K) times `W_dec` (K, d_in), (B, d_in)."""
        return values @ W_dec

    def counts(self, values: Tensor) -> Tensor:
        """Return the number of examples in which each latent fires, (K,) int64."""
        if self._counts is not None:
            return self._counts
        parts = values.split(COUNTED.get(values.device.type, COUNTED_ON_ACCELERATORS))
        return torch.stack([part.sign().abs_().sum(0, dtype=torch.float32) for part in parts]).long().sum(0)

    def dense(self, values: Tensor) -> Tensor:
        """Return the codes as a matrix, (B, K)."""
        return values

    def total(self, values: Tensor, per_latent: Tensor) -> Tensor:
        """Return the sum of the codes, each multiplied by the entry of its latent in `per_latent` (K,), ()."""
        precise = precise_dtype(values)
        with torch.autocast(values.device.type, enabled=False):
            sums = values.sum(0, dtype=precise) if self._sums is None else self._sums
            return sums @ per_latent.to(precise)


def support_where(mask: Tensor) -> Support | Everywhere:
    """Return the support of the true entries of a mask (B, K), or `Everywhere` if dense products are faster."""
    return Everywhere() if _many(_sample(mask)) else Support.of_mask(mask)


def support_above(pre: Tensor, bound: Tensor | float) -> Support | Everywhere:
    """Return the support of pre-activations (B, K) above a bound, () or (K,), or `Everywhere`.

    On the CPU it is `Everywhere` if dense products are faster. On an accelerator it always is: dense products are as
    fast there with 4 of 24,576 latents on, and up to 9 times as fast with more. Counting the entries would also make
    the host wait in every step.
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
    """Apply ReLU to a matrix (B, K) in place; return it, and per column the sum and the number of positive entries."""
    codes = pre.relu_()
    return codes, codes.sum(0, dtype=precise_dtype(codes)), (codes > 0).sum(0)


def relu_backward(grad: Tensor, codes: Tensor, of_sums: Tensor) -> Tensor:
    """Return the gradient of the input of `relu_with_sums`, (B, K).

    Args:
        grad: Gradient of the ReLU, (B, K).
        codes: The ReLU, (B, K).
        of_sums: Gradient of the column sums, (K,).
    """
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
            support.rows_by_latent(grad, x).T.contiguous() if d_W else None,  # in the layout of W, to be added to it
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
        if ctx.needs_input_grad[0]:  # for each pair, the dot product of the example's gradient with the latent's atom
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
