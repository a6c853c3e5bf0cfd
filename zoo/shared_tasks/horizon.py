"""Tasks that truncate what the sublayers of a language model read, on windows of held-out documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from zoo.source import Source
from zoo.study import Result, Task, Work

if TYPE_CHECKING:
    from zoo.analysis.layer_horizon import CleanRun
    from zoo.datamodules import TextDataModule


class Variant(NamedTuple):
    """How inputs are truncated: a key of each of the four dicts above."""

    reading: str
    filler: str
    norm: str
    position_0: str


@dataclass(frozen=True)
class Documents(Task):
    """Draw one window from each of several documents, for evaluation and for the means of outputs.

    Args:
        source: The model in whose tokens the text is read.
        text_config: Config whose text is used; None for the model's own text.
        tokens: Hash of the text's tokens and the tokenizer.
        vocab_size: Number of rows V of the model's embedding.
        n: Number of documents.
        length: Number T of inputs of a window.
    """

    source: Source
    text_config: str | None
    tokens: str
    vocab_size: int
    n: int
    length: int
    here = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields that decide the result: all except those that say where the text is read."""
        return {key: value for key, value in super().named_by().items() if key not in ("source", "text_config")}

    def do(self, work: Work) -> Result:
        """Return windows for `evaluation` and for `means`, (n, T + 1) each, and notes."""
        data, notes = text_of(self.source, self.text_config, self.vocab_size)
        held_out, train = windows_of(data, self.n, self.length)
        return {"evaluation": held_out, "means": train, "notes": notes, "corpus_fingerprint": data.corpus_fingerprint}

    def seconds(self) -> float:
        """Return a guess of the time to import modules and to check the text."""
        return 10.0


@dataclass(frozen=True)
class Clean(Task):
    """Run a model without truncation.

    Args:
        documents: The task that draws the documents.
        source: The model.
        step: Its training step; None for the last one.
        untrained: Seed of random weights that are used instead of the trained ones; None for the trained ones.
        batch: Number of documents at a time.
    """

    documents: Documents
    source: Source
    step: int | None
    untrained: int | None
    batch: int
    here = True
    on_gpu = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields, with a hash of the weights instead of the source and the step."""
        of_source = {"weights": self.source.weights_fingerprint(self.step)}
        return {"documents": self.documents, "untrained": self.untrained, "batch": self.batch} | of_source

    def needs(self) -> Sequence[Task]:
        """Return the task that draws the documents."""
        return [self.documents]

    def do(self, work: Work) -> Result:
        """Return the `loss` of every document (n,), `means` of outputs (N + 1, 2, D), and what the sublayers are."""
        import torch

        from zoo.analysis.layer_horizon import mean_outputs
        from zoo.interventions import sublayers

        model = self.network(work.device)
        names = ["embedding", *(_name(part.writes) for part in sublayers(model))]
        loss = [run.loss for run in self.runs(work, work[self.documents]["evaluation"])]
        calibration = torch.from_numpy(work[self.documents]["means"]).long().to(work.device)
        return {
            "loss": torch.cat(loss).numpy(),
            "means": mean_outputs(model, calibration, self.batch).numpy(),
            "outputs": names,
            "n_layers": model.n_layers,
        }

    def network(self, device: str) -> Any:
        """Return the model on a device."""
        return _network(self.source, self.step, self.untrained, device)

    def runs(self, work: Work, windows: np.ndarray) -> "Iterator[CleanRun]":
        """Return the clean runs of all batches of windows (n, T + 1), one after the other."""
        import torch

        from zoo.analysis.layer_horizon import batches, clean_run

        ids = torch.from_numpy(windows).long().to(work.device)
        return (clean_run(self.network(work.device), part) for part in batches(ids, self.batch))


@dataclass(frozen=True)
class Truncate(Task):
    """Truncate the inputs of sublayers at several k.

    Args:
        clean: The task that runs the model without truncation.
        variant: How inputs are truncated.
        kept: "last": the last k outputs are kept. "random": k random earlier outputs are kept, the null model.
        seeds: Number of draws of other documents and of random outputs that are averaged.
        ks: The K values of k, ascending.
    """

    clean: Clean
    variant: Variant
    kept: Literal["last", "random"]
    seeds: int
    ks: tuple[int, ...]
    here = True
    on_gpu = True

    def needs(self) -> Sequence[Task]:
        """Return the tasks that draw the documents and run the model without truncation."""
        return self.clean.documents, self.clean

    def do(self, work: Work) -> Result:
        """Return `increases` of the loss, (seeds, n, K) or, one input at a time, (seeds, n, N + 1, K), in nats."""
        import torch

        from zoo.analysis.layer_horizon import fillers, last_outputs, loss_increases, random_outputs

        clean, variant = work[self.clean], self.variant
        means, N = torch.from_numpy(clean["means"]), len(clean["outputs"]) - 1
        found = []
        for run in self.clean.runs(work, work[self.clean.documents]["evaluation"]):
            for seed in range(self.seeds):
                filler = fillers(run, variant.filler, means, seed)  # type: ignore[arg-type]

                def kept(k: int, seed: int = seed) -> Sequence[Sequence[int]]:
                    return last_outputs(k, N) if self.kept == "last" else random_outputs(k, N, 1000 * seed + k)

                found.append(
                    loss_increases(
                        run,
                        variant.reading,  # type: ignore[arg-type]
                        kept,
                        filler,
                        frozen=variant.norm == "frozen",
                        position_0=variant.position_0 == "truncated",
                        ks=self.ks,
                    )
                )
        by_seed = [torch.cat(found[seed :: self.seeds]) for seed in range(self.seeds)]
        return {"increases": torch.stack(by_seed).float().numpy()}

    def __str__(self) -> str:
        return f"Truncate({self.clean.source.name}, {', '.join(self.variant)}, {self.kept})"


@dataclass(frozen=True)
class LeaveOut(Task):
    """Leave single outputs out of the whole residual stream, and out of single inputs.

    Args:
        clean: The task that runs the model without truncation.
        filler: What stands for the output that is left out.
        position_0: Whether it is left out at position 0 as well.
    """

    clean: Clean
    filler: str
    position_0: str
    here = True
    on_gpu = True

    def needs(self) -> Sequence[Task]:
        """Return the tasks that draw the documents and run the model without truncation."""
        return self.clean.documents, self.clean

    def do(self, work: Work) -> Result:
        """Return relative changes of outputs `total` and `direct` (n, N + 1, N + 1), and increases of the loss."""
        import torch

        from zoo.analysis.layer_horizon import direct_effects, fillers, total_effects

        means = torch.from_numpy(work[self.clean]["means"])
        truncated = self.position_0 == "truncated"
        found = []
        for run in self.clean.runs(work, work[self.clean.documents]["evaluation"]):
            filler = fillers(run, self.filler, means)  # type: ignore[arg-type]
            found.append([*total_effects(run, filler, truncated), *direct_effects(run, filler, truncated)])
        names = ("total", "total_loss", "direct", "direct_loss")
        return {
            name: torch.cat(parts).float().numpy() for name, parts in zip(names, zip(*found, strict=True), strict=True)
        }


def windows_of(data: "TextDataModule", n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows of n documents of the validation and test splits, and of n of the training split, (n, T + 1) each.

    If the tokenizer puts a token at the beginning of every sequence, windows begin with it.
    """
    from zoo.analysis.documents import document_windows

    held_out, train, end, prefix = held_out_tokens(data)
    evaluation, means = (
        document_windows(text, end, n, length + 1, 0, prefix).astype(np.int32) for text in (held_out, train)
    )
    return evaluation, means


