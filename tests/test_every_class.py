"""What every network, module, datamodule and callback of the zoo fulfils, and what variants have in common."""

import inspect
import json
import re
from pathlib import Path

import every
import lightning as L
import pytest
import torch
import yaml

import zoo
import zoo.callbacks
import zoo.datamodules
import zoo.models
from zoo import catalog, checkpoint_config, protocols
from zoo.checkpoints import check_loadable
from zoo.cli import LINKED
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.models import BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE, ToyModule, ZooModule
from zoo.models.embeddings import Embedding

ROOT = Path(__file__).parents[1]
MODULES = {name: cls for name, cls in every.classes(ZooModule, "models").items() if cls is not ZooModule}
DATAMODULES = {n: cls for n, cls in every.classes(ZooDataModule, "datamodules").items() if cls is not ZooDataModule}
CALLBACKS = every.classes(L.Callback, "callbacks")
EMBEDDINGS = every.classes(Embedding, "models")


@pytest.mark.parametrize("name", every.NETWORKS)
def test_every_network_is_saved_and_loaded_bit_by_bit(name, tmp_path):
    torch.manual_seed(0)
    net = every.small(every.NETWORKS[name])
    check_loadable(net)
    for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
        tensor.data.uniform_(0.5, 1)
    loaded = zoo.load(zoo.save(net, tmp_path / "saved"))
    assert type(loaded) is type(net)
    assert loaded.config == net.config
    state = loaded.state_dict()
    assert {k: v for k, v in net.state_dict().items() if not torch.equal(v, state[k])} == {}
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("name", every.NETWORKS)
def test_every_network_is_plain_to_read(name):
    net = every.small(every.NETWORKS[name])
    assert json.loads(json.dumps(net.config)) == net.config
    assert set(net.config) <= set(inspect.signature(type(net)).parameters)
    assert all(f"{key}={value!r}" in repr(net) for key, value in net.config.items())
    assert net.not_for.endswith(".")
    assert net.not_for != zoo.network.Network.not_for


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_trains_on(name):
    cls = MODULES[name]
    assert cls.batches in ("tokens", "vectors", "feature vectors", "feature contexts")
    assert any(data.batches == cls.batches for data in DATAMODULES.values())


SETTINGS = {**every.NETWORKS, **MODULES, **DATAMODULES, **CALLBACKS, **EMBEDDINGS}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_every_class_is_explained(name):
    settings = [p for p in inspect.signature(SETTINGS[name]).parameters if p not in ("args", "kwargs")]
    text = inspect.getdoc(SETTINGS[name]) or ""
    assert [setting for setting in settings if f"\n    {setting}: " not in text] == []


@pytest.mark.parametrize(
    ("package", "found"),
    [
        (zoo.models, {**every.NETWORKS, **MODULES, **EMBEDDINGS}),
        (zoo.datamodules, DATAMODULES),
        (zoo.callbacks, CALLBACKS),
    ],
)
def test_every_class_that_a_config_can_name_is_exported(package, found):
    assert sorted(set(found) - set(package.__all__)) == []


@pytest.mark.parametrize("variant", every.SAE_VARIANTS)
def test_every_autoencoder_has_a_config_a_checkpoint_and_a_range_of_sparsities(variant):
    cls = getattr(zoo.models, variant)
    setting, values = cls.swept
    assert setting in inspect.signature(cls).parameters
    assert len(values) >= 3
    configs = [yaml.safe_load(path.read_text()) for path in (ROOT / "cli_configs" / "sae").glob("*.yaml")]
    named = {
        ((config.get("model") or {}).get("init_args") or {}).get("sae", {}).get("class_path") for config in configs
    }
    assert variant in named
    shipped = {checkpoint_config.read(catalog.PRETRAINED / name)["class"] for name in catalog.list_models("sae-*")}
    assert variant in shipped


X = 3 * torch.randn(64, 8, generator=torch.Generator().manual_seed(1)) + 1


def with_parameters_of(net, other):
    """A network with every parameter and buffer that another one has too."""
    net.load_state_dict({**net.state_dict(), **{k: v for k, v in other.state_dict().items() if k in net.state_dict()}})
    return net


def equal(one, other, x=X):
    """Two networks give the same codes and reconstructions, and losses if both are training."""
    for a, b in zip(one.reconstruct(x), other.reconstruct(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def made(cls, **settings):
    torch.manual_seed(0)
    net = cls(8, 24, **settings)
    net.initialise(X)
    with torch.no_grad():
        for name in net.biases:
            getattr(net, name).add_(torch.rand_like(getattr(net, name)) / 4)
    return net


def test_batchtopk_on_one_example_is_topk():
    topk = made(TopKSAE, k=3)
    batch = with_parameters_of(made(BatchTopKSAE, k=3), topk).train()
    for x in X[:8].split(1):
        equal(batch, topk, x)


def test_matryoshka_with_one_prefix_is_batchtopk():
    matryoshka = made(MatryoshkaSAE, k=3, prefixes=[]).train()
    batch = with_parameters_of(made(BatchTopKSAE, k=3), matryoshka).train()
    equal(matryoshka, batch)
    torch.testing.assert_close(matryoshka.loss(X).total, batch.loss(X).total)


def test_jumprelu_at_threshold_0_is_relu():
    relu = made(ReLUSAE).eval()
    jump = with_parameters_of(made(JumpReLUSAE, initial_threshold=0.0), relu).eval()
    jump.threshold.data.zero_()
    equal(jump, relu)


def test_gated_with_equal_paths_is_relu():
    relu = made(ReLUSAE).eval()
    gated = with_parameters_of(made(GatedSAE), relu).eval()
    gated.b_gate.data.copy_(relu.b_enc)
    gated.b_mag.data.copy_(relu.b_enc)
    gated.r_mag.data.zero_()
    equal(gated, relu)


def test_topk_of_all_latents_is_relu():
    relu = made(ReLUSAE).eval()
    equal(with_parameters_of(made(TopKSAE, k=24), relu).eval(), relu)


def test_what_is_asked_of_data_and_modules_is_listed_in_one_file():
    """Nowhere else is an attribute asked for by name that may be absent."""
    asked = []
    for folder in ("models", "datamodules", "callbacks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            asked += [f"{path.name}: {line.strip()}" for line in text.splitlines() if "hasattr(" in line]
            asked += [
                f"{path.name}: {line}" for line in text.splitlines() if 'getattr(self.trainer, "datamodule"' in line
            ]
    assert asked == []
    files = [path for folder in ("models", "datamodules", "callbacks") for path in (ROOT / folder).rglob("*.py")]
    files.append(ROOT / "zoo" / "protocols.py")
    used = {name for path in files for name in re.findall(r'offered\([^"]*"(\w+)"', path.read_text("utf-8"))}
    assert set(protocols.OPTIONAL) == used | {name for name, _ in LINKED}
    for name, cls in vars(protocols).items():
        if isinstance(cls, type) and getattr(cls, "_is_protocol", False) and cls.__module__ == protocols.__name__:
            assert protocols.members(cls), name


@pytest.mark.parametrize(("base", "method"), [(zoo.models.ReconstructionModule, "reconstruct"), (ToyModule, "losses")])
def test_a_module_that_lacks_a_method_is_refused_before_it_trains(base, method):
    with pytest.raises(TypeError, match=f"Can't instantiate abstract class Lacking .*{method}"):
        type("Lacking", (base,), {})(1)
