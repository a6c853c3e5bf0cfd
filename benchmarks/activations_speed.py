"""Speed of reading activations: the zoo's datamodule, SAELens's store, and the forward pass alone.

python -m benchmarks.activations_speed
python -m benchmarks.activations_speed --kind pythia --device cuda

A random language model is saved as a folder of transformers, and all contenders read it. They are given the same text,
already tokenized, and yield shuffled batches of the same size, in float32. They read the residual stream at the
same site. In each round every contender has a turn.
"""

import argparse
import importlib.metadata
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from benchmarks.common import clock
from zoo.datamodules import ActivationsDataModule, LocalFiles, TrainedBPE

ZOO, FORWARD = "zoo", "forward pass alone"
Batches = Iterator[Tensor]  # vectors, (B, D) float32
AIM = 1.5


def make_folder(args: argparse.Namespace, folder: Path) -> Path:
    """Write a random model of the sizes asked for, its tokenizer, and a text; return the folder of the model."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(5_000)]
    (folder / "text").mkdir()
    for i in range(40):
        text = " ".join(rng.choices(words, k=args.words // 40))
        (folder / "text" / f"{i}.txt").write_text(text)
    tokenizer = TrainedBPE(300).tokenizer(path.read_text() for path in sorted((folder / "text").iterdir()))
    sizes = {"vocab_size": args.vocab_size, "hidden_size": args.d_model, "num_attention_heads": args.n_heads}
    sizes |= {"num_hidden_layers": args.n_layers, "max_position_embeddings": args.context_length}
    torch.manual_seed(0)
    model: Any = (
        GPT2LMHeadModel(GPT2Config(**sizes))
        if args.kind == "gpt2"
        else GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=4 * args.d_model))
    )
    model.save_pretrained(folder / "model")
    (folder / "model" / "tokenizer.json").write_text(tokenizer.to_str())
    return folder / "model"


def zoo_data(args: argparse.Namespace, folder: Path, model: Path) -> ActivationsDataModule:
    """Return the zoo's datamodule, with the model on its device."""
    data = ActivationsDataModule(
        str(model),
        args.layer,
        corpus=LocalFiles([str(folder / "text")]),
        site=args.site,
        sequence_length=args.context_length,
        batch_size=args.batch_size,
        positions_per_context=args.positions_per_context,
        skip_positions=0,
        cache_dir=str(folder / "cache"),
        model_device=args.device,
    )
    data.prepare_data()
    data.setup()
    return data


def zoo(args: argparse.Namespace, data: ActivationsDataModule) -> Batches:
    """Yield batches of the zoo, on the device of the others."""
    for batch in chain.from_iterable(repeat(data.train_dataloader())):
        yield batch["x"].to(args.device)


