import json

import every
import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo import models, saelens
from zoo.__main__ import main

VARIANTS = [v for v in every.SAE_VARIANTS if vars(getattr(models, v)).get("saelens_architecture")]
ARCHITECTURES = ["standard", "topk", "jumprelu", "gated"]
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)) + 1
D_IN, D_SAE, K = 8, 32, 3


@pytest.fixture
def sae_lens():
    return pytest.importorskip("sae_lens", reason="SAELens is not installed: pip install -e '.[saelens]'")


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def autoencoder(variant):
    """A network with every parameter away from where it starts."""
    torch.manual_seed(0)
    sae = getattr(models, variant)(D_IN, D_SAE, **every.sparse(variant, {"k": K}))
    for p in sae.parameters():
        torch.nn.init.normal_(p, std=0.5)
    sae.scale.fill_(2.5)
    if hasattr(sae, "threshold"):
        sae.threshold.data = 0.5 + torch.rand(sae.threshold.shape)
    return sae.eval().requires_grad_(False)


def tensors_of(architecture):
    """Random tensors of a SAELens folder."""
    torch.manual_seed(2)
    tensors = {"W_enc": torch.randn(D_IN, D_SAE), "W_dec": torch.randn(D_SAE, D_IN), "b_dec": torch.randn(D_IN)}
    names = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}.get(architecture, ("b_enc",))
    return tensors | {name: torch.randn(D_SAE) / 2 for name in names}


def put(folder, tensors, **cfg):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32"} | cfg))
    return folder


def formula(tensors, x, architecture, apply_b_dec_to_input=True, k=None, factors=1, rescale=False):
    """Reconstruction and codes as SAELens defines them, in double precision."""
    W_enc, W_dec, b_dec = (tensors[name].double() for name in ("W_enc", "W_dec", "b_dec"))
    x = x.double() - b_dec * apply_b_dec_to_input
    if architecture == "gated":
        magnitudes = x @ (W_enc * tensors["r_mag"].double().exp()) + tensors["b_mag"]
        codes = magnitudes.relu() * (x @ W_enc + tensors["b_gate"] > 0)
    else:
        norms = W_dec.norm(dim=1) if rescale else 1
        codes = pre = (x @ W_enc + tensors["b_enc"]) * norms
        if architecture == "jumprelu":
            codes = pre * (pre > tensors["threshold"])
        elif architecture == "topk":
            codes = torch.zeros_like(pre).scatter(1, *reversed(pre.topk(k)))
        codes = codes.relu()
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True) if rescale else W_dec
    return (codes * factors @ W_dec + b_dec).float(), codes.float()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_written_autoencoder_is_what_the_formula_says_and_comes_back_the_same(tmp_path, variant):
    sae = autoencoder(variant)
    folder = saelens.write(sae, tmp_path / "sae")
    assert {file.name for file in folder.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    cfg, back = json.loads((folder / "cfg.json").read_text()), zoo.load(folder)
    expected = formula(load_file(folder / "sae_weights.safetensors"), X, cfg["architecture"], k=cfg.get("k"))
    for network in (sae, back):
        for ours, theirs in zip(network.reconstruct(X), expected, strict=True):
            close(ours, theirs)
    assert 0 < expected[1].count_nonzero() < expected[1].numel()
    shared = variant in saelens.CLASSES.values()
    assert type(back).__name__ == (variant if shared else "JumpReLUSAE")
    assert back.scale == sae.scale
    if shared:
        assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in sae.state_dict().items())


@pytest.mark.parametrize("variant", ["BatchTopKSAE", "MatryoshkaSAE"])
def test_a_code_at_the_threshold_of_a_batch_top_k_stays_on(tmp_path, variant):
    sae = autoencoder(variant)
    sae.threshold.copy_((X @ sae.W_enc + sae.encoder_bias())[0].relu().median())
    on = sae.encode(X) > 0
    assert torch.equal(zoo.load(saelens.write(sae, tmp_path / "sae")).encode(X) > 0, on)


