"""The LightningModule that trains a GPT-2 with all, some or none of its embedding rows frozen."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from zoo.errors import ZooError
from zoo.metrics import TokenLoss
from zoo.models.embeddings import Embedding, GaussianEmbedding, row_mask
from zoo.models.gpt2 import GPT2
from zoo.models.optimizers import AdamWCosine
from zoo.models.unembedded_loss import LEFT_OUT
from zoo.models.zoo_module import RESTORED, ZooModule
from zoo.precision import at_least_float32
from zoo.protocols import datamodule, offered
from zoo.source import Source


class FrozenEmbeddingGPT2(ZooModule):
    """Trains a GPT-2 to predict the next token. By default, its token embedding is random and not trained.

    Minimises the mean cross-entropy in nats per token. Batches are dicts with `input_ids` and `targets`, both
    (B, T) int64. Targets of -100 do not count.

    Args:
        vocab_size: Number of rows V of the embedding, at least one per token. On the command line it follows the
            tokenizer unless it is given. With `init_from`, the network has all rows of the checkpoint, at least V.
        context_length: Number of tokens T of the longest sequence. On the command line it follows the data. With
            `init_from`, the network has all positions of the checkpoint, at least T.
        d_model: Width D of the residual stream. Default 256, or that of `init_from`.
        n_layers: Number of layers. Default 4, or that of `init_from`.
        n_heads: Number of attention heads per layer. Default 4, or that of `init_from`.
        dropout: Dropout probability. Default 0, also with `init_from`.
        tied: Whether the unembedding is the same matrix as the embedding. If it is, frozen embedding rows are frozen in
            the output layer as well. Default true, or that of `init_from`.
        embedding: Initial embedding rows. By default Gaussian with standard deviation 0.02, or those of `init_from`.
        frozen_rows: Embedding rows that are not trained: "all", "none", token ids, or ranges such as "0-255,300".
        trained_rows: Embedding rows that are trained; all other rows are frozen. Use it instead of `frozen_rows`, in
            the same format.
        init_from: Checkpoint whose weights training starts from: the name of a pretrained checkpoint, a folder, a
            Lightning .ckpt or hf:org/repo[@revision]. None for random weights.
        optimizer: Optimizer and learning-rate schedule.
        compile: Whether the network is compiled with torch.compile.
        max_new_tokens: Number of tokens that `predict` adds to a prompt.
        temperature: Sampling temperature of `predict`; 0 to take the most likely token.

    Raises:
        ZooError: If sizes contradict each other or `init_from`, or if the initial embedding cannot be made.
    """

    batches = "tokens"
    net: GPT2
    frozen_ids: Tensor  # (frozen rows,) int64

    def __init__(
        self,
        vocab_size: int = 4096,
        context_length: int = 256,
        d_model: int | None = None,
        n_layers: int | None = None,
        n_heads: int | None = None,
        dropout: float = 0.0,
        tied: bool | None = None,
        embedding: Embedding | None = None,
        frozen_rows: str | list[int] = "all",
        trained_rows: str | list[int] | None = None,
        init_from: str | None = None,
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008 - a default that --help can show, never mutated
        compile: bool = False,
        max_new_tokens: int = 64,
        temperature: float = 0.8,
    ) -> None:
        super().__init__()
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.save_plain_hyperparameters(**arguments)
        sizes = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "tied": tied}
        if (restored := RESTORED.get()) is not None:
            self.net = _like(restored, "the checkpoint", vocab_size, context_length, dropout, sizes)
            embedding = None
        elif init_from is None:
            defaults = {"d_model": 256, "n_layers": 4, "n_heads": 4, "tied": True}
            chosen = {k: defaults[k] if v is None else v for k, v in sizes.items()}
            self.net = GPT2(vocab_size, context_length, dropout=dropout, **chosen)  # type: ignore[arg-type]
            embedding = embedding or GaussianEmbedding()
        else:
            source: Any = Source.open(init_from).load()
            saved = {"class": type(source).__name__, "init_args": source.config}
            self.net = _like(saved, f"init_from {init_from}", vocab_size, context_length, dropout, sizes)
            self.net.load_state_dict(source.state_dict())
            if embedding is not None:
                kind = type(embedding).__name__
                rank_zero_info(
                    f"note: a {kind} replaces the embedding of init_from; --model.embedding null keeps the embedding "
                    "of init_from"
                )
        if embedding is not None:
            with torch.no_grad():
                self.net.W_E.copy_(embedding.rows(*self.net.W_E.shape))
        if (reached := getattr(embedding, "reached", None)) is not None:
            rank_zero_info(f"low-coherence embedding: the largest |cosine| between two rows is {reached:.4f}")

        if temperature < 0 or max_new_tokens < 1:
            raise ZooError(
                f"temperature is {temperature} (it must be at least 0), max_new_tokens is {max_new_tokens} (it must be "
                "at least 1)"
            )
        if trained_rows is not None and frozen_rows not in ("all", None):
            raise ZooError("give frozen_rows or trained_rows, not both")
        n_rows = len(self.net.W_E)
        frozen = row_mask(frozen_rows, n_rows) if trained_rows is None else ~row_mask(trained_rows, n_rows)
        self.register_buffer("frozen_ids", frozen.nonzero().squeeze(1), persistent=False)
        self.net.W_E.requires_grad_(not frozen.all())
        self.partly_frozen = bool(frozen.any() and not frozen.all())
        if self.partly_frozen:
            self.net.W_E.register_hook(lambda grad: grad.index_fill(0, self.frozen_ids, 0.0))

        self.optimizer, self.compile_net = optimizer, compile
        self.init_from = None if restored else init_from
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.val_loss, self.test_loss = TokenLoss(), TokenLoss()

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return `W_E` (V, D) and, if it is not tied to `W_E`, `W_U` (V, D)."""
        return {"W_E": self.net.W_E} if self.net.tied else {"W_E": self.net.W_E, "W_U": self.net.W_U}

    def tokens_per_batch(self, batch: dict[str, Tensor]) -> int:
        """Number of tokens in a batch on this rank."""
        return batch["targets"].numel()

    def setup(self, stage: str) -> None:
        """Log the number of rows without a token; before training, check the tokenizer against that of `init_from`."""
        super().setup(stage)
        n_tokens, n_rows = self._n_tokens(), len(self.net.W_E)
        if n_tokens is not None and n_tokens < n_rows:
            rank_zero_info(f"note: {n_rows - n_tokens} rows of W_E belong to no token")
        if stage == "fit" and self.init_from is not None:
            self.check_tokenizer(Source.open(self.init_from).tokenizer_json(), f"init_from {self.init_from}")

    def configure_model(self) -> None:
        """Compile the network in place, which does not change the names in the state dict."""
        if self.compile_net:
            self.net.compile()

    def configure_optimizers(self) -> Any:
        """Return AdamW; token and position embeddings use `embedding_weight_decay`, other matrices `weight_decay`."""
        embeddings = {"transformer.wte.weight", "transformer.wpe.weight"}
        return self.optimizer.configure(self.net, embeddings, self.total_steps())

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer | LightningOptimizer, optimizer_closure: Any = None
    ) -> None:
        """Take a step, and then restore the frozen rows bit for bit, so that weight decay does not change them."""
        if not self.partly_frozen:
            return super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        rows = self.net.W_E.detach().index_select(0, self.frozen_ids)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        with torch.no_grad():
            self.net.W_E.index_copy_(0, self.frozen_ids, rows)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of the next token, in nats."""
        nats, n_tokens = self._nats(batch)
        loss = nats / n_tokens.clamp(min=1)
        self.log("train/loss", loss)
        return loss

    def mean_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy per token that counts, (); see `zoo.protocols.HasMeanLoss`.

        The number is that of `training_step`. All logits are held in memory, because `torch.func` cannot batch the
        operation that `training_step` uses.

        Raises:
            ZooError: If some rows of the embedding are frozen and others are not.
        """
        if self.partly_frozen:
            raise ZooError("the loss has no gradient that keeps some rows of W_E frozen; freeze all rows, or none")
        net, targets = self.net, batch["targets"]
        logits = net.unembed(net.blocks(net.embed(batch["input_ids"])))  # (B, T, V)
        return F.cross_entropy(at_least_float32(logits).flatten(0, 1), targets.flatten(), ignore_index=LEFT_OUT)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Accumulate the loss. All tokens on all ranks have equal weight."""
        self._evaluate(batch, self.val_loss)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The same as `validation_step`, on the test split."""
        self._evaluate(batch, self.test_loss)

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and, if batches have `target_bytes`, bits per byte of text, over all ranks."""
        self._log_losses("val", self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and, if batches have `target_bytes`, bits per byte of text, over all ranks."""
        self._log_losses("test", self.test_loss)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Continue the prompts, (B, T) -> (B, T + max_new_tokens)."""
        return self.net.generate(batch["input_ids"], self.max_new_tokens, self.temperature, n_tokens=self._n_tokens())

    def _n_tokens(self) -> int | None:
        """Number of tokens of the data, or None if the datamodule has no `vocab_size`."""
        return offered(datamodule(self.trainer), "vocab_size")

    def _nats(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy summed over tokens, in nats, and the number of tokens that count."""
        targets = batch["targets"]
        return self.net(batch["input_ids"], targets), (targets != LEFT_OUT).sum()

    def _evaluate(self, batch: dict[str, Tensor], metric: TokenLoss) -> None:
        n_bytes = batch.get("target_bytes")
        metric.update(*self._nats(batch), None if n_bytes is None else n_bytes.sum())

    def _log_losses(self, stage: str, metric: TokenLoss) -> None:
        values = metric.compute()
        if values["bits_per_byte"].isinf():
            del values["bits_per_byte"]
        metric.reset()
        self.log_dict({f"{stage}/{name}": value.float() for name, value in values.items()})


def _like(
    saved: dict[str, Any],
    owner: str,
    vocab_size: int,
    context_length: int,
    dropout: float,
    sizes: dict[str, int | bool | None],
) -> GPT2:
    """Return a new GPT2 with the sizes of a saved one, which must agree with `sizes`.

    Its rows and positions may be more than `vocab_size` and `context_length`, but not fewer.
    """
    if saved["class"] != "GPT2":
        raise ZooError(f"{owner} holds a {saved['class']}, not a GPT2")
    config = saved["init_args"]
    for name, value in sizes.items():
        if value is not None and value != config[name]:
            raise ZooError(f"{name} is {value}, but {owner} has {config[name]}")
    if vocab_size > config["vocab_size"]:
        raise ZooError(f"vocab_size is {vocab_size}, more than the {config['vocab_size']} rows of {owner}")
    if context_length > config["context_length"]:
        raise ZooError(
            f"context_length is {context_length}, more than the {config['context_length']} positions of {owner}"
        )
    return GPT2(**{**config, "dropout": dropout})
