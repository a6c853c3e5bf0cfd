"""Models of `transformers` run with edits: their sites equal what the reference computes, for every family."""

import json
from functools import partial

import pytest
import torch
import transformers
from supported.language_models import FAMILIES, NEW, SITES, L, V, network, saved

import zoo
from zoo.errors import ZooError
from zoo.interventions import activations, hook_name, logits, sublayers
from zoo.models import CausalLM
from zoo.source import Source

IDS = torch.randint(3, V, (2, 9), generator=torch.Generator().manual_seed(0))
SEQUENTIAL = [family for family, (_, _, names, sites) in FAMILIES.items() if names and "resid_mid" in SITES[sites]]
PARALLEL = [family for family, (_, _, _, sites) in FAMILIES.items() if "layer_in" in SITES[sites]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Returns the model of a family, saved by `transformers` and loaded by the zoo, and the reference."""
    made: dict[str, tuple[CausalLM, torch.nn.Module]] = {}

    def load(family):
        if family not in made:
            folder, reference = saved(tmp_path_factory.mktemp("family"), family)
            made[family] = (zoo.load(folder), reference)
        return made[family]

    return load


def what_sublayers_add(reference, family):
    """What attention and MLP of every layer add, by hooks on the modules that compute it: site -> tensor."""
    kind, _, names, _ = FAMILIES[family]
    layers = next(m for m in reference.modules() if isinstance(m, torch.nn.ModuleList))
    found, handles = {}, []
    for index, layer in enumerate(layers):
        for site, name in zip(("attn_out", "mlp_out"), names, strict=True):
            module = dict(layer.named_children())[name]

            adds_itself = kind == "bloom" or (kind, name) == ("mpt", "ffn")  # the module adds the stream, its argument

            def keep(_, args, output, at, adds_itself):
                y = output[0] if isinstance(output, tuple) else output
                found[at] = y.clone().reshape(*IDS.shape, -1) - (args[1] if adds_itself else 0)

            keep_here = partial(keep, at=hook_name(index, site), adds_itself=adds_itself)
            handles.append(module.register_forward_hook(keep_here))
    reference(IDS)
    for handle in handles:
        handle.remove()
    factor = 0.22 if kind == "granite" else 1
    return {name: factor * y for name, y in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_equal_what_the_reference_computes(loaded, family):
    model, reference = loaded(family)
    kind, _, names, sites = FAMILIES[family]
    assert isinstance(model, CausalLM)
    assert model.n_layers == L
    expected = [hook_name(layer, site) for layer in range(L) for site in SITES[sites]]
    assert [site for site in model.sites if site != "ln_final.hook_scale"] == expected
    assert torch.equal(model(IDS), reference(IDS).logits)
    found, stream = activations(model, IDS, model.sites), reference(IDS, output_hidden_states=True).hidden_states
    if kind != "mamba":  # `transformers` lists its states in another order
        for layer in range(L):
            assert torch.equal(found[hook_name(layer, "resid_pre")], stream[layer])
            assert layer == 0 or torch.equal(found[hook_name(layer - 1, "resid_post")], stream[layer])
    for name, expected_output in (what_sublayers_add(reference, family) if names else {}).items():
        torch.testing.assert_close(found[name], expected_output, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_that_change_nothing_give_the_same_logits_from_any_layer_on(loaded, family):
    model, reference = loaded(family)
    clean = reference(IDS).logits
    found = activations(model, IDS, model.sites)
    for site in model.sites:
        assert torch.equal(logits(model, IDS, {site: torch.clone}), clean), site
    for layer in range(L):
        assert torch.equal(logits(model, IDS, start=(layer, found[hook_name(layer, "resid_pre")])), clean)
    assert torch.equal(logits(model, IDS, start=(L, found[hook_name(L - 1, "resid_post")])), clean)
    assert torch.equal(model(IDS), clean), "a run leaves nothing behind"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_changes_what_follows_and_nothing_before(loaded, family):
    model, _ = loaded(family)
    clean, plain = activations(model, IDS, model.sites), model(IDS)
    for index, site in enumerate(model.sites):
        seen = dict[str, torch.Tensor]()
        edits = {name: partial(seen.setdefault, name) for name in model.sites}
        edits[site] = lambda x, keep=edits[site]: keep(x).flip(-1) if x.shape[-1] > 1 else 2 * keep(x)
        assert not torch.equal(logits(model, IDS, edits), plain), site
        assert all(torch.equal(seen[name], clean[name]) for name in model.sites[: index + 1]), site


@pytest.mark.parametrize(
    "family", ["Llama, SmolLM", "GPT-NeoX, Pythia", "BLOOM", "Falcon", "Granite (outputs times a factor)"]
)
def test_an_edit_in_place_is_the_same_as_one_of_a_copy(loaded, family):
    model, _ = loaded(family)
    for site in model.sites:
        found = logits(model, IDS, {site: lambda x: x.mul_(2)})
        assert torch.equal(found, logits(model, IDS, {site: lambda x: 2 * x})), site
        assert not torch.equal(found, model(IDS)), site


@pytest.mark.parametrize("family", [*SEQUENTIAL, *PARALLEL])
def test_what_a_sublayer_reads_can_be_edited_alone(loaded, family):
    model, _ = loaded(family)
    clean = activations(model, IDS, model.sites)
    seen = dict[str, torch.Tensor]()
    edits = {name: partial(seen.setdefault, name) for name in model.sites}
    edits |= {name: torch.zeros_like for name in model.sites if name.endswith("_in")}
    logits(model, IDS, edits)
    stream = clean["blocks.0.hook_resid_pre"]
    for layer in range(L):
        attn, mlp, after = (seen[hook_name(layer, site)] for site in ("attn_out", "mlp_out", "resid_post"))
        torch.testing.assert_close(stream + attn + mlp, after)
        stream = after
    assert not torch.equal(seen["blocks.0.hook_attn_out"], clean["blocks.0.hook_attn_out"])


@pytest.mark.parametrize("family", [*SEQUENTIAL, *PARALLEL])
def test_a_replaced_output_is_what_the_sublayer_adds(loaded, family):
    model, _ = loaded(family)
    new = torch.randn(*IDS.shape, 16, generator=torch.Generator().manual_seed(1))
    for site in ("attn_out", "mlp_out"):
        seen = dict[str, torch.Tensor]()
        edits = {name: partial(seen.setdefault, name) for name in model.sites}
        edits[f"blocks.1.hook_{site}"] = lambda x: new
        logits(model, IDS, edits)
        other = seen[f"blocks.1.hook_{'mlp' if site == 'attn_out' else 'attn'}_out"]
        torch.testing.assert_close(seen["blocks.1.hook_resid_post"], seen["blocks.1.hook_resid_pre"] + new + other)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_the_stream_between_attention_and_mlp_can_be_replaced(loaded, family):
    model, _ = loaded(family)
    new = torch.randn(*IDS.shape, 16, generator=torch.Generator().manual_seed(1))
    seen = dict[str, torch.Tensor]()
    edits = {name: partial(seen.setdefault, name) for name in ("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out")}
    edits["blocks.1.hook_resid_post"] = partial(seen.setdefault, "after")
    logits(model, IDS, {**edits, "blocks.1.hook_resid_mid": lambda x: new})
    torch.testing.assert_close(seen["blocks.1.hook_mlp_in"], new)
    torch.testing.assert_close(seen["after"], new + seen["blocks.1.hook_mlp_out"])


@pytest.mark.parametrize("family", [*SEQUENTIAL, *PARALLEL])
def test_sublayers_that_read_the_same_stream_count_as_one(loaded, family):
    found = sublayers(loaded(family)[0])
    assert len(found) == (L if family in PARALLEL else 2 * L)
    assert {len(sublayer.writes) for sublayer in found} == ({2} if family in PARALLEL else {1})


@pytest.mark.parametrize("family", [f for f, (_, _, _, sites) in FAMILIES.items() if "scale" in sites])
def test_twice_the_scale_of_a_layer_norm_is_half_its_weight(loaded, family):
    model, _ = loaded(family)
    own = {hook_name(1, site): norm for site, norm in model._norms[1].items()}
    for name, norm in {**own, "ln_final.hook_scale": model._final_norm}.items():
        doubled = logits(model, IDS, {name: lambda scale: 2 * scale})
        weight = norm.module.weight
        offset = 1 if FAMILIES[family][0].startswith("gemma") else 0  # Gemma multiplies by 1 + weight
        before = weight.clone()
        weight.copy_((weight + offset) / 2 - offset)
        halved = model(IDS)
        weight.copy_(before)
        torch.testing.assert_close(doubled, halved, msg=name)
        assert not torch.allclose(doubled, model(IDS))


@pytest.mark.parametrize("family", ["Llama, SmolLM", "GPT-NeoX, Pythia", "OPT", "Gemma 2"])
def test_the_scale_is_the_root_mean_square_of_the_stream(loaded, family):
    model, _ = loaded(family)
    x = activations(model, IDS, ["blocks.1.hook_resid_pre", "blocks.1.ln1.hook_scale"])
    stream = x["blocks.1.hook_resid_pre"]
    if FAMILIES[family][0] in ("gpt_neox", "opt"):
        stream = stream - stream.mean(-1, keepdim=True)
    torch.testing.assert_close(x["blocks.1.ln1.hook_scale"], stream.square().mean(-1, keepdim=True).sqrt())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["Llama, SmolLM", "GPT-NeoX, Pythia", "Gemma 2"])
def test_half_precision_has_the_same_sites_and_the_references_numbers(tmp_path, loaded, family, dtype):
    folder, _ = saved(tmp_path, family, dtype=dtype)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    model = Source.open(folder).load()
    assert model.sites == loaded(family)[0].sites
    assert model(IDS).dtype == dtype
    assert torch.equal(model(IDS), reference(IDS).logits)
    stream = reference(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(activations(model, IDS, ["blocks.2.hook_resid_pre"])["blocks.2.hook_resid_pre"], stream[2])
    assert zoo.load(folder).W_E.dtype == torch.float32


def test_the_precision_is_that_of_the_files_whatever_the_config_says(tmp_path):
    folder, reference = saved(tmp_path, "Llama, SmolLM")
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(zoo.load(folder)(IDS), reference(IDS).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_model_that_reads_later_tokens_is_refused_in_every_precision(tmp_path, refused, dtype):
    config = transformers.BertConfig(**{**NEW, "type_vocab_size": 1})
    transformers.BertLMHeadModel(config).to(dtype).save_pretrained(tmp_path)
    with refused("is not causal"):
        Source.open(tmp_path).load()


def test_the_small_number_in_a_layer_norm_is_measured():
    settings = {key: value for key, value in NEW.items() if key not in ("bos_token_id",)}
    olmo = transformers.OlmoForCausalLM(transformers.OlmoConfig(**settings)).eval().requires_grad_(False)
    olmo.model.embed_tokens.weight.mul_(0.1)  # about as small as the number, 1e-5, which is no attribute of the norm
    model = CausalLM(olmo, "olmo")
    found = activations(model, IDS, ["blocks.0.hook_resid_pre", "blocks.0.ln1.hook_scale"])
    x = found["blocks.0.hook_resid_pre"]
    expected = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(found["blocks.0.ln1.hook_scale"], expected, rtol=1e-2, atol=0)
    assert (expected / x.std(-1, unbiased=False, keepdim=True)).min() > 1.2


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model_type": ["llama"]}, "is a model of type \\['llama'\\]"),
        ({"auto_map": ["x"], "model_type": "mine"}, "transformers has no causal language model of this type"),
        ({"hidden_act": "nothing"}, "cannot be loaded: .*nothing"),
        ({"vocab_size": V + 1}, r"tensor \\S+ has shape \\[61, 16\\]; its config says \\[62, 16\\]"),
        ({"hidden_size": "many"}, "cannot be loaded"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(tmp_path, refused, change, line):
    folder, _ = saved(tmp_path, "Llama, SmolLM")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with refused(line.replace("\\\\", "\\")):
        zoo.load(folder)


def test_a_model_that_cannot_read_token_ids_is_refused(refused):
    model = network("Llama, SmolLM")
    model.config.return_dict = False
    assert torch.equal(CausalLM(model, "a model that returns tuples")(IDS), network("Llama, SmolLM")(IDS).logits)
    model.model.layers[1].forward = lambda *args, **kwargs: 1 / 0
    with refused("cannot be run on token ids: division by zero; its embedding can be studied"):
        CausalLM(model, "broken")


def test_the_context_length_of_mpt_is_known(loaded):
    assert loaded("MPT")[0].context_length == 32


def test_the_frequencies_of_rotary_embeddings_stay_in_float32(loaded, tmp_path):
    folder, reference = saved(tmp_path, "Llama, SmolLM")
    model = zoo.load(folder, dtype=torch.bfloat16)
    (name,) = {name for name, _ in model.named_buffers() if name.endswith("rotary_emb.inv_freq")}
    assert model.W_E.dtype == torch.bfloat16
    assert torch.equal(dict(model.named_buffers())[name], dict(reference.named_buffers())[name.removeprefix("model.")])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["Llama, SmolLM", "GPT-NeoX, Pythia", "OPT", "Falcon-RW"])
def test_tied_and_untied_models_in_several_files(tmp_path, family, tied):
    folder, reference = saved(tmp_path, family, shard_size="4KB", tie_word_embeddings=tied)
    assert len(list(folder.glob("*.safetensors"))) > 1
    model = zoo.load(folder)
    assert torch.equal(model(IDS), reference(IDS).logits)
    assert torch.equal(model.W_E, zoo.embedding(folder))


@pytest.mark.parametrize("family", ["Llama, SmolLM", "GPT-NeoX, Pythia", "OPT", "BLOOM", "Falcon-RW"])
def test_padding_on_the_left_is_treated_as_the_reference_treats_it(loaded, family):
    model, reference = loaded(family)
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    takes_positions = FAMILIES[family][0] not in ("opt", "bloom", "falcon")
    told = {"position_ids": positions} if takes_positions else {}
    expected = reference(IDS, attention_mask=mask, **told).logits
    found = logits(model, IDS, attention_mask=mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])


def test_a_training_step_on_the_hub_is_a_revision(tmp_path, hub):
    models = {}
    for step in (0, 1000):
        (tmp_path / str(step)).mkdir()
        folder, models[step] = saved(tmp_path / str(step), "GPT-NeoX, Pythia", shard_size="4KB", vocab_size=V + step)
        hub(
            "EleutherAI/pythia-14m",
            folder,
            f"step{step}",
            absent=["model.safetensors", "step-001000/config.json", "step-001000/cfg.json"],
        )
    for name, step in (("hf:EleutherAI/pythia-14m@step1000", None), ("hf:EleutherAI/pythia-14m", 1000)):
        assert torch.equal(zoo.load(name, step)(IDS), models[1000](IDS).logits)


def test_an_untrained_network_has_the_same_sites_and_other_weights(loaded):
    model, _ = loaded("Llama, SmolLM")
    torch.manual_seed(1)
    fresh = model.untrained()
    assert fresh.sites == model.sites
    assert fresh.W_E.std().item() == pytest.approx(0.02, rel=0.1)  # the standard deviation of Llama's initialisation
    assert not torch.equal(fresh(IDS), model(IDS))


def test_sublayers_that_add_nothing_are_found(tmp_path):
    reference = network("Llama, SmolLM")
    for name, p in reference.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            p.zero_()
    model = CausalLM(reference, "a network without sublayers")
    assert len(sublayers(model)) == 2 * L
    assert torch.equal(
        activations(model, IDS, ["blocks.1.hook_mlp_out"])["blocks.1.hook_mlp_out"], torch.zeros(2, 9, 16)
    )


def test_gradients_flow_through_edits(loaded):
    model, _ = loaded("Llama, SmolLM")
    delta = torch.zeros(16, requires_grad=True)
    logits(model, IDS, {"blocks.1.hook_resid_pre": lambda x: x + delta})[0, -1, 3].backward()
    step = 1e-2 * torch.nn.functional.one_hot(torch.tensor(5), 16)
    sides = [logits(model, IDS, {"blocks.1.hook_resid_pre": lambda x, s=s: x + s * step})[0, -1, 3] for s in (1, -1)]
    assert delta.grad[5].item() == pytest.approx(((sides[0] - sides[1]) / 2e-2).item(), rel=1e-2)


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class MineConfig(PretrainedConfig):
    model_type = "mine"
    vocab_size, hidden_size, num_hidden_layers = 61, 16, 2


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(16))

    def forward(self, x):
        return x + x @ self.weight


class Mine(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.tokens = torch.nn.Embedding(61, 16)
        self.layers = torch.nn.ModuleList([Layer(), Layer()])
        self.head = torch.nn.Linear(16, 61, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.tokens

    def forward(self, input_ids, use_cache=False):
        x = self.tokens(input_ids)
        for layer in self.layers:
            x = layer(x)
        return CausalLMOutput(logits=self.head(x))
"""


def test_code_that_comes_with_a_model_runs_only_if_it_is_trusted(tmp_path, refused):
    from safetensors.torch import save_file

    (tmp_path / "modeling_mine.py").write_text(CODE + "\nopen(__file__ + '.ran', 'w').close()\n")
    auto_map = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.Mine"}
    config = {"model_type": "mine", "architectures": ["Mine"], "auto_map": auto_map}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {name: torch.randn(61, 16) for name in ("tokens.weight", "head.weight")}
    tensors |= {f"layers.{i}.weight": torch.randn(16, 16) for i in range(2)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with refused("needs Python code that comes with it, which is run only with trust_remote_code"):
        zoo.load(tmp_path)
    model = zoo.load(tmp_path, trust_remote_code=True)
    x = tensors["tokens.weight"][IDS]
    for i in range(2):
        x = x + x @ tensors[f"layers.{i}.weight"]
    torch.testing.assert_close(model(IDS), x @ tensors["head.weight"].T)


@pytest.mark.parametrize(
    ("family", "site", "line"),
    [
        (
            "Llama, SmolLM",
            "blocks.3.hook_resid_pre",
            "no site blocks.3.hook_resid_pre; it has",
        ),
        ("GPT-NeoX, Pythia", "blocks.0.hook_resid_mid", "it has .*blocks.0.hook_layer_in"),
        ("Mamba (no attention)", "blocks.0.hook_mlp_out", "it has blocks.0.hook_resid_pre"),
    ],
)
def test_sites_that_a_model_does_not_have_are_refused(loaded, family, site, line):
    with pytest.raises(ZooError, match=line):
        logits(loaded(family)[0], IDS, {site: torch.clone})


def test_a_text_longer_than_the_context_is_refused(loaded, refused):
    with refused("the input has 33 tokens, more than the context length 32 of"):
        loaded("Llama, SmolLM")[0](torch.zeros(1, 33, dtype=torch.int64))


def test_a_model_without_sublayers_in_the_stream_has_no_sublayers(loaded, refused):
    with refused("the model has no site blocks.0.hook_attn_in"):
        sublayers(loaded("OPT-350m (layer norm after the addition)")[0])
