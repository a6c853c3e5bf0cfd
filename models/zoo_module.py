"""The base class of all LightningModules of this package: it saves, loads, resumes and checks a network."""

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
from zoo.source import Source
from zoo.token_texts import read_tokenizer

# The "zoo" part of the checkpoint that is being restored, otherwise None. When it is set, a module builds that
# checkpoint's network and computes no initial weights: the files that they come from may no longer exist.
RESTORED: ContextVar[dict[str, Any] | None] = ContextVar("restored", default=None)


class ZooModule(PreciseBuffers, L.LightningModule):
    """A thin LightningModule around `self.net`, the nn.Module that is trained, saved and loaded.

    `self.net.config` holds the plain arguments that rebuild `net`. `zoo.protocols` lists the attributes and methods of
    a module that callbacks and datamodules may use.
    """

    batches: Literal["tokens", "vectors", "feature vectors", "feature contexts"]  # see `zoo.protocols`
    net: Any  # an nn.Module with `config`
    provenance: dict[str, Any]  # how the run was started: config, command and seed

    def __init__(self) -> None:
        super().__init__()
        self.provenance = {}
        self.started_from: dict[str, Any] = {}  # provenance of the weights that training starts from, see `start_from`
        self._measured: dict[str, float] = {}  # values of metrics from before the run was resumed

    def setup(self, stage: str) -> None:
        """Before training, refuse precision 16-true and a network that could not be loaded from its checkpoint.

        Raises:
            ZooError: If the precision is 16-true, or `check_loadable` refuses the network.
        """
        precision = self.trainer.precision
        if stage == "fit":
            check_loadable(self.net)
        if precision == "16-true" and stage == "fit":
            raise ZooError(
                "trainer.precision 16-true cannot train: Adam divides by squares of gradients, and those of small "
                "gradients are 0 in float16; use 16-mixed, bf16-mixed or 32-true"
            )

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the matrices whose rows are tracked for drift: name -> (rows, D), sharing memory with parameters."""
        return {}

    def tokens_per_batch(self, batch: Any) -> int:
        """Number of tokens (or examples) in a training batch on this rank, for throughput; 0 if not counted."""
        return 0

    def save_plain_hyperparameters(self, **init_args: Any) -> None:
        """Save the arguments of `__init__` as plain values: checkpoints hold no objects and can rebuild the module."""
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
        """Return the plain values that a checkpoint stores next to the weights: what rebuilds `net`, and its origin."""
        data = datamodule(self.trainer)
        tokenizer = offered(data, "tokenizer")
        counts = offered(data, "row_counts") if offered(data, "batches") == "tokens" else None
        read = {"model": offered(data, "model_name"), "prepend_bos": offered(data, "prepend_bos")}
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
                **{key: value for key, value in read.items() if value is not None},
                "metrics": measured,
                "versions": {m.__name__: str(m.__version__) for m in (torch, L, zoo)},
            },
        }

    def measured(self) -> dict[str, float]:
        """Return the last value of every metric, including metrics last measured before the run was resumed."""
        return self._measured | {name: value.item() for name, value in self.trainer.callback_metrics.items()}

    def start_from(self, source: str | None) -> None:
        """Load the weights of another network of the same class and sizes into `net`.

        Does nothing if `source` is None, or if a checkpoint is being restored.

        Args:
            source: The name of a pretrained checkpoint, a folder, a Lightning .ckpt or hf:org/repo[@revision].

        Raises:
            ZooError: If there is no such checkpoint, or its class or its tensors differ from those of `net`.
        """
        if source is None or RESTORED.get() is not None:
            return
        opened = Source.open(source)
        weights, own = opened.load(), self.net.state_dict()
        ours, theirs = type(self.net).__name__, type(weights).__name__
        if ours != theirs:
            raise ZooError(f"init_from {source} is a {theirs}, but this run trains a {ours}")
        given = weights.state_dict()
        if odd := sorted(own.keys() ^ given.keys()):
            raise ZooError(f"init_from {source} is a {theirs} with other tensors: only one of the two has {odd[0]}")
        for name, tensor in given.items():
            if own[name].shape != tensor.shape:
                shapes = f"{list(tensor.shape)}; in this run its shape is {list(own[name].shape)}"
                raise ZooError(f"init_from {source} is a {theirs} in which {name} has shape {shapes}")
        self.net.load_state_dict(given)
        self.started_from = opened.provenance()

    def total_steps(self) -> float:
        """Number of optimizer steps in the run; infinite for a run without an end."""
        total = self.trainer.estimated_stepping_batches
        # Counting may have set up the loader before the state of a resumed run is restored; it is set up again later.
        self.trainer.fit_loop._combined_loader = None
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the values with which `zoo.load` rebuilds `net` without this module."""
        checkpoint["zoo"] = self.zoo_part()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained with another tokenizer and, if training continues, on another corpus.

        Raises:
            ZooError: If the tokenizer or the corpus of the datamodule differs from that of the checkpoint.
        """
        if self._trainer is None:  # load_from_checkpoint
            return
        part = checkpoint.get("zoo", {})
        self._measured = part.get("provenance", {}).get("metrics", {})
        self.check_tokenizer(part.get("tokenizer_json"), "the checkpoint")
        before = part.get("provenance", {}).get("corpus_fingerprint")
        now = offered(datamodule(self.trainer), "corpus_fingerprint")
        if self.trainer.state.fn == "fit" and None not in (before, now) and before != now:
            raise ZooError(
                "the corpus is not the one that the checkpoint was trained on; start a new run with init_from"
            )

    def check_tokenizer(self, tokenizer_json: str | None, owner: str) -> None:
        """Refuse a datamodule whose tokenizer differs from the one that weights were trained with.

        Args:
            tokenizer_json: The tokenizer of the weights, serialised; None if it is not known.
            owner: What the message calls the weights.

        Raises:
            ZooError: If both tokenizers are known and their vocabularies differ, or `tokenizer_json` cannot be read.
        """
        tokenizer = offered(datamodule(self.trainer), "tokenizer")
        if tokenizer_json is None or tokenizer is None:
            return
        theirs, ours = read_tokenizer(tokenizer_json, owner).get_vocab(), tokenizer.get_vocab()
        if theirs != ours:
            token = min(set(theirs.items()) - set(ours.items()), key=lambda item: item[1], default=("", 0))
            raise ZooError(
                f"the tokenizer of the data is not that of {owner}, in which token {token[1]} is {token[0]!r}; use the "
                "tokenizer.json that `python -m zoo export` writes, with TokenizerFile"
            )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients. Unlike Lightning's own method, it also works with a fused optimizer in mixed precision."""
        if gradient_clip_algorithm == "value" and gradient_clip_val:
            nn.utils.clip_grad_value_(self.net.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            self.clip_by_norm(gradient_clip_val)

    def clip_by_norm(self, largest: float) -> None:
        """Clip the gradient by its global norm; in steps that log, also log the norm before clipping."""
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