def test_an_untrained_batch_top_k_is_written_as_it_is_at_inference_with_threshold_0(tmp_path):
    sae = models.BatchTopKSAE(D_IN, D_SAE, k=K).eval()
    close(zoo.load(saelens.write(sae, tmp_path / "sae"))(X), sae(X))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subtracted", [True, False])
def test_a_folder_whose_input_keeps_b_dec_is_read_exactly(tmp_path, architecture, subtracted):
    tensors, k = tensors_of(architecture), {"k": K} if architecture == "topk" else {}
    put(tmp_path, tensors, architecture=architecture, apply_b_dec_to_input=subtracted, **k)
    sae = zoo.load(tmp_path)
    for ours, theirs in zip(sae.reconstruct(X), formula(tensors, X, architecture, subtracted, **k), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("subtracted", [True, False])
def test_codes_in_units_of_the_decoders_norms_are_folded_in(tmp_path, subtracted):
    tensors = tensors_of("topk")
    cfg = {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": subtracted}
    sae = zoo.load(put(tmp_path, tensors, **cfg))
    expected = formula(tensors, X, "topk", subtracted, k=K, rescale=True)
    for ours, theirs in zip(sae.reconstruct(X), expected, strict=True):
        close(ours, theirs)
    close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_factors_on_codes_of_early_versions_are_folded_into_the_decoder(tmp_path, refused, name):
    tensors, factors = tensors_of("standard"), torch.rand(D_SAE) + 0.5
    put(tmp_path, tensors | {name: factors}, finetuning_scaling_factor=True)
    for ours, theirs in zip(zoo.load(tmp_path).reconstruct(X), formula(tensors, X, "", factors=factors), strict=True):
        close(ours, theirs)
    put(tmp_path, tensors | {name: factors}, finetuning_scaling_factor=False)
    with refused("has scaling factors, but finetuning_scaling_factor is not true"):
        zoo.load(tmp_path)
    put(tmp_path, tensors | {name: torch.ones(D_SAE)}, finetuning_scaling_factor=False)
    close(zoo.load(tmp_path)(X), formula(tensors, X, "")[0])


EARLY = {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "l1_coefficient": 8e-5, "context_size": 128}


@pytest.mark.parametrize(
    ("architecture", "cfg"),
    [
        ("standard", {}),
        ("standard", {"activation_fn": "relu", "normalize_activations": "none", "metadata": {}}),
        ("standard", {"activation_fn_str": "relu", "normalize_activations": False, "prepend_bos": True}),
        ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": None}),
        ("topk", {"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": K}}),
        ("gated", {"architecture": "gated", "activation_fn_str": "relu", "finetuning_scaling_factor": False}),
        ("jumprelu", {"architecture": "jumprelu", "activation_fn_str": "relu", "activation_fn_kwargs": {}}),
    ],
)
def test_settings_of_versions_1_to_5_are_understood(tmp_path, architecture, cfg):
    tensors = tensors_of(architecture)
    sae = zoo.load(put(tmp_path, tensors, **EARLY, **cfg))
    assert type(sae).__name__ == saelens.CLASSES[architecture]
    close(sae(X), formula(tensors, X, architecture, k=K)[0])


def test_logarithms_of_thresholds_and_half_precision_are_read(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in tensors_of("jumprelu").items()}
    stored = {name: tensor for name, tensor in tensors.items() if name != "threshold"}
    put(tmp_path, stored | {"log_threshold": tensors["threshold"]}, architecture="jumprelu", dtype="bfloat16")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    close(zoo.load(tmp_path)(X), formula(tensors | {"threshold": tensors["threshold"].exp()}, X, "jumprelu")[0])


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"architecture": "temporal"}, "the architecture is 'temporal'; the zoo reads standard, topk, jumprelu, gated"),
        ({"architecture": ["standard"]}, "the architecture is"),
        ({"architecture": "batchtopk"}, "the architecture is 'batchtopk'"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn is 'tanh-relu', which no network of the zoo supports"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ({"normalize_activations": "expected_average_only_in"}, "fold it into the weights with SAELens first"),
        ({"normalize_activations": True}, "normalize_activations is True"),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ({"hook_point": "blocks.3.attn.hook_z"}, "reshape_activations is 'hook_z'"),
        ({"d_in": None}, r"d_in in cfg\.json is None, not a whole number"),
        ({"d_sae": 32.0}, r"d_sae in cfg\.json is 32\.0, not a whole number"),
        ({"d_in": 2**60}, r"tensor W_dec has shape \[32, 8\]; cfg\.json says \[32, \d+\]"),
        ({"d_sae": -1}, r"has shape .*; cfg\.json says \[-1, 8\]"),
        ({"architecture": "topk"}, r"k in cfg\.json is None, not a whole number"),
        ({"architecture": "topk", "k": True}, "k in .* is True"),
        (
            {"architecture": "topk", "k": 33},
            "cannot be built: k is 33; it must be a whole number",
        ),
        ({"apply_b_dec_to_input": "no"}, r"apply_b_dec_to_input in cfg\.json is 'no', not true or false"),
        ({"architecture": "jumprelu"}, "has no tensor threshold"),
        ({"architecture": "gated"}, "tensor b_enc of sae_weights.safetensors does not belong to its architecture"),
    ],
)
def test_a_config_the_zoo_cannot_follow_is_refused(tmp_path, refused, cfg, message):
    put(tmp_path, tensors_of("standard"), **cfg)
    with refused(message):
        zoo.load(tmp_path)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_a_tensor_missing_or_of_another_shape_is_refused(tmp_path, refused, name):
    tensors = tensors_of("standard")
    put(tmp_path, tensors | {name: torch.zeros(5)})
    with refused(rf"tensor {name} has shape \[5\]; cfg\.json says"):
        zoo.load(tmp_path)
    del tensors[name]
    put(tmp_path, tensors)
    with refused(f"has no tensor {name}"):
        zoo.load(tmp_path)


