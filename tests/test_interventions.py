"""Reading and editing at every site of the zoo's GPT-2, against sums and products that say what a site is."""

from functools import partial

import pytest
import torch
from torch.nn.functional import layer_norm

from zoo.errors import ZooError
from zoo.interventions import activations, hook_name, logits, sublayers
from zoo.models import GPT2

N_LAYERS = 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = GPT2(vocab_size=97, context_length=16, d_model=24, n_layers=N_LAYERS, n_heads=3).eval()
    for p in model.requires_grad_(False).parameters():
        p.normal_(std=0.3)
    return model


@pytest.fixture
def ids():
    return torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def clean(model, ids):
    return activations(model, ids, model.sites)


def test_the_sites_are_the_residual_stream_and_what_sublayers_add_to_it(model, ids, clean):
    stream = model.residual_stream(ids)
    for layer in range(N_LAYERS):
        x = {site: clean[hook_name(layer, site)] for site in ("resid_pre", "attn_in", "resid_mid", "mlp_in")}
        assert torch.equal(x["resid_pre"], stream[layer])
        assert torch.equal(clean[hook_name(layer, "resid_post")], stream[layer + 1])
        assert torch.equal(x["attn_in"], x["resid_pre"])
        assert torch.equal(x["mlp_in"], x["resid_mid"])
        assert torch.equal(x["resid_pre"] + clean[hook_name(layer, "attn_out")], x["resid_mid"])
        assert torch.equal(x["resid_mid"] + clean[hook_name(layer, "mlp_out")], stream[layer + 1])
        scale = clean[hook_name(layer, "ln1.hook_scale")]
        torch.testing.assert_close((x["resid_pre"].var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt(), scale)


def test_edits_that_change_nothing_give_the_same_logits(model, ids, clean):
    assert torch.equal(logits(model, ids), model(ids))
    for site in model.sites:
        assert torch.equal(logits(model, ids, {site: torch.clone}), model(ids)), site
        assert torch.equal(logits(model, ids, {site: lambda x, site=site: clean[site]}), model(ids)), site


def test_an_edit_in_place_is_the_same_as_one_of_a_copy(model, ids):
    for site in model.sites:
        found = logits(model, ids, {site: lambda x: x.mul_(2)})
        assert torch.equal(found, logits(model, ids, {site: lambda x: 2 * x})), site
        assert not torch.equal(found, model(ids)), site


def test_the_scale_of_large_numbers_in_float16_is_finite(model, ids):
    with torch.no_grad():
        model.transformer.wte.weight *= 1000
    exact = activations(model, ids, ["blocks.0.ln1.hook_scale"])["blocks.0.ln1.hook_scale"]
    half = activations(model.half(), ids, ["blocks.0.ln1.hook_scale"])["blocks.0.ln1.hook_scale"]
    assert exact.max() > 300
    torch.testing.assert_close(half.float(), exact, rtol=1e-2, atol=0)


def test_an_edit_may_return_another_precision(model, ids):
    model.bfloat16()
    assert torch.equal(logits(model, ids, {"blocks.1.hook_resid_pre": torch.Tensor.float}), model(ids))


def test_an_edit_changes_what_follows_and_nothing_before(model, ids, clean):
    for index, site in enumerate(model.sites):
        seen = dict[str, torch.Tensor]()
        edits = {name: partial(seen.setdefault, name) for name in model.sites}
        edits[site] = lambda x, keep=edits[site]: keep(x) + 1 + x.abs()
        assert not torch.equal(logits(model, ids, edits), model(ids)), site
        assert all(torch.equal(seen[name], clean[name]) for name in model.sites[: index + 1]), site
        layer, last = int(site.split(".")[1]) if "blocks" in site else N_LAYERS, hook_name(N_LAYERS - 1, "resid_post")
        later = last if layer < N_LAYERS and site != last else None
        assert later is None or not torch.equal(seen[later], clean[later]), site


def test_an_edit_of_what_a_sublayer_reads_leaves_the_residual_stream(model, ids, clean):
    found = dict[str, torch.Tensor]()
    keep = partial(found.setdefault, "mid")
    logits(model, ids, {"blocks.1.hook_attn_in": torch.zeros_like, "blocks.1.hook_resid_mid": keep})
    block = model.transformer.h[1]
    expected = clean["blocks.1.hook_resid_pre"] + block.attn(block.ln_1.bias.expand(2, 16, 24))
    torch.testing.assert_close(found["mid"], expected)


def test_a_layer_norm_with_a_given_scale_is_affine(model, ids, clean):
    twice = logits(model, ids, {"ln_final.hook_scale": lambda s: 2 * s})
    x, norm = clean["blocks.2.hook_resid_post"], model.transformer.ln_f
    centred = layer_norm(x, (24,), eps=1e-5) / 2
    torch.testing.assert_close(twice, model.lm_head(centred * norm.weight + norm.bias))


def test_a_run_can_start_before_any_layer(model, ids):
    stream = model.residual_stream(ids)
    for layer in range(N_LAYERS + 1):
        assert torch.equal(logits(model, ids, start=(layer, stream[layer])), model(ids))


def test_a_zeroed_sublayer_is_a_network_without_it(model, ids):
    without = logits(model, ids, {"blocks.1.hook_mlp_out": torch.zeros_like})
    for p in model.transformer.h[1].mlp.c_proj.parameters():
        p.zero_()
    torch.testing.assert_close(without, model(ids))


def test_padding_on_the_left_or_right_changes_nothing(model, ids):
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[0, :5], mask[1, 14:] = 0, 0
    site = "blocks.1.hook_resid_post"
    found, outputs = activations(model, ids, [site], mask)[site], logits(model, ids, attention_mask=mask)
    for row, tokens in ((0, slice(5, 16)), (1, slice(0, 14))):
        alone = ids[row : row + 1, tokens]
        torch.testing.assert_close(found[row, tokens], activations(model, alone, [site])[site][0])
        torch.testing.assert_close(outputs[row, tokens], model(alone)[0])


def test_sublayers_read_and_write_in_turn(model):
    found = sublayers(model)
    assert len(found) == 2 * N_LAYERS
    assert found[3].reads == "blocks.1.hook_mlp_in"
    assert found[3].writes == ("blocks.1.hook_mlp_out",)
    assert found[3].scales == ("blocks.1.ln2.hook_scale",)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"edits": {"blocks.7.hook_resid_pre": torch.clone}}, "no site blocks.7.hook_resid_pre"),
        ({"start": (4, torch.zeros(2, 16, 24))}, "start is layer 4; the model has 3 layers"),
        (
            {"start": (2, torch.zeros(2, 16, 24)), "edits": {"blocks.1.hook_mlp_out": torch.clone}},
            "site blocks.1.hook_mlp_out lies before layer 2",
        ),
        ({"attention_mask": torch.tensor([[1, 0, 1]]).expand(2, 3)}, "padding between the tokens"),
    ],
)
def test_what_does_not_fit_is_refused(model, ids, arguments, line):
    with pytest.raises(ZooError, match=line):
        logits(model, ids[:, : arguments.get("attention_mask", ids).shape[1]], **arguments)