def contexts(args: argparse.Namespace, data: ActivationsDataModule) -> Tensor:
    """Return the training text as contexts, (N, T) int64."""
    tokens = np.asarray(data.text.cache.tokens("train"), np.int64)
    T = args.context_length
    return torch.from_numpy(tokens[: len(tokens) // T * T].reshape(-1, T))


def n_layers_run(args: argparse.Namespace) -> int:
    """Return the number of layers on which the activations depend."""
    return args.layer + (args.site == "resid_post")


@torch.no_grad()
def forward(args: argparse.Namespace, model: Path, ids: Tensor) -> Batches:
    """Run transformers' model up to the layer, and yield nothing but slices of what it computes, in order."""
    network: Any = AutoModelForCausalLM.from_pretrained(model).to(args.device).eval()
    backbone = network.base_model
    layers = backbone.h if args.kind == "gpt2" else backbone.layers
    del layers[n_layers_run(args) :]
    if args.kind == "gpt2":
        backbone.ln_f = torch.nn.Identity()
    else:
        backbone.final_layer_norm = torch.nn.Identity()
    left = torch.empty(0, args.d_model, device=args.device)
    for part in chain.from_iterable(repeat(ids.split(args.prompts))):
        x = backbone(part.to(args.device), use_cache=False).last_hidden_state.flatten(0, 1)
        x = torch.cat([left, x])
        n_whole = len(x) // args.batch_size * args.batch_size
        yield from x[:n_whole].split(args.batch_size) if n_whole else ()
        left = x[n_whole:]


def saelens(args: argparse.Namespace, model: Path, ids: Tensor, hooked: bool) -> Batches:
    """Yield batches of SAELens's store.

    Args:
        args: The settings.
        model: Folder of the model.
        ids: Its text, (N, T).
        hooked: Whether the model is a HookedTransformer, SAELens's default, or that of transformers.
    """
    from datasets import Dataset
    from sae_lens import ActivationsStore
    from sae_lens.load_model import HookedProxyLM

    network: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    name = f"blocks.{args.layer}.hook_{args.site}"
    if hooked:
        network = hooked_transformer(args, network)
    else:
        name = f"{'transformer.h' if args.kind == 'gpt2' else 'gpt_neox.layers'}.{n_layers_run(args) - 1}"
        network = HookedProxyLM(network, None, hook_names=[name])  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the text is read several times
        store = ActivationsStore(
            network.to(args.device),
            Dataset.from_dict({"tokens": ids.tolist()}),
            streaming=False,
            hook_name=name,
            hook_head_index=None,
            context_size=args.context_length,
            d_in=args.d_model,
            n_batches_in_buffer=args.batch_size // args.positions_per_context,  # contexts, as many as the zoo's
            total_training_tokens=ids.numel(),
            store_batch_size_prompts=args.prompts,
            train_batch_size_tokens=args.batch_size,
            prepend_bos=False,
            normalize_activations="none",
            device=torch.device(args.device),
            dtype="float32",
        )
    return iter(store)


def hooked_transformer(args: argparse.Namespace, network: Any) -> Any:
    """Return the network as a HookedTransformer, with its raw weights."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights, convert_neox_weights

    is_gpt2, d_head = args.kind == "gpt2", args.d_model // args.n_heads
    cfg = HookedTransformerConfig(
        n_layers=args.n_layers,
        d_model=args.d_model,
        n_ctx=args.context_length,
        d_head=d_head,
        n_heads=args.n_heads,
        d_mlp=4 * args.d_model,
        d_vocab=args.vocab_size,
        act_fn="gelu_new" if is_gpt2 else "gelu",
        normalization_type="LN",
        eps=1e-5,
        device="cpu",
        **({} if is_gpt2 else {"positional_embedding_type": "rotary", "rotary_dim": d_head // 4}),
        **({} if is_gpt2 else {"parallel_attn_mlp": True}),
    )
    hooked = HookedTransformer(cfg)
    convert = convert_gpt2_weights if is_gpt2 else convert_neox_weights
    hooked.load_and_process_state_dict(
        convert(network, cfg),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return hooked


def contenders(args: argparse.Namespace, folder: Path) -> dict[str, Batches]:
    """Return the batches of all contenders; a library that is not installed or fails is left out, and told."""
    model = make_folder(args, folder)
    data = zoo_data(args, folder, model)
    ids = contexts(args, data)
    found = {ZOO: zoo(args, data), FORWARD: forward(args, model, ids)}
    peers: dict[str, Callable[[], Batches]] = {
        "SAELens, HookedTransformer": lambda: saelens(args, model, ids, hooked=True),
        "SAELens, AutoModelForCausalLM": lambda: saelens(args, model, ids, hooked=False),
    }
    for name, make in peers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def check(batches: dict[str, Batches], args: argparse.Namespace) -> float:
    """Return the largest relative difference of the mean square of the contenders' vectors."""
    size = {name: torch.stack([x.square().mean() for x in islice(b, args.steps)]).mean() for name, b in batches.items()}
    for name, x in size.items():
        print(f"{name}: mean square {x:.6g}")
    return max((x / size[ZOO] - 1).abs().item() for x in size.values())


def measure(args: argparse.Namespace, batches: dict[str, Batches]) -> dict[str, np.ndarray]:
    """Return the vectors per second of every turn of every contender, after one turn that is not measured."""
    rates: dict[str, list[float]] = {name: [] for name in batches}
    for turn in range(args.rounds + 1):
        for name, stream in batches.items():
            began = clock(args.device)
            n = sum(len(x) for x in islice(stream, args.steps))
            if turn:
                rates[name].append(n / (clock(args.device) - began))
    return {name: np.array(rate) for name, rate in rates.items()}


def report(rates: dict[str, np.ndarray]) -> None:
    """Print vectors per second, and the ratio of the zoo's to the others' in the same round."""
    table = Table("contender", "vectors / s: median (least to most)", "zoo / contender: median (least to most)", "aim")
    for name, rate in rates.items():
        ratio = rates[ZOO] / rate
        table.add_row(
            name,
            f"{np.median(rate):,.0f} ({rate.min():,.0f} to {rate.max():,.0f})",
            f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
            f">= {AIM}" if name.startswith("SAELens") else "",
        )
    Console(width=120).print(table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kind", choices=("gpt2", "pythia"), default="gpt2", help="architecture, default gpt2")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--site", choices=("resid_post", "resid_pre"), default="resid_post", help="default resid_post")
    made.add_argument("--threads", type=int, default=0, help="threads of torch, default as torch chooses")
    for name, default, told in (
        ("n_layers", 6, "layers"),
        ("d_model", 512, "width"),
        ("n_heads", 8, "heads"),
        ("vocab_size", 50304, "rows of the embedding"),
        ("layer", 2, "layer whose residual stream is read, at least 1 with resid_pre"),
        ("context_length", 128, "tokens per context"),
        ("batch_size", 2048, "vectors per batch"),
        ("positions_per_context", 16, "zoo: vectors of a batch that come from one context"),
        ("prompts", 32, "SAELens and forward pass alone: contexts per pass"),
        ("words", 200_000, "words of the text"),
        ("steps", 8, "batches per turn"),
        ("rounds", 5, "turns of every contender that are measured"),
    ):
        made.add_argument(f"--{name}", type=int, default=default, help=f"{told}, default {default}")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        batches = contenders(args, Path(folder))
        print(f"largest relative difference of mean squares: {check(batches, args):.1e}")
        rates = measure(args, batches)
    report(rates)
    names = ("torch", "transformers", "sae-lens", "transformer-lens")
    found = {name: next(iter(importlib.metadata.distributions(name=name)), None) for name in names}
    print(", ".join(f"{name} {d.version}" for name, d in found.items() if d), f"; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
