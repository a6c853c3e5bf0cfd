"""Tiny random language models of transformers, saved as their folders are."""

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

D = 16
ROWS = 320  # more than tokens, as in Pythia
COMMON = {"vocab_size": ROWS, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
KINDS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON, hidden_size=D, intermediate_size=32)),
    "pythia": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**COMMON, hidden_size=D, intermediate_size=32)),
    "opt-350m": lambda: OPTForCausalLM(
        OPTConfig(**COMMON, hidden_size=D, ffn_dim=32, word_embed_proj_dim=8, do_layer_norm_before=False)
    ),
}


def save(kind, folder, tokenizer, dtype=torch.float32, bos=False):
    """Write a folder with a model and a `tokenizers.Tokenizer`, which puts <s> before a text if asked; the model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = KINDS[kind]().to(dtype).eval()
        for p in model.parameters():
            if p.ndim == 2:
                torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    if bos:
        tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
        known = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = TemplateProcessing(single=["<s>", "$A"], special_tokens=known)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return model