def held_out_tokens(data: "TextDataModule") -> tuple[np.ndarray, np.ndarray, int, list[int]]:
    """Return held-out tokens, training tokens, the id of the end of a document, and the ids before every sequence."""
    from zoo.datamodules.tokenizers import end_of_text_id

    end, alone, whole = (
        end_of_text_id(data.tokenizer),
        *(data.tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True)),
    )
    prefix = whole[: whole.index(alone[0])] if alone else []
    held_out = np.concatenate([np.asarray(data.cache.tokens(split)) for split in ("val", "test")])
    return held_out, np.asarray(data.cache.tokens("train")), end, prefix


@lru_cache(maxsize=2)
def text_of(source: Source, config: str | None, vocab_size: int) -> "tuple[TextDataModule, list[str]]":
    """The model's own text or that of a config, with notes; or the default corpus, for a model without a text."""
    from zoo.training_text import text_in_own_tokens, training_text

    if (source.provenance().get("config") or {}).get("data"):
        return training_text(source.name, config, vocab_size)
    data = text_in_own_tokens(source.name, config, vocab_size)
    return data, [f"it is not known whether {source.name} was trained on the text"]


@lru_cache(maxsize=1)
def _network(source: Source, step: int | None, untrained: int | None, device: str) -> Any:
    """The network of a source, or one of the same class and arguments with random weights, in float32."""
    import torch

    from zoo.models import CausalLM

    model: Any = source.load(step)
    if untrained is not None:
        with torch.random.fork_rng():
            torch.manual_seed(untrained)
            model = model.untrained() if isinstance(model, CausalLM) else type(model)(**model.config)
            model.eval().requires_grad_(False)
    return model.to(device, torch.float32)


def _name(writes: Sequence[str]) -> str:
    """Name of a sublayer, such as attention 0; of a parallel layer, layer 0."""
    layer = writes[0].split(".")[1]
    kind = "layer" if len(writes) > 1 else "attention" if writes[0].endswith("attn_out") else "MLP"
    return f"{kind} {layer}"
