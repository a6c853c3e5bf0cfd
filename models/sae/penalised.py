"""Variants whose sparsity comes from a penalty: L1, L0, or L1 on a gate."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo.errors import ZooError
from zoo.models.sae.base import SAE, Codes
from zoo.models.sae.support import support_above
from zoo.precision import precise_dtype


class ReLUSAE(SAE):
    """Codes are ReLUs, and their sum is penalised (Bricken et al. 2023; Anthropic's update of April 2024).

    Minimises |x - x_hat|² + l1_coefficient sum_j f_j |W_dec_j| in units of `scale`. With the decoder's norms in the
    penalty, shrinking codes and growing atoms gains nothing, and the atoms need no constraint.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l1_coefficient: Weight of the penalty; larger is sparser.
        aux_k: Dead latents on at a time in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 lets dead latents be.

    Raises:
        ZooError: If a size or coefficient is out of range.
    """

    swept = ("l1_coefficient", (2.0, 3.5, 5.5, 8.0))
    saelens_architecture = "standard"
    unit_norm_decoder = False
    encoder_scale_of_dense = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        l1_coefficient: float = 5.0,
        aux_k: int | None = None,
        aux_coefficient: float = 1 / 32,
    ) -> None:
        super().__init__(d_in, d_sae, aux_k, aux_coefficient)
        _check_not_negative(l1_coefficient=l1_coefficient)
        self.l1_coefficient = l1_coefficient
        self.config |= {"l1_coefficient": l1_coefficient}

    def codes(self, x: Tensor) -> Codes:
        """See `SAE.codes`."""
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        support = support_above(pre, 0)
        return Codes(support.relu(support.affine(x, self.W_enc, bias, support.take(pre))), support)

    def penalty(self, x: Tensor, codes: Codes) -> dict[str, Tensor]:
        """The L1 norm of the codes, each weighted by its atom's norm."""
        weighted = codes.support.total(codes.values, self.W_dec.norm(dim=1))
        return {"l1": self.l1_coefficient * weighted / (len(x) * self.scale)}


class JumpReLUSAE(SAE):
    """Codes are pre-activations above a learned threshold of each latent (Rajamanoharan et al. 2024, arXiv 2407.14435).

    Minimises |x - x_hat|² + l0_coefficient L0 in units of `scale`. The thresholds get their gradients from
    pre-activations within half a bandwidth (a rectangle kernel, equations 11 and 12).

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l0_coefficient: Weight of the penalty; larger is sparser. A latent pays if it takes more than this off the
            squared error, which is d_in without any latent.
        initial_threshold: Where thresholds start, in units of `scale`.
        bandwidth: Width of the kernel, in units of `scale`.
        threshold_rate: Learning rate of the thresholds, as a multiple of that of other biases. They have farther to go:
            Adam moves a parameter by at most about its learning rate in a step.
        aux_k: Dead latents on at a time in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 lets dead latents be.

    Raises:
        ZooError: If a size or coefficient is out of range.
    """

    swept = ("l0_coefficient", (0.25, 0.5, 1.0, 2.0))
    saelens_architecture = "jumprelu"
    biases = ("b_enc", "b_dec", "threshold")
    encoder_scale_of_dense = True

    threshold: nn.Parameter  # (K,), nonnegative

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        l0_coefficient: float = 1.0,
        initial_threshold: float = 0.5,
        bandwidth: float = 0.1,
        threshold_rate: float = 10.0,
        aux_k: int | None = None,
        aux_coefficient: float = 1 / 32,
    ) -> None:
        super().__init__(d_in, d_sae, aux_k, aux_coefficient)
        _check_not_negative(
            l0_coefficient=l0_coefficient, initial_threshold=initial_threshold, threshold_rate=threshold_rate
        )
        if not 0 < bandwidth < math.inf:
            raise ZooError(f"bandwidth is {bandwidth}; it must be positive")
        self.l0_coefficient, self.initial_threshold = l0_coefficient, initial_threshold
        self.bandwidth, self.threshold_rate = bandwidth, threshold_rate
        self.config |= {
            "l0_coefficient": l0_coefficient,
            "initial_threshold": initial_threshold,
            "bandwidth": bandwidth,
            "threshold_rate": threshold_rate,
        }
        self.initialise_threshold()

    @torch.no_grad()
    def initialise_threshold(self) -> None:
        """Put the thresholds where they start."""
        self.threshold.copy_(self.initial_threshold * self.scale)

    def learning_rates(self) -> dict[str, float]:
        """See `SAE.learning_rates`."""
        rates = super().learning_rates()
        return rates | {"threshold": self.threshold_rate * rates["threshold"]}

    def initialise(self, sample: Tensor) -> None:
        """See `SAE.initialise`."""
        super().initialise(sample)
        self.initialise_threshold()

    def codes(self, x: Tensor) -> Codes:
        """See `SAE.codes`; in training mode the support holds the kernel's window below the thresholds as well."""
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        window = self.bandwidth * self.scale / 2 if self.training else 0.0
        support = support_above(pre, self.threshold - window)
        values, threshold = support.affine(x, self.W_enc, bias, support.take(pre)), support.spread(self.threshold)
        width = self.bandwidth * self.scale
        on = _Step.apply(values, threshold, width)
        return Codes(_JumpReLU.apply(values, threshold, width), support, on)

    def penalty(self, x: Tensor, codes: Codes) -> dict[str, Tensor]:
        """The number of latents on."""
        assert codes.gates is not None
        return {"l0": self.l0_coefficient * codes.gates.sum(dtype=precise_dtype(codes.gates)) / len(x)}

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Keep thresholds from going below zero, as well."""
        super().after_optimizer_step()
        self.threshold.clamp_(min=0)


class GatedSAE(SAE):
    """One path decides which latents are on, the other how much (Rajamanoharan et al. 2024, arXiv 2404.16014).

    With gates g = x W_enc + b_gate and magnitudes m = exp(r_mag) x W_enc + b_mag, codes are 1[g > 0] ReLU(m).
    Minimises, in units of `scale`, |x - x_hat|² + l1_coefficient sum_j ReLU(g_j) + |x - x_hat(ReLU(g))|², the last
    reconstruction with a decoder that gets no gradient from it (equation 8); b_dec is subtracted from x first.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l1_coefficient: Weight of the penalty on the gates; larger is sparser.
        aux_k: Dead latents on at a time in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 lets dead latents be.

    Raises:
        ZooError: If a size or coefficient is out of range.
    """

    swept = ("l1_coefficient", (3.0, 6.0, 9.0, 14.0))
    saelens_architecture = "gated"
    biases = ("b_gate", "b_mag", "b_dec")
    encoder_scale_of_dense = True

    b_gate: nn.Parameter  # (K,)
    b_mag: nn.Parameter  # (K,)
    r_mag: nn.Parameter  # (K,)

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        l1_coefficient: float = 5.0,
        aux_k: int | None = None,
        aux_coefficient: float = 1 / 32,
    ) -> None:
        super().__init__(d_in, d_sae, aux_k, aux_coefficient)
        _check_not_negative(l1_coefficient=l1_coefficient)
        self.l1_coefficient = l1_coefficient
        self.config |= {"l1_coefficient": l1_coefficient}
        self.r_mag = nn.Parameter(torch.zeros(d_sae))

    def encoder_bias(self) -> Tensor:
        """What is added to x W_enc to make the gates, (K,)."""
        return self.b_gate - self.b_dec @ self.W_enc

    def codes(self, x: Tensor) -> Codes:
        """See `SAE.codes`."""
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        support = support_above(pre, 0)
        gates = support.affine(x, self.W_enc, bias, support.take(pre))
        magnitudes = (gates - support.spread(self.b_gate)) * support.spread(self.r_mag.exp())
        on = (gates > 0).to(gates.dtype)
        return Codes(on * (magnitudes + support.spread(self.b_mag)).relu(), support, gates.relu())

    def penalty(self, x: Tensor, codes: Codes) -> dict[str, Tensor]:
        """The L1 norm of the gates."""
        assert codes.gates is not None
        return {"l1": self.l1_coefficient * codes.gates.sum(dtype=precise_dtype(codes.gates)) / (len(x) * self.scale)}

    def reconstruction_error(self, x: Tensor, x_hat: Tensor, codes: Codes) -> Tensor:
        """The error of the reconstruction from the codes, plus that from the gates."""
        assert codes.gates is not None
        from_gates = codes.support.decode(codes.gates, self.W_dec.detach()) + self.b_dec.detach()
        return self.squared_error(x, x_hat) + self.squared_error(x, from_gates)


def _check_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ZooError(f"{name} is {number}; it must be a number and not negative")


class _JumpReLU(torch.autograd.Function):
    """pre 1[pre > threshold]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold, bandwidth)
        return pre * (pre > threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold, bandwidth = ctx.saved_tensors
        to_threshold = -grad * threshold / bandwidth * _window(pre, threshold, bandwidth)
        return grad * (pre > threshold), to_threshold.sum_to_size(threshold.shape), None


class _Step(torch.autograd.Function):
    """1[pre > threshold]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold, bandwidth)
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold, bandwidth = ctx.saved_tensors
        to_threshold = -grad / bandwidth * _window(pre, threshold, bandwidth)
        return None, to_threshold.sum_to_size(threshold.shape), None


def _window(pre: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
    return (pre - threshold).abs() <= bandwidth / 2
