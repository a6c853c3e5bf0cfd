import pytest
import torch
import transformers

from zoo.models import GPT2

SIZES = [
    {"vocab_size": 97, "context_length": 16, "d_model": 24, "n_layers": 1, "n_heads": 3},
    {"vocab_size": 512, "context_length": 64, "d_model": 64, "n_layers": 3, "n_heads": 4, "tied": False},
    {"vocab_size": 1000, "context_length": 128, "d_model": 192, "n_layers": 6, "n_heads": 6},
]


def hf_twin(model: GPT2) -> transformers.GPT2LMHeadModel:
    twin = transformers.GPT2LMHeadModel(transformers.GPT2Config(**model.hf_config()))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


@pytest.mark.parametrize("size", SIZES)
def test_logits_equal_transformers_for_random_hugging_face_weights(size):
    torch.manual_seed(0)
    config = GPT2(**size).hf_config()
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).eval()
    with torch.no_grad():
        for p in reference.parameters():
            p.normal_(std=0.2)
    model = GPT2.from_hf(reference.config.to_dict(), reference.state_dict()).eval()
    ids = torch.randint(size["vocab_size"], (2, size["context_length"]))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference(ids).logits, atol=1e-4, rtol=1e-4)
