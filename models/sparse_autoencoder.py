"""The LightningModule that trains sparse autoencoders."""

from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed import all_reduce, is_initialized
from torch.optim import Optimizer

from zoo.errors import ZooError
from zoo.models.optimizers import AdamLinear
from zoo.models.reconstruction import ReconstructionModule
from zoo.models.sae import SAE
from zoo.models.vector_batches import as_vectors
from zoo.protocols import datamodule, offered

ADAM_EPS = 1e-8


class SparseAutoencoder(ReconstructionModule):
    """Trains a sparse autoencoder on embedding rows or activations.

    Batches are tensors (B, d_in), or dicts with such a tensor as `x`. Before training, the decoder's bias is set to the
    mean of a sample of the data. `sae.scale` is set to their spread: the root mean square of a coordinate about its
    mean. The sample is the datamodule's `sample()`, if it has that method, and otherwise the first training batches.
    With `init_from`, only `sae.scale` is set. A latent fires where its code is not zero. It is dead when it has not
    fired in any of the last `dead_after` examples, counted over all processes.

    Args:
        sae: The variant of autoencoder and its sizes.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 2e-4 sqrt(2^14 / d_sae) (Gao et
            al. 2024, section 2.5). The rate of biases is this rate times `sae.scale`, and the rate of the thresholds of
            a JumpReLUSAE is also multiplied by `sae.threshold_rate`.
        dead_after: Number of examples without firing after which a latent is dead.
        sparsity_warmup_steps: Number of optimizer steps over which a sparsity penalty rises linearly to its full
            weight; 0 for the full weight from the first step on.
        init_from: Checkpoint of the same variant and sizes whose weights training starts from: the name of a pretrained
            checkpoint, a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range, or `init_from` does not fit.
    """

    net: SAE
    examples_since_fired: Tensor  # (K,) int64

    def __init__(
        self,
        sae: SAE,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        dead_after: int = 100_000,
        sparsity_warmup_steps: int = 100,
        init_from: str | None = None,
    ) -> None:
        super().__init__(sae.d_sae)
        for name, value in (("dead_after", dead_after), ("sparsity_warmup_steps", sparsity_warmup_steps)):
            if value < 0:
                raise ZooError(f"{name} is {value}; it must not be negative")
        arguments = {"optimizer": optimizer, "dead_after": dead_after, "sparsity_warmup_steps": sparsity_warmup_steps}
        self.save_plain_hyperparameters(sae=sae, **arguments, init_from=init_from)
        self.net, self.optimizer = sae, optimizer
        self.dead_after, self.sparsity_warmup_steps = dead_after, sparsity_warmup_steps
        self.register_buffer("examples_since_fired", torch.zeros(sae.d_sae, dtype=torch.int64))
        self._none_dead_for = 0  # number of examples until a latent can be dead
        self.init_from = init_from
        self.start_from(init_from)
        norms = self.net.W_dec.norm(dim=1)
        if init_from and self.net.unit_norm_decoder and (norms - 1).abs().max() > 1e-3:
            raise ZooError(
                f"init_from {init_from} has atoms of norm {norms.min():.3g} to {norms.max():.3g}; atoms of a "
                f"{type(self.net).__name__} must have norm 1"
            )

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (B, d_in) and the codes (B, K) of data (B, d_in)."""
        return self.net.reconstruct(x)

    def embedding_rows(self) -> dict[str, Tensor]:
        """The decoder's atoms, `W_dec` (K, d_in)."""
        return {"W_dec": self.net.W_dec}

    def setup(self, stage: str) -> None:
        """Refuse data that do not fit; before training, fit scale and bias to the data."""
        super().setup(stage)
        self.check_data(self.net.d_in)
        if stage != "fit":
            return
        data = datamodule(self.trainer)
        if offered(data, "frequency_power") and offered(data, "batch_size") is None:
            raise ZooError(
                "an autoencoder cannot train on weighted rows: with data.frequency_power, set data.batch_size to a "
                "number, so that rows are sampled by weight"
            )
        self.initialise_from_data()

    def initialise(self, sample: Tensor) -> None:
        """Fit the network to vectors (n, d_in); with `init_from` only its scale."""
        if self.init_from is None:
            self.net.initialise(sample)
        else:
            self.net.fit_scale(sample)
        self.fitted.fill_(True)

    def configure_optimizers(self) -> Any:
        """Return Adam without weight decay; parameters in units of the data have a learning rate times `scale`."""
        lr = self.optimizer.learning_rate
        lr = 2e-4 * (2**14 / self.net.d_sae) ** 0.5 if lr is None else lr
        rates, scale = self.net.learning_rates(), self.net.scale.item()
        groups = [  # Adam's eps must have the unit of the gradients, which is 1 / scale for biases
            {"params": [p], "lr": lr * rates[name], "eps": ADAM_EPS / (scale if name in self.net.biases else 1)}
            for name, p in self.net.named_parameters()
        ]
        return self.optimizer.configure(groups, self.total_steps())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of the variant; see `SAE.loss`."""
        x, dead = as_vectors(batch)["x"], self._dead()
        sparsity = min(1.0, (self.global_step + 1) / (self.sparsity_warmup_steps + 1))
        loss = self.net.loss(x, dead, sparsity)
        n_examples: Tensor | int = len(x)
        share: Tensor | float = 1.0  # weight of this process in the mean over all examples; 1 if all have equally many
        if is_initialized():
            n_examples = torch.full((), len(x), device=self.device)
            all_reduce(n_examples)
            share = len(x) * self.trainer.world_size / n_examples.float()
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            logged = {"loss": loss.total.detach(), "l0": loss.fired.sum().float() / len(x)} | loss.terms
            self.log_dict({f"train/{name}": value * share for name, value in logged.items()}, sync_dist=True)
            self.log("train/dead_latents", (0 if dead is None else len(dead)) / self.net.d_sae)
        self._count(loss.fired, n_examples)
        return loss.total * share if is_initialized() else loss.total

    def mean_loss(self, batch: Any) -> Tensor:
        """Return `SAE.mean_loss` of the vectors of a batch, (); see `zoo.protocols.HasMeanLoss`.

        It is the loss of `training_step` without the auxiliary loss, which changes with the latents that are dead, and
        with the full weight of the sparsity penalty.

        Raises:
            ZooError: If the variant has no such loss.
        """
        return self.net.mean_loss(as_vectors(batch)["x"])

    def on_train_start(self) -> None:
        """Make the first step look for dead latents, also in a resumed run."""
        self._none_dead_for = 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Adjust gradients to the constraints of the variant, such as atoms of norm 1."""
        self.net.before_optimizer_step()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer | LightningOptimizer, optimizer_closure: Any = None
    ) -> None:
        """Take a step, and restore the constraints of the variant, such as atoms of norm 1."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.net.after_optimizer_step()

    def _dead(self) -> Tensor | None:
        """Return the indices of dead latents, (n,) int64, or None as long as no latent can be dead.

        Finding dead latents makes the host wait for the device.
        """
        if self._none_dead_for > 0:
            return None
        dead = (self.examples_since_fired >= self.dead_after).nonzero().squeeze(1)
        if not len(dead) and not is_initialized():  # with several processes, others may have more examples per step
            self._none_dead_for = self.dead_after - int(self.examples_since_fired.max())
        return dead

    def _count(self, fired: Tensor, n_examples: Tensor | int) -> None:
        """Update `examples_since_fired` after a step.

        Args:
            fired: In how many of this process's examples each latent fired, (K,).
            n_examples: Number of examples of all processes.
        """
        if is_initialized():
            all_reduce(fired)
        self.examples_since_fired.add_(n_examples).masked_fill_(fired > 0, 0)
        if isinstance(n_examples, int):
            self._none_dead_for -= n_examples
