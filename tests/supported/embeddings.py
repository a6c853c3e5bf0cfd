"""Token embeddings.

Each case writes an embedding into a folder and returns the source. If it is read, the case also returns the matrix.
"""

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file, save_model

import zoo
from supported import Case, checkpoints

TITLE = "Embeddings"
INTRODUCTION = (
    "`zoo.embedding` reads these files. `EmbeddingRowsDataModule`, `CopiedEmbedding` and `study embedding` use it, so "
    "they read the same files. Values are bit-identical if the file's type is no wider than float32. From a model of "
    "`transformers` it reads the matrix of `get_input_embeddings()`. If the name of the tensor is not known, set "
    "`tensor` (`--tensor`). GGUF files are read with the package `gguf` (`superposition-zoo[gguf]`): matrices in F32, "
    "F16 and BF16 as they are, and quantised matrices as `gguf` dequantises them (`tests/test_any_model.py`)."
)
W = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
FAMILIES = {  # transformers' classes and the sizes that make them small
    "GPT2": {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 1},
    "GPTNeo": {
        "vocab_size": 20,
        "hidden_size": 8,
        "num_layers": 1,
        "num_heads": 1,
        "attention_types": [[["global"], 1]],
    },
    "GPTJ": {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 1, "rotary_dim": 4},
    "GPTNeoX": SMALL,
    "Llama": SMALL,
    "Qwen2": SMALL,
    "Gemma": SMALL | {"head_dim": 8, "num_key_value_heads": 1},
    "OPT": {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "ffn_dim": 8}
    | {"word_embed_proj_dim": 8, "max_position_embeddings": 8},
    "Bloom": {"vocab_size": 20, "hidden_size": 8, "n_layer": 1, "n_head": 1},
    "T5": {"vocab_size": 20, "d_model": 8, "num_layers": 1, "num_heads": 1, "d_ff": 8, "d_kv": 8},
    "Bart": {"vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8}
    | {"decoder_ffn_dim": 8, "encoder_attention_heads": 1, "decoder_attention_heads": 1, "max_position_embeddings": 8},
    "Bert": SMALL,
    "Roberta": SMALL,
    "DistilBert": {"vocab_size": 20, "dim": 8, "n_layers": 1, "n_heads": 1, "hidden_dim": 8},
    "Electra": SMALL | {"embedding_size": 8},
    "ModernBert": SMALL | {"pad_token_id": 0},
}
HEADS = {"GPT2": "LMHeadModel", "T5": "ForConditionalGeneration", "Bart": "ForConditionalGeneration"}
HEADS |= dict.fromkeys(("Bert", "Roberta", "DistilBert", "Electra", "ModernBert"), "ForMaskedLM")


def family(name, head):
    """Return a case that writes a random model of a family, with or without its head."""

    def make(folder):
        config = getattr(transformers, f"{name}Config")(**FAMILIES[name])
        model = getattr(transformers, name + (HEADS.get(name, "ForCausalLM") if head else "Model"))(config)
        model.save_pretrained(folder)
        return folder, model.get_input_embeddings().weight.detach()

    return make


def npy(dtype, change=lambda array: array):
    """Return a case that writes the matrix as a .npy file of some type."""

    def make(folder):
        array = change(W.numpy()).astype(dtype)
        np.save(folder / "W.npy", array)
        return folder / "W.npy", torch.from_numpy(array.astype(np.float32))

    return make


def safetensors(name, dtype=torch.float32, change=lambda tensor: tensor):
    def make(folder):
        save_file({name: change(W).to(dtype), "other.weight": torch.zeros(3)}, folder / "W.safetensors")
        return folder / "W.safetensors", W.to(dtype).float() if dtype.is_floating_point else None

    return make


def as_safetensors(tensors, folder):
    save_file(tensors, folder / "W.safetensors")
    return folder / "W.safetensors"


def as_npz(tensors, folder):
    np.savez(folder / "W.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    return folder / "W.npz"


def as_bin(tensors, folder):
    torch.save(tensors, folder / "W.bin")
    return folder / "W.bin"


def int8(write):
    """Return a case that writes a matrix in int8, and a scale for each row."""
    q = torch.arange(-80, 80, dtype=torch.int8).reshape(20, 8)
    scale = torch.linspace(0.1, 2, 20)
    return lambda folder: (write({"W_E": q, "W_E_scale": scale}, folder), q * scale[:, None])


def pickled_model(folder):
    torch.save({"transformer.wte.weight": W, "h.0.weight": W[:3]}, folder / "pytorch_model.bin")
    return folder, W


def several(folder):
    save_file({"encoder.embed_tokens.weight": W, "decoder.embed_tokens.weight": -W}, folder / "W.safetensors")
    return folder / "W.safetensors"


def head_only(folder):
    source, _, _ = checkpoints.head_only(folder)
    return source, load_file(folder / "model.safetensors")["lm_head.weight"]


def tied_llama(folder):
    config = transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config)
    save_model(model, str(folder / "model.safetensors"))
    assert "model.embed_tokens.weight" not in load_file(folder / "model.safetensors")
    return folder, model.get_input_embeddings().weight.detach()


def of(make):
    """Return a case with the source of a checkpoint case, and the embedding of the network that it loads as."""

    def made(folder):
        source = make(folder)[0]
        return source, zoo.load(source).W_E

    return made


def source_of(make):
    return lambda folder: make(folder)[0]


CASES = [
    Case("`.npy` in float32", npy("<f4")),
    Case("`.npy` in float64", npy("<f8"), "read as float32"),
    Case("`.npy` in float16", npy("<f2"), "read as float32"),
    Case("`.npy` in the other byte order", npy(">f4")),
    Case("`.npy` in float64 and the other byte order", npy(">f8"), "read as float32"),
    Case("`.npy` in long double", npy(np.longdouble), "read as float32"),
    Case("`.npy` in Fortran order", npy("<f4", np.asfortranarray)),
    *[
        Case(f"`.npy` {what}", source_of(make), "refused: names the type and shape", message)
        for what, make, message in (
            ("of integers", npy("<i8"), r"W\.npy holds int64 \[20, 8\], not a matrix of token rows"),
            ("of complex numbers", npy("<c8"), r"W\.npy holds complex64 \[20, 8\], not a matrix of token rows"),
            ("with one dimension", npy("<f4", np.ravel), r"float32 \[160\], not a matrix of token rows"),
        )
    ],
    *[
        Case(f"`.npy` with {what}", source_of(npy("<f8", change)), "refused: names the row", "row 3 of .* NaN or inf")
        for what, change in (
            ("NaN", lambda a: np.where(np.arange(20)[:, None] == 3, np.nan, a)),
            ("infinity", lambda a: np.where(np.arange(20)[:, None] == 3, -np.inf, a)),
            ("numbers above the range of float32", lambda a: np.where(np.arange(20)[:, None] == 3, 1e60, a)),
        )
    ],
    Case("`.safetensors` in bfloat16", safetensors("wte.weight", torch.bfloat16), "read as float32"),
    Case("`.safetensors` in float64", safetensors("wte.weight", torch.float64), "read as float32"),
    Case("`.safetensors` of TransformerLens, `embed.W_E`", safetensors("embed.W_E")),
    *[
        Case(f"`.safetensors` in {name}", source_of(safetensors("wte.weight", dtype)), "refused: names the type", name)
        for name, dtype in (("float8_e4m3fn", torch.float8_e4m3fn), ("uint8", torch.uint8))
    ],
    Case(
        "`.safetensors` in int8 without a scale",
        source_of(safetensors("wte.weight", torch.int8)),
        "refused: names the scale that is missing",
        r"is int8 and has no scale; the file needs one tensor wte\.weight_scale",
    ),
    Case("`.safetensors` in int8 with a scale", int8(as_safetensors), "read as the product"),
    Case("`.npz` in int8 with a scale per row", int8(as_npz), "read as the product"),
    Case("`.npz` in float32", lambda folder: (as_npz({"W_E": W}, folder), W)),
    Case("`.bin` of PyTorch", lambda folder: (as_bin({"wte.weight": W}, folder), W), "read, without running its code"),
    Case("model with `pytorch_model.bin` alone", pickled_model, "read, without running its code"),
    Case(
        "`.safetensors` with NaN",
        source_of(safetensors("wte.weight", change=lambda w: w.where(torch.arange(20)[:, None] != 3, torch.nan))),
        "refused: names the row",
        r"row 3 of tensor wte\.weight has entries that are NaN or infinite",
    ),
    Case(
        "`.safetensors` without a known tensor name",
        source_of(safetensors("my_rows")),
        "refused: says to set `tensor`",
        r"no tensor with a known embedding name; choose one with --tensor: my_rows \[20, 8\]",
    ),
    Case(
        "`.safetensors` with two embeddings",
        several,
        "refused: names both tensors",
        "has several token embeddings, decoder",
    ),
    *[Case(f"{name} of transformers", family(name, head=False)) for name in FAMILIES],
    *[Case(f"{name} with its head", family(name, head=True)) for name in FAMILIES],
    Case("tied GPT-2 that holds `lm_head` alone", head_only),
    Case("tied Llama that holds `lm_head` alone (`safetensors.torch.save_model`)", tied_llama),
    Case("zoo checkpoint", of(checkpoints.zoo_folder)),
    Case("Lightning checkpoint of the zoo", of(checkpoints.lightning)),
    Case("folder of a run", of(checkpoints.run_folder)),
    Case("GPT-2 in several files", of(checkpoints.shards())),
    Case(
        "Lightning checkpoint with a weight that is infinite",
        lambda f: checkpoints.lightning(f, lambda t: t / 0)[0],
        "refused: names the row",
        "row 0 of .* NaN or infinite",
    ),
]
