"""Datamodule that computes the activations of a language model during training."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
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
from zoo.datamodules.own_tokenizer import OwnTokenizer, stored_tokenizer, tokenizer_config, tokens_before_text
from zoo.datamodules.rows import SAMPLE_SIZE
from zoo.datamodules.text import EvaluationLoader, TextDataModule, TokenLoader
from zoo.datamodules.tokenizers import TokenizerSource
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.errors import ZooError
from zoo.interventions import check_sites, hook_name
from zoo.network import Network
from zoo.paths import expanded
from zoo.protocols import LanguageModel, missing_in, offered
from zoo.source import Source
from zoo.token_texts import read_tokenizer

EVALUATION_TOKENS = 2048  # largest number of tokens per evaluation batch on one rank
EVALUATION_LOGITS = 2**27  # largest number of their logits, which must fit into memory several times
Precision = Literal["float32", "bfloat16", "float16", "stored"]


class ActivationsDataModule(ZooDataModule):
    """Activations of a language model on a corpus, at one or several sites of its layers.

    Activations are computed during training. The model reads batch_size / positions_per_context contexts at a time.
    Their positions are shuffled and used for several batches. A batch depends only on (seed, step, rank). Resuming is
    therefore exact, and the global batches do not depend on the number of ranks, up to rounding. Batches are float32
    and on the training device, whatever the precision and the device of the language model.

    If the model's tokenizer puts a token before every text, such as BOS of Llama and Gemma, then every context begins
    with it. It counts among the `sequence_length` tokens of the context, and among `skip_positions`. The zoo's own
    models are trained without such a token, so their contexts begin with it only if `prepend_bos` is true.

    With several layers or sites, the model runs once, and the activations are concatenated along the last axis. The
    order is that of the layers and, within a layer, that of the sites. `sites` lists their full names.

    Args:
        model: The language model: name of a pretrained checkpoint (listed by `python -m zoo list`), folder, Lightning
            .ckpt, or hf:org/repo[/folder][@revision].
        layer: Layer whose activations are read, counted from 0, or a list of layers. The number of layers, with the
            site resid_pre, means the residual stream after the last layer.
        step: Training step of the model, for a source that holds several. By default the last.
        corpus: Source of documents. By default Python's standard library, which needs no download.
        tokenizer: Source of the tokenizer. By default the tokenizer that is stored with the model.
        sequence_length: Number of tokens per context, T, BOS included.
        batch_size: Activation vectors per batch over all devices together.
        positions_per_context: Number of vectors in a batch that come from the same context.
        skip_positions: Number of first positions of every context that are excluded, BOS included. Many models use
            them as attention sinks.
        val_fraction: Share of documents held out for validation.
        test_fraction: Share of documents held out for testing.
        val_contexts: Number of contexts of the validation split, and of the test split, that are evaluated.
        seed: Seed for the order of the contexts and the choice of the positions.
        cache_dir: Folder of the token caches. Default $ZOO_CACHE or ~/.cache/superposition-zoo.
        activations_dir: Folder in which training activations are stored, in the precision of the language model, and
            from which later runs read them. By default they are not stored.
        special_tokens: Whether the name of a special token in a document, such as <|endoftext|>, is read as that token.
            By default it is read as ordinary text.
        max_lost: Largest share of the text, in bytes, that the tokenizer may lose: text for which it has no token or
            only its unknown token. White space between words does not count.
        site: Site of the layer that is read: resid_pre, attn_out, resid_mid, mlp_out, resid_post or another one that
            the model has, see `zoo.interventions`; or a list of sites.
        prepend_bos: Whether every context begins with the tokens that the model's tokenizer puts before a text, or with
            its BOS token if it puts none. By default contexts begin with the tokens that it puts before a text, or with
            BOS if it puts none but its `tokenizer_config.json` says `add_bos_token`.
        model_dtype: Precision in which the language model computes. "stored" is the precision of its files, and float32
            for a GPT-2.
        model_device: Device of the language model, such as "cpu" or "cuda:1". By default the training device.
        trust_remote_code: Whether Python code that comes with a Hugging Face model may be run.
        skip_special_tokens: Whether positions of the tokenizer's special tokens, such as <|endoftext|>, are excluded.
            Many models have outliers there, which can hold most of the variance. These positions of a training context
            are used only if it has too few others.
        null_model: Null model whose random vectors replace the activations: "covariance-matched" draws Gaussian vectors
            with the mean and covariance of the activations, estimated in float64 from the first 131,072 (2^17) vectors
            of the training split in a fixed random order. Every training batch has new vectors. Validation and test
            each have vectors of their own, about as many as there are activations in their contexts. The vectors belong
            to no token, so callbacks that need tokens or text refuse them. By default the activations are used.

    Raises:
        ZooError: If the model, tokenizer or corpus cannot be read or they do not fit together, or if an argument is
            out of range.
    """

    batches = "vectors"
    true_atoms: Tensor | None = None

    def __init__(
        self,
        model: str,
        layer: int | list[int],
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
        site: str | list[str] = "resid_pre",
        prepend_bos: bool | None = None,
        model_dtype: Precision = "float32",
        model_device: str | None = None,
        trust_remote_code: bool = False,
        skip_special_tokens: bool = False,
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
        self.model_name, self.layer, self.site, self.batch_size, self.seed = model, layer, site, batch_size, seed
        self.positions_per_context, self.skip_positions = positions_per_context, skip_positions
        self.skip_special_tokens, self.skip_tokens = skip_special_tokens, list[int]()
        self.val_contexts, self.activations_dir, self.model_device = val_contexts, activations_dir, model_device
        self._device = torch.device("cpu")  # of the batches
        if model_device is not None:
            _check_device(model_device)
        source = Source.open(model)
        self.model = _language_model(source, step, model_dtype, sequence_length, trust_remote_code)
        self.sites = _site_names(self.model, layer, site, source.name)
        self.stream = SiteReader(self.model, self.sites)
        self.d_in: int = self.stream(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
        self._own_tokenizer = stored_tokenizer(source, step, needed=tokenizer is None)
        config = tokenizer_config(source, step)
        own = None if self._own_tokenizer is None else OwnTokenizer(self._own_tokenizer, model, config)
        self.bos = tokens_before_text(source, step, own or tokenizer, config, prepend_bos)
        if len(self.bos) >= sequence_length:
            n_bos = len(self.bos)
            raise ZooError(f"sequence_length is {sequence_length}; a context has {n_bos} BOS and at least 1 token more")
        n_contexts = batch_size // positions_per_context
        self.text = TextDataModule(
            corpus,
            tokenizer or own,
            sequence_length - len(self.bos),
            n_contexts,
            val_fraction,
            test_fraction,
            seed,
            cache_dir=cache_dir,
            special_tokens=special_tokens,
            max_lost=max_lost,
        )
        if self.text.vocab_size > (n_rows := len(self.model.W_E)):
            n_tokens = self.text.vocab_size
            raise ZooError(f"the tokenizer has {n_tokens} tokens, more than the {n_rows} rows of W_E of {model}")

    @property
    def hook_name(self) -> str | None:
        """TransformerLens name of the site, None if there are several."""
        return self.sites[0] if len(self.sites) == 1 else None

    @property
    def prepend_bos(self) -> bool:
        """Whether every context begins with BOS."""
        return bool(self.bos)

    @property
    def W_E(self) -> Tensor | None:
        """The model's token embedding, (V, d_in), or None if its rows are not as long as the vectors."""
        return self.model.W_E if self.model.W_E.shape[1] == self.d_in else None

    def prepare_data(self) -> None:
        """Tokenize the corpus, or check the token cache that an earlier run wrote."""
        self.text.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Open the token cache, and move the model to its device."""
        cache, T, C = self.text.cache, self.text.context_length, self.text.batch_size
        need, have = (C + 2) * T, cache.meta["splits"]["train"]["tokens"]
        if have < need:
            raise ZooError(
                f"the training split has {have} tokens; a batch is taken from {C} contexts of {T} tokens, which need "
                f"{need}; lower batch_size or sequence_length, or raise positions_per_context"
            )
        self.text.setup()
        if self.skip_special_tokens:
            added = self.text.tokenizer.get_added_tokens_decoder()
            self.skip_tokens = sorted(token_id for token_id, token in added.items() if token.special)
        text = self._own_tokenizer
        own = read_tokenizer(text, self.model_name).get_vocab() if text else None
        if own not in (None, self.text.tokenizer.get_vocab()):
            raise ZooError(f"data.tokenizer is not the tokenizer that is stored with {self.model_name}; leave it out")
        n_rows, width = self.model.W_E.shape
        if missing := n_rows - self.text.vocab_size:
            rank_zero_info(f"note: {missing} rows of W_E belong to no token")
        if width != self.d_in:
            rank_zero_info(
                f"note: rows of W_E have {width} dimensions and vectors {self.d_in}, so no atom is compared with them"
            )
        if not self.null_model:
            self.row_labels = self.text.row_labels + [f"row {i}" for i in range(self.text.vocab_size, n_rows)]
            self.row_counts: Tensor | None = torch.cat([self.text.row_counts, torch.zeros(missing, dtype=torch.int64)])
        told = {
            "weights": weights_digest(self.model),
            "corpus": cache.corpus_fingerprint,
            "tokenizer": cache.source.fingerprint(),
            "special_tokens": cache.special_tokens,
            "fractions": [cache.val_fraction, cache.test_fraction],
            "layer": self.layer if self.site == "resid_pre" and isinstance(self.layer, int) else self.sites,
            "positions": [T, self.positions_per_context, self.skip_positions],
            **({"bos": self.bos} if self.bos else {}),
            **({"skip_tokens": self.skip_tokens} if self.skip_tokens else {}),
        }
        if not isinstance(self.model, Network):  # what a network of the zoo computes follows from its weights
            told["config"] = offered(self.model, "config")
        if self.null_model:
            told["null_model"] = self.null_model
        self.corpus_fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        self._device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if self.model_device is None:
            self.model.to(self._device)
        else:
            self.model.to(_check_device(self.model_device))
        if self.null_model:
            contexts = self._contexts("train", MOMENT_VECTORS, 0, 1)  # more than are needed
            activations = ActivationEvaluationLoader(contexts, self.stream)
            self._null = GaussianVectors(*moments_of(activations), self._device)

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
        """Return a loader of the activations of the validation contexts, without the excluded positions."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> ActivationEvaluationLoader | NullEvaluationLoader:
        """Return a loader of the activations of the test contexts, without the excluded positions."""
        return self._evaluation_loader("test")

    def evaluation_contexts(self, split: str = "val") -> EvaluationContexts:
        """Return this rank's contexts of a split, on the training device.

        Batches have `input_ids`, `targets` and `counted`, (B, T). Targets of -100 do not count, such as padding.
        `counted` tells whether the activations at a position are among the vectors. Every rank gets the same number of
        batches.
        """
        return self._contexts(split, self.val_contexts, *self._ranks())

    def _contexts(self, split: str, n_contexts: int, rank: int, world_size: int) -> EvaluationContexts:
        T, V = self.text.context_length, len(self.model.W_E)
        batch_size = world_size * max(1, min(EVALUATION_TOKENS, EVALUATION_LOGITS // V) // (T + len(self.bos)))
        windows = EvaluationLoader(self.text.cache.tokens(split), T, batch_size, rank, world_size)
        skipped = (self.skip_positions, self.skip_tokens)
        return EvaluationContexts(windows, n_contexts, self._device, self.bos, *skipped)

    def _evaluation_loader(self, split: str) -> ActivationEvaluationLoader | NullEvaluationLoader:
        contexts = self.evaluation_contexts(split)
        if self.null_model:
            n_vectors = contexts.n_contexts * (len(self.bos) + self.text.context_length - self.skip_positions)
            return NullEvaluationLoader(self._null, n_vectors, split, *self._ranks())
        return ActivationEvaluationLoader(contexts, self.stream)

    def _train_loader(self, rank: int, world_size: int) -> ActivationLoader | NullLoader:
        T, C = self.text.context_length, self.text.batch_size
        contexts = TokenLoader(self.text.cache.tokens("train"), T, C, self.seed, rank, world_size)
        store = None
        if self.activations_dir is not None:
            fingerprint = json.dumps([self.corpus_fingerprint, self.seed, C])
            store = ActivationStore(expanded(self.activations_dir), fingerprint)
        positions = (self.positions_per_context, self.skip_positions)
        loader = ActivationLoader(contexts, self.stream, *positions, store, self.bos, self._device, self.skip_tokens)
        if self.null_model:
            return NullLoader(self._null, len(loader), self.batch_size, self.seed, rank, world_size)
        return loader

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _language_model(source: Source, step: int | None, dtype: str, sequence_length: int, trust_code: bool) -> Any:
    model: Any = source.load(step, trust_code)
    if missing_in(model, LanguageModel):
        raise ZooError(f"{source.name} is a {type(model).__name__}; data.model must be a language model")
    longest = model.context_length
    if longest is not None and sequence_length > longest:
        raise ZooError(f"sequence_length is {sequence_length}, more than the {longest} positions of {source.name}")
    return model if dtype == "stored" else model.to(getattr(torch, dtype))


def _site_names(
    model: LanguageModel, layers: int | Sequence[int], sites: str | Sequence[str], source: str
) -> list[str]:
    """Return the full names of the sites of some layers, in this order."""
    layers = [layers] if isinstance(layers, int) else list(layers)
    sites = [sites] if isinstance(sites, str) else list(sites)
    if not layers or not sites:
        raise ZooError(f"data.layer is {layers} and data.site is {sites}; give at least one of both")
    names = [_site_name(model, layer, site, source) for layer in layers for site in sites]
    for name in names:
        if names.count(name) > 1:
            raise ZooError(f"data.layer {layers} and data.site {sites} name {name} twice")
    check_sites(model, names)
    return names


def _site_name(model: LanguageModel, layer: int, site: str, source: str) -> str:
    n_layers = model.n_layers
    if layer == n_layers and site == "resid_pre":
        return hook_name(n_layers - 1, "resid_post")
    if not 0 <= layer < n_layers:
        means = f" means before that layer, {n_layers} means after the last layer" if site == "resid_pre" else ""
        raise ZooError(f"layer is {layer}; {source} has {n_layers} layers: 0 to {n_layers - 1}{means}")
    return hook_name(layer, site)


def _check_device(name: str) -> torch.device:
    if name.startswith("meta"):
        raise ZooError(f"data.model_device is {name}, on which nothing is computed; expected cpu, cuda, cuda:1, ...")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # raised by torch if there is no such device
        raise ZooError(f"data.model_device {name} cannot be used: {str(error).splitlines()[0]}") from None
