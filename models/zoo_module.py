"""The base of the zoo's LightningModules: saving, loading, resuming and the checks before training."""

import math
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

import zoo
from zoo.checkpoints import check_loadable, named_class
from zoo.errors import ZooError
from zoo.precision import PreciseBuffers
from zoo.protocols import datamodule, offered
from zoo.source import load
from zoo.token_texts import read_tokenizer

# The "zoo" part of the checkpoint that is about to be restored. A module then builds that checkpoint's network and does
# not compute initial weights, whose source may no longer exist.
RESTORED: ContextVar[dict[str, Any] | None] = ContextVar("restored", default=None)


class ZooModule(PreciseBuffers, L.LightningModule):
    """A thin LightningModule around `self.net`, the nn.Module that is trained, saved and loaded.

    `self.net.config` holds the plain arguments that rebuild `net`. What callbacks and datamodules may ask of a module
    is listed in `zoo.protocols`.
    """

    batches: Literal["tokens", "vectors", "feature vectors", "feature contexts"]  # see `zoo.protocols`
    net: Any  # an nn.Module with `config`
    provenance: dict[str, Any]  # how the run was started: its config, command and seed

    def __init__(self) -> None:
        super().__init__()
        self.provenance = {}
        self._measured: dict[str, float] = {}  # before a resume

    def setup(self, stage: str) -> None:
        """Refuse a precision that would give wrong numbers and, before training, a network that could not be loaded.

        Raises:
            ZooError: If the precision or the network is one of these.
        """
        precision = self.trainer.precision
        if stage == "fit":
            check_loadable(self.net)
        if precision == "16-true" and stage == "fit":
            raise ZooError(
                "trainer.precision 16-true cannot train: the squares of small gradients, which Adam divides by, are 0 "
                "in float16; use 16-mixed, bf16-mixed or 32-true"
            )

    def embedding_rows(self) -> dict[str, Tensor]:
        """Matrices whose rows are tracked for drift, name -> (rows, D), sharing memory with the parameters."""
        return {}

    def tokens_per_batch(self, batch: Any) -> int:
        """Tokens (or examples) that a training batch holds on this rank, for throughput; 0 if not counted."""
        return 0

    def save_plain_hyperparameters(self, **init_args: Any) -> None:
        """Record `__init__` arguments as plain values, so that checkpoints hold no objects and rebuild the module."""
        cls = type(self)
        self.save_hyperparameters(
            {
                "_class_path": f"{cls.__module__}.{cls.__qualname__}",
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
                **{name: _plain(value) for name, value in init_args.items()},
            },
            logger=False,
        )

    def zoo_part(self) -> dict[str, Any]:
        """Plain values that a checkpoint holds in addition to the weights of `net`: what rebuilds it and its origin."""
        data = datamodule(self.trainer)
        tokenizer = offered(data, "tokenizer")
        counts = offered(data, "row_counts") if offered(data, "batches") == "tokens" else None
        measured = {name: value for name, value in self.measured().items() if math.isfinite(value)}
        return {
            **named_class(self.net),
            "init_args": dict(self.net.config),
            "step": self.global_step,
            "tokenizer_json": tokenizer.to_str() if tokenizer else None,
            "token_counts": counts.tolist() if counts is not None else None,
            "provenance": {
                **self.provenance,
                "corpus_fingerprint": offered(data, "corpus_fingerprint"),
                "hook_name": offered(data, "hook_name"),
                "metrics": measured,
                "versions": {m.__name__: str(m.__version__) for m in (torch, L, zoo)},
            },
        }

    def measured(self) -> dict[str, float]:
        """The last value of every metric, also of those that were last measured before a resume."""
        return self._measured | {name: value.item() for name, value in self.trainer.callback_metrics.items()}

    def start_from(self, source: str | None) -> None:
        """Give `net` the weights of another run's network of the same class and sizes; nothing if None or restored.

        Args:
            source: A zoo name, folder, Lightning .ckpt or hf:org/repo[@revision].

        Raises:
            ZooError: If there is no such checkpoint or it does not fit.
        """
        if source is None or RESTORED.get() is not None:
            return
        weights, own = load(source), self.net.state_dict()
        ours, theirs = type(self.net).__name__, type(weights).__name__
        if ours != theirs:
            raise ZooError(f"init_from {source} is a {theirs}, and this run's network a {ours}")
        given = weights.state_dict()
        if odd := sorted(own.keys() ^ given.keys()):
            raise ZooError(f"init_from {source} is a {theirs} of another shape: only one of the two has {odd[0]}")
        for name, tensor in given.items():
            if own[name].shape != tensor.shape:
                shapes = f"{list(tensor.shape)}, and this run's is {list(own[name].shape)}"
                raise ZooError(f"init_from {source} is a {theirs} whose {name} is {shapes}")
        self.net.load_state_dict(given)

    def total_steps(self) -> float:
        """Optimizer steps in the run; infinite for a run without an end."""
        total = self.trainer.estimated_stepping_batches
        # Counting may have set up the loader before a resumed run's state could reach it; it is set up again later.
        self.trainer.fit_loop._combined_loader = None
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds `net` without this module."""
        checkpoint["zoo"] = self.zoo_part()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained with another tokenizer or, to go on training, on other text.

        Raises:
            ZooError: If the datamodule's tokenizer or corpus is not the checkpoint's.
        """
        if self._trainer is None:  # load_from_checkpoint
            return
        part = checkpoint.get("zoo", {})
        self._measured = part.get("provenance", {}).get("metrics", {})
        self.check_tokenizer(part.get("tokenizer_json"), "the checkpoint")
        before = part.get("provenance", {}).get("corpus_fingerprint")
        now = offered(datamodule(self.trainer), "corpus_fingerprint")
        if self.trainer.state.fn == "fit" and None not in (before, now) and before != now:
            raise ZooError("the corpus is not the one the checkpoint was trained on; start a new run with init_from")

    def check_tokenizer(self, tokenizer_json: str | None, owner: str) -> None:
        """Refuse a datamodule whose tokenizer is not the one that some weights were trained with.

        Raises:
            ZooError: If both are known and their vocabularies differ, or that of the weights cannot be read.
        """
        tokenizer = offered(datamodule(self.trainer), "tokenizer")
        if tokenizer_json is None or tokenizer is None:
            return
        theirs, ours = read_tokenizer(tokenizer_json, owner).get_vocab(), tokenizer.get_vocab()
        if theirs != ours:
            token = min(set(theirs.items()) - set(ours.items()), key=lambda item: item[1], default=("", 0))
            raise ZooError(
                f"the data's tokenizer is not that of {owner} (token {token[1]} was {token[0]!r} there); use the "
                "tokenizer.json that `python -m zoo export` writes, with TokenizerFile"
            )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients, also under mixed precision with a fused optimizer, where Lightning raises an error."""
        if gradient_clip_algorithm == "value" and gradient_clip_val:
            nn.utils.clip_grad_value_(self.net.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            self.clip_by_norm(gradient_clip_val)

    def clip_by_norm(self, largest: float) -> None:
        """Clip the gradient by its global norm; in steps that log, log the norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), largest)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/grad_norm", norm)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    cls = type(value)
    if isinstance(value, nn.Module):
        check_loadable(value)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": _plain(value.config)}
    arguments = {k: _plain(v) for k, v in vars(value).items() if k in cls.__init__.__code__.co_varnames}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}
