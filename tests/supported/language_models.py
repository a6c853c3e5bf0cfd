"""Families of causal language models of `transformers`, each as a tiny random model.

Each case writes a folder with `transformers` and returns it. `REFERENCE` says which modules of a decoder layer compute
what attention and MLP add, by their names in `transformers`.
"""

from functools import partial

import torch
import transformers

from supported import Case

TITLE = "Causal language models of transformers"
INTRODUCTION = (
    "`zoo.load` and `ActivationsDataModule` read any causal language model of `transformers` (5.23 in the tests). The "
    "table shows which sites of `zoo.interventions` are found in families of them. *All sites* are `resid_pre`, "
    "`attn_in`, `attn_out`, `resid_mid`, `mlp_in`, `mlp_out` and `resid_post`. In a *parallel* layer, attention and "
    "MLP read the same stream: it has `resid_pre`, `layer_in`, `attn_out`, `mlp_out` and `resid_post`. *Residual "
    "stream* means `resid_pre` and `resid_post` alone. *Scales* are those of the layer norms that read the stream."
)
V, L = 61, 3
ALL, PARALLEL, STREAM = "all sites and scales", "parallel, with scales", "residual stream"
SITES = {
    ALL: (
        *("resid_pre", "attn_in", "ln1.hook_scale", "attn_out", "resid_mid"),
        *("mlp_in", "ln2.hook_scale", "mlp_out", "resid_post"),
    ),
    PARALLEL: ("resid_pre", "layer_in", "ln1.hook_scale", "attn_out", "mlp_out", "resid_post"),
    STREAM: ("resid_pre", "resid_post"),
}
SITES["all sites"] = tuple(site for site in SITES[ALL] if "scale" not in site)
SITES["parallel, with the scales of two layer norms"] = (
    *("resid_pre", "layer_in", "ln1.hook_scale", "ln2.hook_scale", "attn_out", "mlp_out", "resid_post"),
)
OLD = {"vocab_size": V, "n_embd": 16, "n_layer": L, "n_head": 4, "n_positions": 32, "eos_token_id": 0}
NEW = {
    **{"vocab_size": V, "hidden_size": 16, "num_hidden_layers": L, "num_attention_heads": 4, "pad_token_id": 0},
    **{"max_position_embeddings": 32, "intermediate_size": 40, "bos_token_id": 0, "eos_token_id": 0},
}
GROUPED = {**NEW, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 4}
FALCON = {key: NEW[key] for key in NEW if key not in ("intermediate_size", "max_position_embeddings")}

# family -> (model type, settings, names of the modules that compute what attention and MLP add, sites)
FAMILIES = {
    "GPT-2 whose attention is scaled by the layer (Mistral's)": (
        *("gpt2", {**OLD, "scale_attn_by_inverse_layer_idx": True}, ("attn", "mlp"), ALL),
    ),
    "GPT-J": ("gptj", {**OLD, "rotary_dim": 4}, ("attn", "mlp"), PARALLEL),
    "GPT-NeoX, Pythia": ("gpt_neox", NEW, ("attention", "mlp"), "parallel, with the scales of two layer norms"),
    "GPT-NeoX with `use_parallel_residual: false`": (
        *("gpt_neox", {**NEW, "use_parallel_residual": False}, ("attention", "mlp"), ALL),
    ),
    "GPT-Neo": (
        "gpt_neo",
        {**NEW, "num_layers": L, "num_heads": 4, "attention_types": [[["global"], L]]},
        ("attn", "mlp"),
        ALL,
    ),
    "OPT": ("opt", {**NEW, "ffn_dim": 40, "word_embed_proj_dim": 16}, ("self_attn", "fc2"), ALL),
    "OPT-350m (layer norm after the addition)": (
        *("opt", {**NEW, "ffn_dim": 40, "word_embed_proj_dim": 8, "do_layer_norm_before": False}, None, STREAM),
    ),
    "BLOOM": ("bloom", {**FALCON, "n_layer": L, "n_head": 4}, ("self_attention", "mlp"), ALL),
    "Llama, SmolLM": ("llama", GROUPED, ("self_attn", "mlp"), ALL),
    "Mistral": ("mistral", GROUPED, ("self_attn", "mlp"), ALL),
    "Mixtral (mixture of experts)": ("mixtral", {**GROUPED, "num_local_experts": 4}, ("self_attn", "mlp"), ALL),
    "Qwen 2": ("qwen2", GROUPED, ("self_attn", "mlp"), ALL),
    "Qwen 3": ("qwen3", GEMMA, ("self_attn", "mlp"), ALL),
    "Gemma": ("gemma", GEMMA, ("self_attn", "mlp"), ALL),
    "Gemma 2": (
        *("gemma2", {**GEMMA, "query_pre_attn_scalar": 4}),
        *(("post_attention_layernorm", "post_feedforward_layernorm"), ALL),
    ),
    "Phi": ("phi", NEW, ("self_attn", "mlp"), PARALLEL),
    "Phi 3": ("phi3", GROUPED, ("self_attn", "mlp"), ALL),
    "Falcon": ("falcon", FALCON, ("self_attention", "mlp"), PARALLEL),
    "Falcon with `new_decoder_architecture`": (
        *("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, ("self_attention", "mlp")),
        "parallel, with the scales of two layer norms",
    ),
    "Falcon-RW": (
        *("falcon", {**FALCON, "parallel_attn": False, "multi_query": False, "alibi": True}),
        *(("self_attention", "mlp"), ALL),
    ),
    "StableLM": ("stablelm", GROUPED, ("self_attn", "mlp"), ALL),
    "OLMo 2 (no layer norm before attention and MLP)": (
        *("olmo2", GROUPED, ("post_attention_layernorm", "post_feedforward_layernorm"), "all sites"),
    ),
    "Granite (outputs times a factor)": (
        "granite",
        {**GROUPED, "residual_multiplier": 0.22},
        ("self_attn", "mlp"),
        ALL,
    ),
    "MPT": (
        "mpt",
        {"vocab_size": V, "d_model": 16, "n_layers": L, "n_heads": 4, "max_seq_len": 32},
        ("attn", "ffn"),
        ALL,
    ),
    "Mamba (no attention)": ("mamba", {**FALCON, "state_size": 4}, None, STREAM),
    "GPT-1 (layer norm after the addition)": ("openai-gpt", OLD, None, STREAM),
}


def network(family, **settings):
    """A random model of a family, as `transformers` makes it."""
    kind, config, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    made = transformers.AutoConfig.for_model(kind, **{**config, **settings})
    model = transformers.AutoModelForCausalLM.from_config(made).eval().requires_grad_(False)
    for p in model.parameters():
        p.normal_(std=0.3) if p.ndim > 1 else p.add_(0.1 * torch.randn(p.shape))
    model.tie_weights()
    return model


def saved(folder, family, shard_size="1GB", dtype=torch.float32, **settings):
    """Write a random model of a family and return the folder and the model."""
    model = network(family, **settings).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder, model


CASES = [Case(family, partial(saved, family=family), sites) for family, (_, _, _, sites) in FAMILIES.items()]