@pytest.mark.parametrize("content", [b"not json", b"[]", b"\xff", b"", b"null"])
def test_a_damaged_config_is_refused(tmp_path, refused, content):
    (put(tmp_path, tensors_of("standard")) / "cfg.json").write_bytes(content)
    with refused(r"cfg\.json is damaged"):
        zoo.load(tmp_path)


def test_damaged_or_missing_weights_are_refused(tmp_path, refused):
    weights = put(tmp_path, tensors_of("standard")) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with refused(r"sae_weights\.safetensors is damaged"):
        zoo.load(tmp_path)
    weights.unlink()
    with refused(r"has no sae_weights\.safetensors"):
        zoo.load(tmp_path)


def test_a_folder_of_a_hub_repository_is_read(tmp_path, hub):
    saelens.write(autoencoder("TopKSAE"), tmp_path / "repo" / "blocks.3.hook_resid_pre")
    hub("org/saes", tmp_path / "repo", absent=["blocks.3.hook_resid_pre/config.json"])
    close(zoo.load("hf:org/saes/blocks.3.hook_resid_pre")(X), autoencoder("TopKSAE")(X))


def test_the_command_line_exports_checkpoints_with_what_they_were_trained_on(tmp_path, capsys):
    data = {"model": "hf:openai-community/gpt2@main", "layer": 3, "sequence_length": 64, "batch_size": 2}
    provenance = {"config": {"data": {"class_path": "ActivationsDataModule", "init_args": data}}}
    sae = autoencoder("GatedSAE")
    part = {"class": "GatedSAE", "init_args": sae.config, "provenance": provenance}
    state = {f"net.{name}": tensor for name, tensor in sae.state_dict().items()}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, "zoo": part}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    source = zoo.save(sae, tmp_path / "saved", provenance=provenance)
    for ckpt in (source, tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.ckpt"):  # into the same folder
        assert main(["export", "--format", "saelens", str(ckpt), str(tmp_path / "out")]) == 0
        assert capsys.readouterr().out == f"wrote {tmp_path / 'out'}\n"
        close(zoo.load(tmp_path / "out")(X), sae(X))
        metadata = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
        assert metadata["model_name"] == "gpt2"
        assert metadata["hook_name"] == "blocks.3.hook_resid_pre"
        assert metadata["context_size"] == 64


def test_rows_have_no_hook_name(tmp_path):
    provenance = {"config": {"data": {"init_args": {"source": "gpt2-stdlib.learned"}}}}
    assert saelens.training_data(provenance) == {}
    assert saelens.training_data({}) == {}
    assert saelens.training_data({"config": None}) == {}


def test_what_is_no_autoencoder_is_not_written_and_other_folders_are_left_alone(tmp_path, refused):
    with refused("SAELens has no architecture for a GPT2; it has one for BatchTopKSAE"):
        saelens.write(models.GPT2(vocab_size=9, context_length=4, d_model=4, n_layers=1, n_heads=1), tmp_path / "out")
    source = zoo.save(autoencoder("TopKSAE"), tmp_path / "saved")
    before = {file: file.read_bytes() for file in source.iterdir()}
    with refused("holds other files"):
        saelens.write(autoencoder("TopKSAE"), source)
    assert {file: file.read_bytes() for file in source.iterdir()} == before


# Against SAELens itself.


@pytest.mark.parametrize("variant", VARIANTS)
def test_saelens_reads_what_the_zoo_writes(tmp_path, sae_lens, variant):
    sae = autoencoder(variant)
    metadata = {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_pre", "context_size": 64}
    theirs = sae_lens.SAE.load_from_disk(saelens.write(sae, tmp_path / "sae", metadata))
    for ours, other in zip(sae.reconstruct(X), (theirs(X), theirs.encode(X)), strict=True):
        close(ours, other)
    assert {name: theirs.cfg.metadata[name] for name in metadata} == metadata


def randomised(sae):
    torch.manual_seed(3)
    for p in sae.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return sae


def same_in_the_zoo(sae_lens, folder):
    theirs, ours = sae_lens.SAE.load_from_disk(folder), zoo.load(folder)
    x_hat, codes = ours.reconstruct(X)
    close(x_hat, theirs(X))
    close(codes, theirs.encode(X))
    assert 0 < codes.count_nonzero() < codes.numel()


@pytest.mark.parametrize("name", ["Standard", "TopK", "JumpReLU", "Gated"])
@pytest.mark.parametrize("subtracted", [True, False])
def test_the_zoo_reads_what_saelens_writes(tmp_path, sae_lens, name, subtracted):
    sizes = {"d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": subtracted}
    kinds = [{}] if name != "TopK" else [{"k": K}, {"k": K, "rescale_acts_by_decoder_norm": True}]
    for number, options in enumerate(kinds):
        cfg = getattr(sae_lens, f"{name}SAEConfig")(**sizes, **options)
        randomised(getattr(sae_lens, f"{name}SAE")(cfg)).save_model(tmp_path / str(number))
        same_in_the_zoo(sae_lens, tmp_path / str(number))


@pytest.mark.parametrize("name", ["Standard", "TopK", "JumpReLU", "Gated", "BatchTopK", "MatryoshkaBatchTopK"])
def test_the_zoo_reads_what_saelens_saves_after_training(tmp_path, sae_lens, name):
    options = {"k": K} if "TopK" in name else {}
    options |= {"matryoshka_widths": [8, D_SAE]} if name.startswith("Matryoshka") else {}
    cfg = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=D_IN, d_sae=D_SAE, **options)
    sae = randomised(getattr(sae_lens, f"{name}TrainingSAE")(cfg))
    if "Batch" in name:
        sae.topk_threshold.fill_(0.7)
    sae.save_inference_model(tmp_path)
    same_in_the_zoo(sae_lens, tmp_path)


@pytest.mark.parametrize(
    ("architecture", "cfg"),
    [
        ("standard", {"activation_fn_str": "relu", "normalize_activations": False}),
        ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}),
        ("gated", {"architecture": "gated", "normalize_activations": "none", "apply_b_dec_to_input": False}),
        ("jumprelu", {"architecture": "jumprelu", "activation_fn": "relu", "sae_lens_version": "5.3.0"}),
    ],
)
def test_saelens_takes_folders_of_early_versions_as_the_zoo_does(tmp_path, sae_lens, architecture, cfg):
    same_in_the_zoo(sae_lens, put(tmp_path, tensors_of(architecture), **EARLY, **cfg))
