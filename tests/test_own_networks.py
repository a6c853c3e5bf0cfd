"""Networks of users' own: which are refused before training, and how their checkpoints load."""

import subprocess
import sys

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import zoo
from zoo.models import SAE, Network, SparseAutoencoder, TopKSAE
from zoo.models.sae import Codes, Support

X = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))


class AbsTopKSAE(SAE):
    """The k pre-activations with the largest absolute values are on, with their signs."""

    signed_codes = True

    def __init__(self, d_in: int, d_sae: int, k: int = 4) -> None:
        super().__init__(d_in, d_sae)
        self.config = {"d_in": d_in, "d_sae": d_sae, "k": k}
        self.k = k

    def codes(self, x):
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        support = Support.of_indices(pre.abs().topk(self.k).indices, self.d_sae)
        return Codes(support.affine(x, self.W_enc, bias, support.take(pre)), support)


class WithoutConfig(AbsTopKSAE):
    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__(d_in, d_sae)
        del self.config


class OtherConfig(AbsTopKSAE):
    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__(d_in, d_sae)
        self.config = {"d_in": d_in, "width": d_sae}


class NotPlain(AbsTopKSAE):
    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__(d_in, d_sae)
        self.config = {"d_in": d_in, "d_sae": torch.tensor(d_sae)}


def trainer(**settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", **{"max_steps": 3, "enable_checkpointing": False} | quiet | settings)


def local_class():
    class Local(AbsTopKSAE):
        pass

    return Local


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: local_class()(8, 16), "define the class at the top level of a module"),
        (lambda: WithoutConfig(8, 16), "WithoutConfig has no `config`"),
        (lambda: OtherConfig(8, 16), "config` of OtherConfig does not rebuild it: .*argument: 'd_sae'"),
        (lambda: NotPlain(8, 16), "config` of NotPlain does not rebuild it: .*Tensor is not JSON"),
    ],
)
def test_a_network_that_could_not_be_loaded_is_refused_before_training(make, words, refused):
    with refused(words):
        SparseAutoencoder(make())


def test_a_network_that_does_not_derive_from_network_is_refused_before_training(refused):
    module = SparseAutoencoder(TopKSAE(8, 16, 3))
    module.net = nn.Linear(8, 8)
    module.net.d_in = 8
    with refused("it must be a zoo.models.Network"):
        trainer().fit(module, DataLoader(X, 64))


def test_a_checkpoint_of_ones_own_network_names_its_module_and_loads_where_that_is_imported(tmp_path):
    net = AbsTopKSAE(8, 16)
    loaded = zoo.load(zoo.save(net, tmp_path / "saved"))
    assert type(loaded) is AbsTopKSAE
    assert torch.equal(loaded.W_enc, net.W_enc)


def test_a_module_that_was_not_imported_is_named_and_not_executed(tmp_path):
    (tmp_path / "own_sae.py").write_text(
        "from pathlib import Path\nfrom zoo.models import TopKSAE\n"
        "Path('imported').touch()\n\nclass OwnSAE(TopKSAE):\n    pass\n"
    )
    script = "import zoo, own_sae; zoo.save(own_sae.OwnSAE(8, 16, 3), 'saved')"
    python = [sys.executable, "-c"]
    subprocess.run([*python, script], cwd=tmp_path, check=True)
    (tmp_path / "imported").unlink()
    done = subprocess.run([*python, "import zoo; zoo.load('saved')"], cwd=tmp_path, capture_output=True, text=True)
    assert "saved holds a network of class OwnSAE from module own_sae, which is not part of the zoo;" in done.stderr
    assert not (tmp_path / "imported").exists()
    script = "import zoo, own_sae; assert type(zoo.load('saved')) is own_sae.OwnSAE"
    subprocess.run([*python, script], cwd=tmp_path, check=True)


def test_a_latent_that_fires_with_negative_codes_is_not_dead():
    torch.manual_seed(0)
    module = SparseAutoencoder(AbsTopKSAE(8, 16), dead_after=64)
    fit = trainer(max_steps=8, log_every_n_steps=1)
    fit.fit(module, DataLoader(X, 32))
    codes = module.net.encode(X)
    assert (codes < 0).any()
    fired = (codes != 0).any(0)
    module._count(module.net.loss(X).fired, len(X))
    assert (module.examples_since_fired[fired] == 0).all()
    assert fit.callback_metrics["train/l0"] == 4
    assert module.net.loss(-X).fired.sum() == 4 * len(X)


def test_a_run_that_lightning_made_without_the_zoos_callbacks_loads(tmp_path, refused):
    module = SparseAutoencoder(TopKSAE(8, 16, 3))
    fit = trainer(enable_checkpointing=True, default_root_dir=tmp_path / "run")
    fit.fit(module, DataLoader(X, 64))
    folder = tmp_path / "run" / "checkpoints"
    assert torch.equal(zoo.load(tmp_path / "run").W_dec, module.net.W_dec)
    (file,) = folder.iterdir()
    (folder / "another.ckpt").write_bytes(file.read_bytes())
    with refused(f"has several checkpoints: another.ckpt, {file.name}; name the file"):
        zoo.load(tmp_path / "run")
    for path in folder.iterdir():
        path.unlink()
    with refused("has no checkpoint yet"):
        zoo.load(tmp_path / "run")
    with refused("has no step 7: only LogSpacedCheckpoints keeps single steps"):
        zoo.load(tmp_path / "run", step=7)


def test_a_model_is_loaded_in_a_precision_and_on_a_device(refused):
    half = zoo.load("sae-topk.gpt2-mini", dtype=torch.bfloat16, device="cpu")
    assert half.W_dec.dtype == torch.bfloat16
    assert half.scale.dtype == torch.float32  # a unit that everything is divided by
    assert zoo.load("sae-topk.gpt2-mini", device="meta").W_dec.device.type == "meta"
    with refused("dtype is torch.int64; expected a floating-point type"):
        zoo.load("sae-topk.gpt2-mini", dtype=torch.int64)
    with refused("device abacus cannot be used"):
        zoo.load("sae-topk.gpt2-mini", device="abacus")


def test_a_network_of_ones_own_shows_its_arguments():
    assert repr(AbsTopKSAE(8, 16)) == "AbsTopKSAE(d_in=8, d_sae=16, k=4)"
    assert issubclass(AbsTopKSAE, Network)
