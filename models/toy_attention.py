"""The LightningModule that trains attention heads on skip bigrams of features."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import SeedMeans
from zoo.models.optimizers import AdamLinear
from zoo.models.toy.skip_bigram_head import SkipBigramHead
from zoo.models.toy_module import ToyModule
from zoo.precision import at_least_float32
from zoo.protocols import datamodule, offered


class SkipBigramAttention(ToyModule):
    """Trains attention heads to attend to positions that hold a partner of one of the features of the query.

    The ideal attention is uniform over the t matching positions. The loss of a context is the cross-entropy of the
    head's attention relative to the ideal, which is at least log t. Validation also logs two means over contexts and
    seeds: `accuracy`, the share of contexts in which the position with the largest attention matches, and `mass`, the
    attention on all matching positions. `seed_accuracies` has the accuracy of every seed.

    Args:
        n_features: Number of features. On the command line it follows the data.
        d_model: Number of dimensions D of the positions' vectors. W_E has gradients only in the directions that W_Q and
            W_K read, at most 2 d_head. With a larger D, some directions of W_E keep their initial values.
        d_head: Number of dimensions of queries and keys.
        n_seeds: Number of independent heads. On the command line it follows the data.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range.
    """

    batches = "feature contexts"  # type: ignore[assignment]
    net: SkipBigramHead
    seed_accuracies: Tensor  # accuracies in the last validation, (n_seeds,) float64

    def __init__(
        self,
        n_features: int = 0,
        d_model: int = 16,
        d_head: int = 8,
        n_seeds: int = 1,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        sizes = {"n_features": n_features, "d_model": d_model, "d_head": d_head, "n_seeds": n_seeds}
        self.save_plain_hyperparameters(**sizes, optimizer=optimizer, init_from=init_from)
        self.net = SkipBigramHead(n_features, d_model, d_head, n_seeds)
        self.start_from(init_from)
        self.accuracy, self.mass = SeedMeans(n_seeds), SeedMeans(n_seeds)
        self.seed_accuracies = torch.full((n_seeds,), torch.nan, dtype=torch.float64)

    def setup(self, stage: str) -> None:
        """Refuse data with another number of features or seeds."""
        super().setup(stage)
        for name in ("n_features", "n_seeds"):
            number, expected = offered(datamodule(self.trainer), name), self.net.config[name]
            if number not in (None, expected):
                raise ZooError(f"model.{name} is {expected}, but the data have {number}")

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the vectors of the features of all seeds, (n_seeds * n_features, d_model)."""
        return {"W_E": self.net.W_E.flatten(0, 1)}

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the attention and the scores of the query over the key positions, (n_seeds, B, T) each."""
        scores = at_least_float32(self.net.scores(self.per_seed(batch["x"])))  # small attention is 0 in float16
        return scores.softmax(2), scores

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the ideal attention, (n_seeds, B, T)."""
        return self.per_seed(batch["ideal"])

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the mean cross-entropy of every seed's attention relative to the ideal, (n_seeds,)."""
        log_pattern = y.clamp(min=torch.finfo(y.dtype).tiny).log()
        return -(self.targets(batch) * log_pattern).sum(2).mean(1)

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate accuracy and mass, from the attention and the ideal attention, (n_seeds, B, T) each."""
        if n := y.shape[1]:
            matching = (target > 0).float()
            self.accuracy.update(matching.gather(2, y.argmax(2, keepdim=True)).mean((1, 2)), n)
            self.mass.update((y * matching).sum(2).mean(1), n)

    def log_own_metrics(self, split: str) -> None:
        """Log accuracy and mass, averaged over seeds, and reset them."""
        self.seed_accuracies = self.accuracy.compute()
        values = {"accuracy": self.seed_accuracies, "mass": self.mass.compute()}
        self.log_dict({f"{split}/{name}": value.mean().float() for name, value in values.items()})
        self.accuracy.reset()
        self.mass.reset()
