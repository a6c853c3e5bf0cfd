"""A GPT-2 with weights that are not those it would start from, and whether two are the same."""

import torch

from zoo.models import GPT2

SIZES = {"vocab_size": 50, "context_length": 12, "d_model": 16, "n_layers": 2, "n_heads": 2}


def network(seed=0, **options):
    torch.manual_seed(seed)
    model = GPT2(**{**SIZES, **options}).eval().requires_grad_(False)
    for p in model.parameters():
        p.normal_(std=0.3)
    return model


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
