"""The base class of all sparse autoencoders: parameters, loss, and revival of dead latents."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed import all_reduce, is_initialized

from zoo.errors import ZooError
from zoo.models.sae.selection import top_k_of_affine
from zoo.models.sae.support import Everywhere, Support
from zoo.network import Network
from zoo.precision import at_least_float32, float64


class Codes(NamedTuple):
    """The codes of a batch: their support, and their values on it."""

    values: Tensor  # (N,) on a `Support` of N pairs, or (B, K) on `Everywhere`
    support: Support | Everywhere
    gates: Tensor | None = None  # numbers that the variant's penalty sums instead of the values, in the same shape


class Loss(NamedTuple):
    """The loss of a training step, and how often each latent fired in its batch."""

    total: Tensor  # sum of the terms, ()
    terms: dict[str, Tensor]  # terms of the loss by name, () each
    fired: Tensor  # number of examples in which each latent fired, (K,) int64


class SAE(Network, ABC):
    """A sparse autoencoder x_hat = f(x) W_dec + b_dec with codes f(x) that are mostly 0.

    The unit of the loss is `scale`, the root mean square of a coordinate about its mean, so coefficients do not depend
    on the scale of the data. In this unit the squared distance of the data from their mean is `d_in` on average, and
    the squared error divided by `d_in` estimates the fraction of variance unexplained. The weights apply to the raw
    data; no normalisation has to be folded into them.

    A latent that has not fired for long is dead. In the auxiliary loss, the `aux_k` dead latents with the largest
    pre-activations reconstruct the residual of the other latents (Gao et al. 2024, arXiv 2406.04093, appendix A.2). A
    dead latent may be selected only with pre-activations of at most 0, where ReLU has gradient 0. It then gets a
    straight-through gradient on those examples where the gradient raises its pre-activation.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

    Raises:
        ZooError: If a size is out of range.
    """

    not_for = (
        "Claims about what its model computes. Its latents describe the vectors that it was trained on; how much of "
        "that is structure, only the same autoencoder on null models tells."
    )

    signed_codes = False  # whether codes may be negative
    # Name of the setting that controls sparsity, and its values in comparisons of variants over a range of L0.
    swept: tuple[str, tuple[float, ...]] = ("", ())
    # SAELens's name of the architecture that computes the same from the same parameters, None if there is none. It
    # holds only for the class that sets it, not for subclasses.
    saelens_architecture: str | None = None
    unit_norm_decoder = True  # whether atoms are normalised to unit norm after every optimizer step
    # Whether most latents are on at initialisation. The encoder then starts as a scaled-down transpose of the decoder,
    # so that reconstructions are not too long.
    encoder_scale_of_dense = False
    biases: tuple[str, ...] = ("b_enc", "b_dec")  # parameters that have the unit of the data

    W_enc: nn.Parameter  # (d_in, K)
    W_dec: nn.Parameter  # (K, d_in)
    b_enc: nn.Parameter  # (K,)
    b_dec: nn.Parameter  # (d_in,)
    scale: Tensor  # ()

    def __init__(self, d_in: int, d_sae: int, aux_k: int | None = None, aux_coefficient: float = 1 / 32) -> None:
        super().__init__()
        for name, size in (("d_in", d_in), ("d_sae", d_sae), ("aux_k", 1 if aux_k is None else aux_k)):
            if type(size) is not int or size < 1:
                raise ZooError(f"{name} is {size}; it must be a whole number and at least 1")
        if not 0 <= aux_coefficient < math.inf:
            raise ZooError(f"aux_coefficient is {aux_coefficient}; it must be a number and not negative")
        self.config: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "aux_k": aux_k, "aux_coefficient": aux_coefficient}
        self.d_in, self.d_sae = d_in, d_sae
        self.aux_k, self.aux_coefficient = aux_k or max(1, d_in // 2), aux_coefficient
        self.W_dec = nn.Parameter(F.normalize(torch.randn(d_sae, d_in)))
        shrink = min(1.0, 2 * d_in / d_sae) if self.encoder_scale_of_dense else 1.0
        self.W_enc = nn.Parameter(self.W_dec.detach().T.contiguous() * shrink)
        for name in self.biases:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_in if name == "b_dec" else d_sae)))
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def codes(self, x: Tensor) -> Codes:
        """Return the codes of a batch (B, d_in). In training mode they include what `penalty` needs."""

    def penalty(self, x: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Return the penalties by name, () each: means over examples in units of scale². By default there are none."""
        return {}

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of data, (..., d_in) -> (..., K)."""
        codes = self.codes(self._rows(x))
        return codes.support.dense(codes.values).view(*x.shape[:-1], self.d_sae)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction from codes, (..., K) -> (..., d_in)."""
        return codes.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the codes of data, (..., d_in) -> (..., d_in) and (..., K)."""
        codes = self.codes(self._rows(x))
        dense = codes.support.dense(codes.values).view(*x.shape[:-1], self.d_sae)
        return self._decode(codes).view_as(x), dense

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of data, (..., d_in) -> (..., d_in)."""
        return self._decode(self.codes(self._rows(x))).view_as(x)

    def loss(self, x: Tensor, dead: Tensor | None = None, sparsity: float = 1.0) -> Loss:
        """Return the training loss of a batch.

        Args:
            x: Data, (B, d_in).
            dead: Indices of the dead latents, (n,) int64. None or empty for no auxiliary loss.
            sparsity: Factor on the penalties; a warm-up raises it to 1.

        Returns:
            Reconstruction error plus penalties plus auxiliary loss: means over examples and coordinates in units of
            scale².
        """
        x = self._rows(x)
        codes = self.codes(x)
        penalties = {name: sparsity * term / self.d_in for name, term in self.penalty(x, codes).items()}
        x_hat = self._decode(codes)  # after the penalties: its gradient is computed first, theirs are added in place
        terms = {"reconstruction": self.reconstruction_error(x, x_hat, codes)} | penalties
        if dead is not None and len(dead) and self.aux_coefficient:
            terms["aux"] = self.aux_coefficient * self._auxiliary_error(x, (x - x_hat).detach(), dead)
        return Loss(torch.stack(list(terms.values())).sum(), terms, codes.support.counts(codes.values.detach()))

    def mean_loss(self, x: Tensor) -> Tensor:
        """Return the mean loss per example of a batch (B, d_in), without the auxiliary loss, () in units of scale².

        In contrast to `loss`, it consists of dense operations that `torch.func` can batch over many parameters.

        Raises:
            ZooError: If the variant has no `dense_codes`: its gradients are not those of its loss, or the codes of an
                example depend on the other examples of its batch.
        """
        codes = self.dense_codes(x @ self.W_enc + self.encoder_bias())
        penalties = [term / self.d_in for term in self.dense_penalty(codes).values()]
        return torch.stack([self.squared_error(x, codes @ self.W_dec + self.b_dec), *penalties]).sum()

    def dense_codes(self, pre: Tensor) -> Tensor:
        """Return the codes (B, K) for pre-activations (B, K), by dense operations."""
        raise ZooError(
            f"a {type(self).__name__} has no mean loss per example: its gradients are straight-through, or its codes "
            "depend on the whole batch; use a TopKSAE or a ReLUSAE"
        )

    def dense_penalty(self, codes: Tensor) -> dict[str, Tensor]:
        """Return what `penalty` does, for codes (B, K)."""
        return {}

    def reconstruction_error(self, x: Tensor, x_hat: Tensor, codes: Codes) -> Tensor:
        """Return the reconstruction error that the loss contains, ()."""
        return self.squared_error(x, x_hat)

    def squared_error(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the mean squared difference of two matrices (B, d_in) in units of scale², ()."""
        return F.mse_loss(at_least_float32(x_hat), at_least_float32(x)) / self.scale**2

    def encoder_bias(self) -> Tensor:
        """Return the vector that is added to x W_enc, (K,): b_enc, and the effect of subtracting b_dec from x first."""
        return self.b_enc - self.b_dec @ self.W_enc

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of every parameter, as a multiple of that of the atoms."""
        scale = self.scale.item()
        return {name: scale if name in self.biases else 1.0 for name, _ in self.named_parameters()}

    @torch.no_grad()
    def fit_scale(self, sample: Tensor) -> None:
        """Set `scale` to the root mean square of a coordinate about its mean in a sample of the data, (n, d_in)."""
        sample = float64(sample)
        self.scale.fill_((sample - sample.mean(0)).square().mean().sqrt().clamp(min=1e-15))

    @torch.no_grad()
    def initialise(self, sample: Tensor) -> None:
        """Set `scale`, and set `b_dec` to the mean, from a sample of the data, (n, d_in)."""
        self.fit_scale(sample)
        self.b_dec.copy_(float64(sample).mean(0))

    @torch.no_grad()
    def before_optimizer_step(self) -> None:
        """Remove the component of each atom's gradient along the atom, which the normalisation would undo."""
        if self.unit_norm_decoder and self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Normalise every atom to unit norm."""
        if self.unit_norm_decoder:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise ZooError(f"the data have {x.shape[-1]} dimensions, but d_in of the autoencoder is {self.d_in}")
        return x.reshape(-1, self.d_in).to(self.W_enc.dtype)

    def _decode(self, codes: Codes) -> Tensor:
        return codes.support.decode(codes.values, self.W_dec) + self.b_dec

    def _auxiliary_error(self, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        bias = self.encoder_bias()
        k = min(self.aux_k, len(dead))
        values, places = top_k_of_affine(x, self.W_enc.detach()[:, dead], bias.detach()[dead], k)
        support = Support.of_indices(dead[places], self.d_sae)
        above = Support.of_indices(places, len(dead)).counts(values.flatten().relu())
        if is_initialized():
            all_reduce(above)
        stuck = (above == 0)[places.flatten()]
        codes = _RevivableReLU.apply(support.affine(x, self.W_enc, bias, values.flatten()), stuck)
        return self.squared_error(residual, support.decode(codes, self.W_dec))


class _RevivableReLU(torch.autograd.Function):
    """ReLU. Inputs of `stuck` latents that a gradient step would raise get a gradient even if they are negative."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, stuck: Tensor) -> Tensor:
        ctx.save_for_backward(pre, stuck)
        return pre.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        pre, stuck = ctx.saved_tensors
        return grad * ((pre > 0) | (stuck & (grad < 0))), None
