"""Layouts of checkpoints.

Each case writes a checkpoint into a folder and returns the source. If it is read, the case also returns an input and
the output of the program that wrote it, or of its formula.
"""

import json
from functools import partial

import torch
import transformers
from safetensors.torch import load_file, save_file, save_model
from small_gpt2 import network

import zoo
from supported import Case
from zoo import models

TITLE = "Checkpoints"
INTRODUCTION = (
    "`zoo.load`, `init_from`, `export` and `ActivationsDataModule` read these checkpoints. Logits of a GPT-2 equal "
    "those of `transformers` in float32."
)
IDS = torch.arange(24).view(2, 12)


def gpt2(folder, shard_size="1GB", model="GPT2LMHeadModel", **options):
    """Write a random GPT-2 with `transformers`; return the source, an input and its logits."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**network(**{"dropout": 0.1}).hf_config() | options)
    twin = getattr(transformers, model)(config).eval().requires_grad_(False)
    for p in twin.parameters():
        p.normal_(std=0.3)
    twin.save_pretrained(folder, max_shard_size=shard_size)
    if model == "GPT2Model":
        hidden = twin(IDS).last_hidden_state
        return folder, IDS, hidden @ twin.wte.weight.T
    return folder, IDS, twin(IDS).logits


def expected(folder):
    """Return the folder, an input, and the logits that `transformers` computes from the folder in float32."""
    twin = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    return folder, IDS, twin(IDS).logits


def rewritten(folder, edit=lambda tensors: None, drop=(), config=None, **options):
    """Write a random GPT-2 of `transformers`, edit its tensors and config, and return the folder."""
    gpt2(folder, **options)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k not in drop}))
    return folder


def own_head(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 0.1


def head_only(folder):
    source, ids, logits = gpt2(folder)
    save_model(transformers.GPT2LMHeadModel.from_pretrained(folder), str(folder / "model.safetensors"))
    assert "transformer.wte.weight" not in load_file(folder / "model.safetensors")
    return source, ids, logits


def head_only_without_metadata(folder):
    source, ids, logits = head_only(folder)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    return source, ids, logits


def in_precision(dtype):
    def make(folder):
        def edit(tensors):
            tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

        return expected(rewritten(folder, edit))

    return make


def with_tensor(name, change):
    def make(folder):
        def edit(tensors):
            tensors[name] = change(tensors.get(name))

        return rewritten(folder, edit)

    return make


def masks(tensors):
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
    tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)


def shards(own=False, damage=None):
    def make(folder):
        gpt2(folder, shard_size="5KB", tie_word_embeddings=not own)
        if own:
            config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
            (folder / "config.json").write_text(json.dumps(config))
        if damage is not None:
            damage(folder)
            return folder
        return expected(folder)

    return make


def a_tensor_twice(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    other = next(file for file in sorted(set(index.values())) if file != index["transformer.wte.weight"])
    save_file(load_file(folder / other) | {"transformer.wte.weight": torch.zeros(50, 16)}, folder / other)


def zoo_folder(folder, **options):
    model = network(**options)
    return zoo.save(model, folder / "model"), IDS, model(IDS)


def zoo_folder_with_nan(folder):
    sae = models.ReLUSAE(8, 16).requires_grad_(False)
    sae.b_enc[3] = torch.nan
    return zoo.save(sae, folder / "model")


def lightning(folder, change=lambda tensor: tensor):
    model = network()
    state = {f"net.{name}": change(tensor) for name, tensor in model.state_dict().items()}
    torch.save(
        {"state_dict": state, "zoo": {"class": "GPT2", "init_args": model.config, "step": 3}}, folder / "last.ckpt"
    )
    return folder / "last.ckpt", IDS, model(IDS)


def run_folder(folder):
    (folder / "checkpoints").mkdir()
    source, ids, logits = lightning(folder)
    source.rename(folder / "checkpoints" / "last.ckpt")
    return folder, ids, logits


def pickle_only(folder):
    gpt2(folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    return folder


SMALL = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def gpt_neox(folder, model="GPTNeoXForCausalLM"):
    torch.manual_seed(0)
    twin = getattr(transformers, model)(transformers.GPTNeoXConfig(**SMALL)).eval()
    twin.save_pretrained(folder)
    return (folder, IDS, twin(IDS).logits) if model == "GPTNeoXForCausalLM" else folder


def neox_pickle(folder):
    made = gpt_neox(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return made


def t5(folder):
    transformers.T5Config(vocab_size=20).save_pretrained(folder)
    return folder


def bert(folder):
    transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).save_pretrained(folder)
    return folder


def own_code(folder):
    config = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def quantised(folder):
    def edit(tensors):
        weight = tensors["transformer.h.0.mlp.c_fc.weight"]
        scale = weight.abs().amax(0) / 127
        tensors["transformer.h.0.mlp.c_fc.weight"] = (weight / scale).round().to(torch.int8)
        tensors["transformer.h.0.mlp.c_fc.SCB"] = scale

    return rewritten(folder, edit)


def refused_settings(make, **options):
    return lambda folder: make(folder, **options)[0]


CASES = [
    Case("zoo checkpoint", zoo_folder),
    Case("zoo checkpoint, untied", lambda folder: zoo_folder(folder, tied=False)),
    Case("Lightning checkpoint of the zoo", lightning),
    Case("Lightning checkpoint with weights in float64", lambda f: lightning(f, torch.Tensor.double)),
    Case("folder of a run", run_folder),
    Case("GPT-2 of transformers", gpt2),
    Case("GPT-2, untied", lambda f: gpt2(f, tie_word_embeddings=False)),
    Case("GPT-2 without its head (`GPT2Model`), names without `transformer.`", lambda f: gpt2(f, model="GPT2Model")),
    Case("GPT-2 with the attention masks of old files", lambda f: expected(rewritten(f, masks))),
    Case("GPT-2 in several files", shards()),
    Case(
        "GPT-2 whose `lm_head` differs from `wte` while `tie_word_embeddings` is true",
        lambda f: expected(rewritten(f, own_head)),
        "read, untied",
    ),
    Case(
        "GPT-2 whose `lm_head` differs from `wte` while `tie_word_embeddings` is absent",
        lambda f: expected(rewritten(f, own_head, drop=["tie_word_embeddings"])),
        "read, untied",
    ),
    Case("the same GPT-2 in several files, `tie_word_embeddings` true", shards(own=True), "read, untied"),
    Case("tied GPT-2 that holds `lm_head` alone (`safetensors.torch.save_model`)", head_only, "read, tied"),
    Case("the same file without its metadata on tied tensors", head_only_without_metadata, "read, tied"),
    Case("GPT-2 with more rows than its tokenizer has tokens", lambda f: gpt2(f, vocab_size=64), "read with all rows"),
    Case("GPT-2 in bfloat16", in_precision(torch.bfloat16), "read as float32"),
    Case("GPT-2 in float16", in_precision(torch.float16), "read as float32"),
    Case("GPT-2 in float64", in_precision(torch.float64), "read as float32"),
    Case("GPT-2 with `gelu_pytorch_tanh`", lambda f: gpt2(f, activation_function="gelu_pytorch_tanh")),
    Case("GPT-2 with `gelu_fast`", lambda f: gpt2(f, activation_function="gelu_fast")),
    Case("GPT-2 with `reorder_and_upcast_attn`", lambda f: gpt2(f, reorder_and_upcast_attn=True)),
    Case(
        "GPT-2 whose dropout rates differ",
        lambda f: gpt2(f, attn_pdrop=0.2),
        "read with the dropout rate `resid_pdrop`",
    ),
    Case(
        "GPT-2 whose config has the sizes under other names (`hidden_size`)",
        lambda f: expected(
            rewritten(
                f,
                drop=["n_embd", "n_head", "n_layer", "n_positions"],
                config={
                    "hidden_size": 16,
                    "num_attention_heads": 2,
                    "num_hidden_layers": 2,
                    "max_position_embeddings": 12,
                },
            )
        ),
    ),
    *[
        Case(f"GPT-2 with {key} {value}", partial(gpt2, **{key: value}), "read as a `CausalLM`")
        for key, value in {
            "activation_function": "gelu",
            "layer_norm_epsilon": 1e-6,
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "n_inner": 32,
            "add_cross_attention": True,
        }.items()
    ],
    Case(
        "GPT-2 with weights in 8-bit integers and their scales",
        quantised,
        "refused: names the tensor and its type",
        r"tensor transformer\.h\.0\.mlp\.c_fc\.weight is torch\.int8; weights are read in float32",
    ),
    Case(
        "GPT-2 with weights in float8",
        with_tensor("transformer.h.0.attn.c_attn.weight", lambda t: t.to(torch.float8_e4m3fn)),
        "refused: names the tensor and its type",
        r"tensor transformer\.h\.0\.attn\.c_attn\.weight is torch\.float8_e4m3fn",
    ),
    Case(
        "GPT-2 with a weight that is NaN",
        with_tensor("transformer.h.1.ln_1.weight", lambda t: t * torch.nan),
        "refused: names the tensor",
        r"tensor transformer\.h\.1\.ln_1\.weight has entries that are NaN or infinite",
    ),
    Case(
        "GPT-2 in float64 with a weight above the range of float32",
        with_tensor("transformer.wpe.weight", lambda t: t.double() * 1e60),
        "refused: names the row and the tensor",
        r"row 0 of tensor transformer\.wpe\.weight has entries that are NaN or infinite in float32",
    ),
    Case(
        "GPT-2 with a tensor that it does not use",
        with_tensor("score.weight", lambda _: torch.zeros(2, 16)),
        "refused: names the tensor",
        r"tensor score\.weight does not belong to it",
    ),
    Case(
        "GPT-2 whose config has sizes that its tensors do not have",
        lambda f: rewritten(f, config={"n_positions": 24}),
        "refused: names the tensor and both shapes",
        r"tensor transformer\.wpe\.weight has shape \[12, 16\]; its config says \[24, 16\]",
    ),
    Case(
        "untied GPT-2 without its head",
        lambda f: rewritten(f, config={"tie_word_embeddings": False}),
        "refused: names the tensor",
        r"tensor lm_head\.weight is missing",
    ),
    Case(
        "GPT-2 in several files, with one tensor in two files",
        shards(damage=a_tensor_twice),
        "refused: names the file and the tensor",
        r"holds tensor transformer\.wte\.weight, which its index does not list there",
    ),
    Case(
        "GPT-2 as a pickle (`pytorch_model.bin`)",
        pickle_only,
        "refused: says that it must be converted",
        "a pickle, which",
    ),
    Case("causal language model of another type (see below)", gpt_neox, "read as a `CausalLM`"),
    Case(
        "the same without its head",
        partial(gpt_neox, model="GPTNeoXModel"),
        "refused: names the tensor",
        r"is damaged, or has no head: it has no tensor lm_head\.weight; its embedding can be studied",
    ),
    Case("the same as a pickle (`pytorch_model.bin`)", neox_pickle, "read as a `CausalLM`, without running its code"),
    Case(
        "model of a type that is not a language model",
        t5,
        "refused: names the type (`zoo.embedding` reads its embedding)",
        "type 't5': transformers has no causal language model of this type; its embedding can be studied",
    ),
    Case(
        "model whose logits depend on later tokens (BERT)",
        bert,
        "refused (`zoo.embedding` reads its embedding)",
        "is not causal: its logits depend on later tokens; its embedding can be studied",
    ),
    Case(
        "model that comes with Python code",
        own_code,
        "refused, unless `trust_remote_code` is set",
        "needs Python code that comes with it, which is run only with trust_remote_code",
    ),
    Case(
        "quantised model",
        lambda f: rewritten(f, config={"activation_function": "gelu", "quantization_config": {"bits": 4}}),
        "refused (`zoo.embedding` says which tensor is quantised)",
        "is quantised, and quantised models cannot be run",
    ),
    Case(
        "Lightning checkpoint with a weight that is infinite",
        lambda f: lightning(f, lambda t: t / 0)[0],
        "refused: names the tensor",
        "has entries that are NaN or infinite",
    ),
    Case(
        "Lightning checkpoint with integer weights",
        lambda f: lightning(f, lambda t: t.to(torch.int8))[0],
        "refused: names the tensor and its type",
        "is torch.int8; weights are read in float32",
    ),
    Case(
        "zoo checkpoint with a weight that is NaN",
        zoo_folder_with_nan,
        "refused: names the tensor",
        "has entries that are NaN or infinite",
    ),
]
