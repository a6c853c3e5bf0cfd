"""Training of attention heads on skip feature-bigrams."""

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
    """Trains attention heads to look at the positions that hold a partner of one of the query's features.

    The loss of a context is the cross-entropy of the head's attention to the ideal, uniform over the t positions that
    match: log t at best. Validation also logs `accuracy`, the share of contexts in which the position attended to most
    matches, and `mass`, the attention on matching positions; `seed_accuracies` keeps every seed's.

    Args:
        n_features: Features, which follow the data.
        d_model: Dimensions D of the positions' vectors. W_E has gradients only in the directions that W_Q and W_K
            read, so that beyond 2 d_head some dimensions stay as they began.
        d_head: Dimensions of queries and keys.
        n_seeds: Independent heads, which follow the data.
        optimizer: Optimizer and learning-rate schedule; its learning rate is by default 1e-2.
        init_from: Weights to start from, of the same sizes: a zoo name, folder, Lightning .ckpt or
            hf:org/repo[@revision].

    Raises:
        ZooError: If a number is out of range.
    """

    batches = "feature contexts"  # type: ignore[assignment]
    net: SkipBigramHead
    seed_accuracies: Tensor  # of the last validation, (n_seeds,) float64

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
                raise ZooError(f"model.{name} is {expected}, and the data have {number}")

    def embedding_rows(self) -> dict[str, Tensor]:
        """Vectors of all seeds' features, (n_seeds * n_features, d_model)."""
        return {"W_E": self.net.W_E.flatten(0, 1)}

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Attention and scores of the query over the key positions, both (n_seeds, B, T)."""
        scores = at_least_float32(self.net.scores(self.per_seed(batch["x"])))  # small attention is 0 in float16
        return scores.softmax(2), scores

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Ideal attention, (n_seeds, B, T)."""
        return self.per_seed(batch["ideal"])

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Mean cross-entropy of every seed's attention to the ideal, (n_seeds,)."""
        log_pattern = y.clamp(min=torch.finfo(y.dtype).tiny).log()
        return -(self.targets(batch) * log_pattern).sum(2).mean(1)

    def judge(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate accuracy and mass, of attention and ideal attention (n_seeds, B, T)."""
        if n := y.shape[1]:
            matching = (target > 0).float()
            self.accuracy.update(matching.gather(2, y.argmax(2, keepdim=True)).mean((1, 2)), n)
            self.mass.update((y * matching).sum(2).mean(1), n)

    def log_judgement(self, split: str) -> None:
        """Log the means over seeds."""
        self.seed_accuracies = self.accuracy.compute()
        values = {"accuracy": self.seed_accuracies, "mass": self.mass.compute()}
        self.log_dict({f"{split}/{name}": value.mean().float() for name, value in values.items()})
        self.accuracy.reset()
        self.mass.reset()
