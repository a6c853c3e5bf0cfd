"""Variants that are sparse because of a penalty: L1 or L0 of the codes, or L1 of gates."""

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

    Minimises |x - x_hat|² + l1_coefficient sum_j f_j |W_dec_j| in units of `scale`. Because the penalty contains the
    norms of the atoms, smaller codes with longer atoms do not lower it. The atoms therefore need no norm constraint.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l1_coefficient: Weight of the penalty; a larger weight makes codes sparser.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

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
        """Return the mean L1 norm of the codes, each code weighted by the norm of its atom, times the coefficient."""
        weighted = codes.support.total(codes.values, self.W_dec.norm(dim=1))
        return {"l1": self.l1_coefficient * weighted / (len(x) * self.scale)}

    def dense_codes(self, pre: Tensor) -> Tensor:
        """See `SAE.dense_codes`."""
        return pre.relu()

    def dense_penalty(self, codes: Tensor) -> dict[str, Tensor]:
        """See `SAE.dense_penalty`."""
        weighted = (codes * self.W_dec.norm(dim=1)).sum()
        return {"l1": self.l1_coefficient * weighted / (len(codes) * self.scale)}


class JumpReLUSAE(SAE):
    """Codes are pre-activations above a learned threshold of each latent (Rajamanoharan et al. 2024, arXiv 2407.14435).

    Minimises |x - x_hat|² + l0_coefficient L0 in units of `scale`. The gradients of a threshold come from
    pre-activations within half a bandwidth of it (a rectangle kernel, equations 11 and 12).

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l0_coefficient: Weight of the penalty; a larger weight makes codes sparser. A latent lowers the loss if it
            reduces the squared error by more than this weight. With all latents off, the squared error is d_in.
        initial_threshold: Initial value of the thresholds, in units of `scale`.
        bandwidth: Width of the kernel, in units of `scale`.
        threshold_rate: Learning rate of the thresholds, as a multiple of that of other biases. It is above 1 because
            thresholds change more in training, and Adam moves a parameter by at most about its learning rate per step.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

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
        """Set the thresholds to their initial value."""
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
        """See `SAE.codes`. In training mode, the support also has the pairs within the kernel below a threshold."""
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        window = self.bandwidth * self.scale / 2 if self.training else 0.0
        support = support_above(pre, self.threshold - window)
        values, threshold = support.affine(x, self.W_enc, bias, support.take(pre)), support.spread(self.threshold)
        width = self.bandwidth * self.scale
        on = _Step.apply(values, threshold, width)
        return Codes(_JumpReLU.apply(values, threshold, width), support, on)

    def penalty(self, x: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Return the mean number of latents that are on, times the coefficient."""
        assert codes.gates is not None
        return {"l0": self.l0_coefficient * codes.gates.sum(dtype=precise_dtype(codes.gates)) / len(x)}

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Normalise the atoms, and set negative thresholds to 0."""
        super().after_optimizer_step()
        self.threshold.clamp_(min=0)


class GatedSAE(SAE):
    """One path decides which latents are on, the other how much (Rajamanoharan et al. 2024, arXiv 2404.16014).

    With gates g = x W_enc + b_gate and magnitudes m = exp(r_mag) x W_enc + b_mag, codes are 1[g > 0] ReLU(m).
    Minimises, in units of `scale`, |x - x_hat|² + l1_coefficient sum_j ReLU(g_j) + |x - x_hat(ReLU(g))|² (equation 8).
    The last term, the error of a reconstruction from the gates, sends no gradient to the decoder. The encoder reads
    x - b_dec.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        l1_coefficient: Weight of the penalty on the gates; a larger weight makes codes sparser.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

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
        """Return the vector that is added to x W_enc to get the gates, (K,)."""
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
        """Return the mean L1 norm of the rectified gates, times the coefficient."""
        assert codes.gates is not None
        return {"l1": self.l1_coefficient * codes.gates.sum(dtype=precise_dtype(codes.gates)) / (len(x) * self.scale)}

    def reconstruction_error(self, x: Tensor, x_hat: Tensor, codes: Codes) -> Tensor:
        """Return the error of the reconstruction from the codes, plus that of the reconstruction from the gates."""
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
