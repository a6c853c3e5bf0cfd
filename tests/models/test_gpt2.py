import math

import pytest
import torch
import transformers

import zoo
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
def test_logits_equal_transformers_for_random_hugging_face_weights(tmp_path, size):
    torch.manual_seed(0)
    config = GPT2(**size).hf_config()
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).eval()
    with torch.no_grad():
        for p in reference.parameters():
            p.normal_(std=0.2)
    reference.save_pretrained(tmp_path)
    model = zoo.load(tmp_path)
    ids = torch.randint(size["vocab_size"], (2, size["context_length"]))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT2(vocab_size=97, context_length=16, d_model=24, n_layers=3, n_heads=3).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


@pytest.fixture
def ids():
    return torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_forward_pass_can_be_cut_before_any_layer(model, ids):
    for layer in range(4):
        resid_pre = model.blocks(model.embed(ids), stop=layer)
        assert torch.equal(model.unembed(model.blocks(resid_pre, start=layer)), model(ids))


@torch.no_grad()
def test_the_residual_stream_holds_what_enters_every_layer_and_what_leaves_the_last(model, ids):
    stream = model.residual_stream(ids)
    assert stream.shape == (4, 2, 16, 24)
    for layer in range(4):
        assert torch.equal(stream[layer], model.blocks(model.embed(ids), stop=layer))
    assert torch.equal(model.unembed(stream[-1]), model(ids))


@pytest.mark.parametrize("size", SIZES)
def test_the_hidden_states_of_transformers_are_the_residual_stream(size):
    torch.manual_seed(0)
    model = GPT2(**size).eval()
    ids = torch.randint(size["vocab_size"], (2, size["context_length"]))
    with torch.no_grad():
        hidden = hf_twin(model)(ids, output_hidden_states=True).hidden_states
        stream = model.residual_stream(ids)
        for ours, theirs in zip(stream, hidden[:-1], strict=False):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.transformer.ln_f(stream[-1]), hidden[-1], atol=1e-4, rtol=1e-4)


def test_the_default_model_is_the_one_with_124439808_parameters():
    with torch.device("meta"):
        model = GPT2()
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_an_untied_model_has_an_unembedding_of_its_own():
    tied, untied = (
        GPT2(vocab_size=50, context_length=8, d_model=8, n_layers=1, n_heads=1, tied=t) for t in (True, False)
    )
    assert tied.W_U is tied.W_E
    assert untied.W_U is not untied.W_E
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 50 * 8


def test_the_loss_starts_near_that_of_guessing():
    torch.manual_seed(0)
    model = GPT2(vocab_size=1000, context_length=64, d_model=64, n_layers=2, n_heads=4)
    ids = torch.randint(1000, (8, 64))
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(1000), abs=0.05)


@pytest.mark.parametrize("n_layers", [1, 8])
def test_maps_into_the_residual_stream_start_smaller_the_deeper_the_model(n_layers):
    torch.manual_seed(0)
    model = GPT2(vocab_size=500, context_length=200, d_model=96, n_layers=n_layers, n_heads=4, tied=False)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = 0.02 / math.sqrt(2 * n_layers) if name.endswith("c_proj.weight") else 0.02
            assert p.std().item() == pytest.approx(std, rel=6 / math.sqrt(2 * p.numel())), name
        else:
            assert (p == (1 if name.endswith("weight") else 0)).all(), name


@torch.no_grad()
def test_a_later_token_changes_no_earlier_logits(model, ids):
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 97
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


def test_dropout_acts_in_training_alone(ids):
    model = GPT2(vocab_size=97, context_length=16, d_model=24, n_layers=1, n_heads=3, dropout=0.5)
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


@torch.no_grad()
def test_generation_at_temperature_zero_takes_the_most_likely_token_of_the_last_window(model, ids):
    out = model.generate(ids[:, :10], 20, temperature=0)
    assert out.shape == (2, 30)
    assert torch.equal(out[:, :10], ids[:, :10])
    assert len(out[:, 10:].unique()) > 2
    for t in range(10, 30):
        assert torch.equal(out[:, t], model(out[:, max(0, t - 16) : t])[:, -1].argmax(-1))


def test_generation_is_named_by_its_generator(model, ids):
    a, b, c = (model.generate(ids, 10, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"context_length": -1}, "context_length is -1"),
        ({"d_model": 0}, "d_model is 0"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_layers": -1}, "n_layers is -1"),
        ({"d_model": 10, "n_heads": 3}, "d_model 10 is not a multiple of n_heads 3"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
    ],
)
def test_sizes_that_make_no_model_are_refused(refused, options, message):
    with refused(message):
        GPT2(**options)


def test_an_input_longer_than_the_context_is_refused(model, refused):
    with refused("17 tokens, more than the context length 16"):
        model(torch.zeros(1, 17, dtype=torch.int64))


def test_a_model_without_layers_reads_out_the_embedding(ids):
    model = GPT2(vocab_size=97, context_length=16, d_model=24, n_layers=0, n_heads=3).eval()
    assert torch.equal(model(ids), model.unembed(model.embed(ids)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_residual_stream_stays_in_float32_beside_products_of_half_precision(dtype):
    torch.manual_seed(0)
    net = GPT2(50, 12, 16, 2, 2)
    input_ids = torch.randint(50, (3, 12))
    exact = net.residual_stream(input_ids)
    with torch.autocast("cpu", dtype):
        found = net.residual_stream(input_ids)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).norm() < 0.01 * exact.norm()
