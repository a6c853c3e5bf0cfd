"""Datamodule that computes the activations of a language model during training."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from tokenizers import Tokenizer
from torch import Tensor

from zoo.checkpoints import weights_digest
from zoo.datamodules.activation_loaders import (
    ActivationEvaluationLoader,
    ActivationLoader,
    EvaluationContexts,
    SiteReader,
)
from zoo.datamodules.activation_store import ActivationStore
from zoo.datamodules.corpora import Corpus
from zoo.datamodules.null_activations import (
    MOMENT_VECTORS,
    GaussianVectors,
    NullEvaluationLoader,
    NullLoader,
    moments_of,
)
from zoo.datamodules.rows import SAMPLE_SIZE
from zoo.datamodules.text import EvaluationLoader, TextDataModule, TokenLoader
from zoo.datamodules.tokenizers import TokenizerSource, vocabulary_size
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.errors import ZooError
from zoo.interventions import hook_name
from zoo.paths import expanded
from zoo.protocols import LanguageModel, missing_in
from zoo.source import Source
from zoo.token_texts import read_tokenizer

EVALUATION_TOKENS = 2048  # tokens per evaluation batch on one rank; the logits of all of them fit into memory


class ActivationsDataModule(ZooDataModule):
    """Activations of a GPT-2 on a corpus: its residual stream at one layer.

    Activations are computed on the training device during training. The model reads batch_size / positions_per_context
    contexts at a time. Their positions are shuffled and used for several batches. A batch depends only on (seed, step,
    rank). Resuming is therefore exact, and the global batches do not depend on the number of ranks, up to rounding.

    Args:
        model: The GPT-2: name of a pretrained checkpoint (listed by `python -m zoo list`), folder, Lightning .ckpt, or
            hf:org/repo[/folder][@revision].
        layer: Layer before which the residual stream is read, counted from 0. The number of layers means after the last
            layer.
        step: Training step of the model, for a source that holds several. By default the last.
        corpus: Source of documents. By default Python's standard library, which needs no download.
        tokenizer: Source of the tokenizer. By default the tokenizer that is stored with the model.
        sequence_length: Number of tokens per context, T.
        batch_size: Activation vectors per batch over all devices together.
        positions_per_context: Number of vectors in a batch that come from the same context.
        skip_positions: Number of first positions of every context that are excluded. Many models use them as attention
            sinks.
        val_fraction: Share of documents held out for validation.
        test_fraction: Share of documents held out for testing.
        val_contexts: Number of contexts of the validation split, and of the test split, that are evaluated.
        seed: Seed for the order of the contexts and the choice of the positions.
        cache_dir: Folder of the token caches. Default $ZOO_CACHE or ~/.cache/superposition-zoo.
        activations_dir: Folder in which training activations are stored, and from which later runs read them. By
            default they are not stored.
        special_tokens: Whether the name of a special token in a document, such as <|endoftext|>, is read as that token.
            By default it is read as ordinary text.
        max_lost: Largest share of the text, in bytes, that the tokenizer may lose: text for which it has no token or
            only its unknown token. White space between words does not count.
        null_model: Null model whose random vectors replace the activations: "covariance-matched" draws Gaussian vectors
            with the mean and covariance of the activations, estimated in float64 from the first 131,072 (2^17) vectors
            of the training split in a fixed random order. Every batch has new vectors. Validation and test each have
            val_contexts * (sequence_length - skip_positions) vectors of their own. The vectors belong to no token, so
            callbacks that need tokens or text refuse them. By default the activations are used.

    Raises:
        ZooError: If the model, tokenizer or corpus cannot be read or they do not fit together, or if an argument is
            out of range.
    """

    batches = "vectors"
    true_atoms: Tensor | None = None

    def __init__(
        self,
        model: str,
        layer: int,
        step: int | None = None,
        corpus: Corpus | None = None,
        tokenizer: TokenizerSource | None = None,
        sequence_length: int = 128,
        batch_size: int = 4096,
        positions_per_context: int = 16,
        skip_positions: int = 1,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        val_contexts: int = 64,
        seed: int = 0,
        cache_dir: str | None = None,
        activations_dir: str | None = None,
        special_tokens: bool = False,
        max_lost: float = 0.01,
        null_model: Literal["covariance-matched"] | None = None,
    ) -> None:
        super().__init__()
        sizes = {"sequence_length": sequence_length, "batch_size": batch_size, "val_contexts": val_contexts}
        for name, value in {**sizes, "positions_per_context": positions_per_context}.items():
            if value < 1:
                raise ZooError(f"{name} is {value}; it must be at least 1")
        if batch_size % positions_per_context:
            raise ZooError(
                f"batch_size {batch_size} is not a multiple of positions_per_context {positions_per_context}"
            )
        if not 0 <= skip_positions <= sequence_length - positions_per_context:
            raise ZooError(
                f"skip_positions is {skip_positions}; it must be at least 0 and at most sequence_length - "
                f"positions_per_context, {sequence_length} - {positions_per_context}"
            )
        if null_model not in (None, "covariance-matched"):
            raise ZooError(f"null_model is {null_model!r}; it must be covariance-matched, or null for the activations")
        if null_model and activations_dir is not None:
            raise ZooError("activations_dir stores activations, and null_model replaces them; leave one of them out")
        self.null_model = null_model
        self.source, self.layer, self.batch_size, self.seed = model, layer, batch_size, seed
        self.positions_per_context, self.skip_positions = positions_per_context, skip_positions
        self.val_contexts, self.activations_dir = val_contexts, activations_dir
        source = Source.open(model)
        self.model = _gpt2(source, step, layer, sequence_length)
        self.d_in: int = self.model.W_E.shape[1]
        self.sites = [self.hook_name]
        self.stream = SiteReader(self.model, self.sites)
        self._own_tokenizer = _tokenizer_json(source, step, needed=tokenizer is None)
        n_contexts = batch_size // positions_per_context
        self.text = TextDataModule(
            corpus,
            tokenizer or _OwnTokenizer(str(self._own_tokenizer), model),
            sequence_length,
            n_contexts,
            val_fraction,
            test_fraction,
            seed,
            cache_dir=cache_dir,
            special_tokens=special_tokens,
            max_lost=max_lost,
        )
        if self.text.vocab_size > len(self.W_E):
            raise ZooError(
                f"the tokenizer has {self.text.vocab_size} tokens, more than the {len(self.W_E)} rows of W_E of {model}"
            )

    @property
    def hook_name(self) -> str:
        """TransformerLens name of this point in the residual stream."""
        last = self.layer == self.model.n_layers
        return hook_name(self.layer - 1, "resid_post") if last else hook_name(self.layer, "resid_pre")

    @property
    def W_E(self) -> Tensor:
        """The model's token embedding, (V, d_in)."""
        return self.model.W_E

    def prepare_data(self) -> None:
        """Tokenize the corpus, or check the token cache that an earlier run wrote."""
        self.text.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Open the token cache, and move the model to the training device."""
        cache, T, C = self.text.cache, self.text.context_length, self.text.batch_size
        need, have = (C + 2) * T, cache.meta["splits"]["train"]["tokens"]
        if have < need:
            raise ZooError(
                f"the training split has {have} tokens; a batch is taken from {C} contexts of {T} tokens, which need "
                f"{need}; lower batch_size or sequence_length, or raise positions_per_context"
            )
        self.text.setup()
        text = self._own_tokenizer
        own = read_tokenizer(text, self.source).get_vocab() if text else None
        if own not in (None, self.text.tokenizer.get_vocab()):
            raise ZooError(f"data.tokenizer is not the tokenizer that is stored with {self.source}; leave it out")
        if missing := len(self.W_E) - self.text.vocab_size:
            rank_zero_info(f"note: {missing} rows of W_E belong to no token")
        if not self.null_model:
            self.row_labels = self.text.row_labels + [f"row {i}" for i in range(self.text.vocab_size, len(self.W_E))]
            self.row_counts: Tensor | None = torch.cat([self.text.row_counts, torch.zeros(missing, dtype=torch.int64)])
        told = {
            "weights": weights_digest(self.model),
            "corpus": cache.corpus_fingerprint,
            "tokenizer": cache.source.fingerprint(),
            "special_tokens": cache.special_tokens,
            "fractions": [cache.val_fraction, cache.test_fraction],
            "layer": self.layer,
            "positions": [T, self.positions_per_context, self.skip_positions],
        }
        if self.null_model:
            told["null_model"] = self.null_model
        self.corpus_fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        self.model.to(self.trainer.strategy.root_device if self.trainer else "cpu")
        if self.null_model:
            contexts = self._contexts("train", MOMENT_VECTORS, 0, 1)  # more than are needed
            activations = ActivationEvaluationLoader(contexts, self.stream, self.skip_positions)
            self._null = GaussianVectors(*moments_of(activations), self.stream.device)

    def sample(self) -> Tensor:
        """Return training vectors for initialisation, (n <= 16384, d_in), the same on every rank.

        They are taken from the first global batch.
        """
        return self._train_loader(0, 1).sample(SAMPLE_SIZE)

    def train_dataloader(self) -> ActivationLoader | NullLoader:
        """Return a loader of activations at random positions of shuffled contexts, or of the null model's vectors."""
        rank, world_size = self._ranks()
        if self.text.batch_size % world_size:
            raise ZooError(
                f"batch_size {self.batch_size} with positions_per_context {self.positions_per_context} makes "
                f"{self.text.batch_size} contexts, which is not a multiple of the number of devices, {world_size}"
            )
        return self._train_loader(rank, world_size)

    def val_dataloader(self) -> ActivationEvaluationLoader | NullEvaluationLoader:
        """Return a loader of the activations of the validation contexts, without their first positions."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> ActivationEvaluationLoader | NullEvaluationLoader:
        """Return a loader of the activations of the test contexts, without their first positions."""
        return self._evaluation_loader("test")

    def evaluation_contexts(self, split: str = "val") -> EvaluationContexts:
        """Return this rank's contexts of a split, in batches `input_ids` and `targets` (B, T) on the model's device.

        Targets of -100 are padding. Every rank gets the same number of batches.
        """
        return self._contexts(split, self.val_contexts, *self._ranks())

    def _contexts(self, split: str, n_contexts: int, rank: int, world_size: int) -> EvaluationContexts:
        T = self.text.context_length
        batch_size = world_size * max(1, EVALUATION_TOKENS // T)
        windows = EvaluationLoader(self.text.cache.tokens(split), T, batch_size, rank, world_size)
        return EvaluationContexts(windows, n_contexts, self.stream.device)

    def _evaluation_loader(self, split: str) -> ActivationEvaluationLoader | NullEvaluationLoader:
        contexts = self.evaluation_contexts(split)
        if self.null_model:
            n_vectors = contexts.n_contexts * (self.text.context_length - self.skip_positions)
            return NullEvaluationLoader(self._null, n_vectors, split, *self._ranks())
        return ActivationEvaluationLoader(contexts, self.stream, self.skip_positions)

    def _train_loader(self, rank: int, world_size: int) -> ActivationLoader | NullLoader:
        T, C = self.text.context_length, self.text.batch_size
        contexts = TokenLoader(self.text.cache.tokens("train"), T, C, self.seed, rank, world_size)
        store = None
        if self.activations_dir is not None:
            fingerprint = json.dumps([self.corpus_fingerprint, self.seed, C])
            store = ActivationStore(expanded(self.activations_dir), fingerprint)
        loader = ActivationLoader(contexts, self.stream, self.positions_per_context, self.skip_positions, store)
        if self.null_model:
            return NullLoader(self._null, len(loader), self.batch_size, self.seed, rank, world_size)
        return loader

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class _OwnTokenizer(TokenizerSource):
    """The tokenizer that is stored with a checkpoint."""

    def __init__(self, tokenizer_json: str, source: str) -> None:
        self._json, self._tokenizer = tokenizer_json, read_tokenizer(tokenizer_json, source)
        self.vocab_size = vocabulary_size(self._tokenizer, f"the tokenizer of {source}")

    def tokenizer(self, training_texts: Iterable[str]) -> Tokenizer:
        return self._tokenizer

    def fingerprint(self) -> str:
        return json.dumps(json.loads(self._json), sort_keys=True)  # as `TokenizerFile` does for the same tokenizer


def _gpt2(source: Source, step: int | None, layer: int, sequence_length: int) -> Any:
    model: Any = source.load(step)
    if missing_in(model, LanguageModel):
        raise ZooError(f"{source.name} is a {type(model).__name__}; data.model must be a language model")
    n_layers, longest = model.n_layers, model.context_length
    if not 0 <= layer <= n_layers:
        raise ZooError(
            f"layer is {layer}; {source.name} has {n_layers} layers: 0 to {n_layers - 1} means before that layer, "
            f"{n_layers} means after the last layer"
        )
    if sequence_length > longest:
        raise ZooError(f"sequence_length is {sequence_length}, more than the {longest} positions of {source.name}")
    return model


def _tokenizer_json(source: Source, step: int | None, needed: bool) -> str | None:
    try:
        own = source.tokenizer_json(step)
    except ZooError:
        if needed:
            raise
        own = None
    if own is None and needed:
        raise ZooError(f"{source.name} has no tokenizer; set data.tokenizer to the tokenizer it was trained with")
    return own
