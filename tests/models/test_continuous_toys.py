import pytest
import torch

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import (
    AdamLinear,
    CircuitsInDepth,
    CompressedComputation,
    PowerSuperposition,
    ToySuperposition,
    UniversalProducts,
)
from zoo.models.toy.circuits import interference, interference_of_active
from zoo.models.toy.compressed_computation import dedicated_loss, least_loss, zero_map_loss
from zoo.models.toy.pair_bounds import least_balanced_loss
from zoo.models.toy.products import sign_readoff
from zoo.quiet_fit import fit, validate


def signed(n=10, on=1.0, n_seeds=2, **options):
    options = {"batch_size": 256, "n_validation": 1 << 14} | options
    return SparseFeaturesDataModule(n, BernoulliActive(on), "signed", n_seeds=n_seeds, **options)


def pairs(m=6, s=2, values="sign", n_seeds=2, **options):
    options = {"batch_size": 128, "n_validation": 1 << 13} | options
    return SparseFeaturesDataModule(m, FixedActive(s), values, n_seeds=n_seeds, **options)


def measured(module, data):
    """What a validation logs."""
    validate(module, data)
    return {name: float(value) for name, value in module.trainer.callback_metrics.items()}


def without_outputs(module):
    """The same module with outputs of 0."""
    for name in ("W_out", "b_out"):
        if (parameter := getattr(module.net, name, None)) is not None:
            parameter.data.zero_()
    return module


@pytest.mark.parametrize("mixing", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("q", [2.0, 4.0])
def test_compressed_computation_logs_its_exact_lines_and_outputs_of_zero_have_the_loss_of_the_zero_map(mixing, q):
    torch.manual_seed(0)
    module = without_outputs(CompressedComputation(10, 4, 2, q, mixing, d_embed=30))
    found, M, p = measured(module, signed()), module.net.M if mixing else None, 0.1
    lines = {name.removeprefix("val/loss_"): v for name, v in found.items() if name.startswith("val/loss_")}
    lines.pop("best")
    if q == 2:
        expected = {"zero_map": p * zero_map_loss(M), "bound": p * least_loss(4, 10, p, M)}
        expected |= {} if mixing else {"dedicated": p * dedicated_loss(4, 10, p)}
    else:
        expected = {} if mixing else {"zero_map": p / 10, "dedicated": 0.6 * p / 10}
    assert lines == pytest.approx(expected, rel=1e-5)
    if "zero_map" in lines:
        assert found["val/loss"] == pytest.approx(lines["zero_map"], rel=0.05)
    assert found["val/computed"] == 0


def test_dedicated_neurons_compute_as_many_functions_as_there_are_neurons():
    module = CompressedComputation(10, 4, 2)
    module.net.W_in.data = torch.eye(10)[:, :4].repeat(2, 1, 1)
    module.net.W_out.data = torch.eye(10)[:4].repeat(2, 1, 1)
    found = measured(module, signed())
    assert found["val/computed"] == pytest.approx(4, abs=1e-4)
    assert found["val/loss"] == pytest.approx(0.1 * 0.6 / 6, rel=0.05)


@pytest.mark.parametrize(("neuron", "s"), [("square", 3), ("absolute", 2), ("relu", 2)])
def test_written_readoffs_have_the_error_that_theory_states(neuron, s):
    torch.manual_seed(0)
    d = 400
    module = UniversalProducts(8, 0, d, 16, neuron, False, first_layer="signs", readoff="written")
    measured(module, pairs(8, s, n_seeds=16, n_validation=2048))
    rms, known = module.case_errors[0]["rms"], sign_readoff(neuron, s)
    for case, variance in ((0, known.variance_off), (1, known.variance_off), (3, known.variance_on)):
        found = rms[:, case].square().mean().item() * d
        assert found == pytest.approx(variance, rel=0.12, abs=1e-6)


@pytest.mark.parametrize("values", ["one", "sign"])
def test_products_log_their_bound_and_outputs_of_zero_have_loss_one(values):
    module = without_outputs(UniversalProducts(6, 0, 5, 2))
    found = measured(module, pairs(values=values))
    assert found["val/loss"] == pytest.approx(1, rel=1e-4)
    assert found["val/loss_bound"] == pytest.approx(least_balanced_loss(6, 6, 2, values == "sign"), rel=1e-5)
    assert found["val/loss_dedicated"] == pytest.approx(1 - 5 / 15)


def test_training_comes_near_the_bound_of_and_but_not_below_it():
    torch.manual_seed(0)
    module, data = UniversalProducts(6, 0, 8, 2, optimizer=AdamLinear(0.02, 0, 0.5)), pairs(values="one")
    fit(module, data, 700)
    found = measured(module, data)
    assert found["val/loss_bound"] * 0.97 < found["val/loss"] < 1.6 * found["val/loss_bound"]


def test_plain_superposition_logs_the_frame_and_starts_from_the_exact_loss():
    torch.manual_seed(0)
    module = without_outputs(PowerSuperposition(6, 3, 2))
    data = SparseFeaturesDataModule(6, FixedActive(1), n_seeds=2, batch_size=8, n_validation=8)
    found = measured(module, data)
    assert found["val/loss"] == found["val/loss_zero_map"] == 1
    assert found["val/loss_equiangular"] == pytest.approx(0.05024625)
    assert found["val/loss_dedicated"] == 0.5


def test_losses_without_outputs_are_those_that_validation_measures():
    one = SparseFeaturesDataModule(6, FixedActive(1), "one", n_seeds=2)
    toys = {
        PowerSuperposition(6, 3, 2): one,
        CircuitsInDepth(6, 8, n_seeds=2): one,
        ToySuperposition(6, 3, 2, loss="one_sparse"): SparseFeaturesDataModule(6, FixedActive(1), "uniform", n_seeds=2),
    }
    for module, data in toys.items():
        batch = next(iter(data.train_dataloader()))
        assert torch.equal(module.training_losses(batch), module.losses(batch, module.outputs(batch)[0]))


def test_targets_of_products_are_the_products_of_all_pairs():
    data = SparseFeaturesDataModule(5, FixedActive(3), "signed", n_seeds=2, batch_size=7)
    batch = next(iter(data.train_dataloader()))
    f = batch["f"].view(2, 7, 5)
    expected = torch.stack([f[..., i] * f[..., j] for i in range(5) for j in range(i + 1, 5)], 2)
    assert torch.equal(UniversalProducts(5, 5, 4, 2).targets(batch), expected)


@pytest.mark.parametrize(("kind", "correction"), [("rotation", "none"), ("boolean", "none"), ("rotation", "ideal")])
def test_circuits_have_the_exact_loss_without_correction_and_with_an_ideal_one(kind, correction):
    torch.manual_seed(0)
    module = CircuitsInDepth(20, 32, 4, 2, kind, correction, 128)
    data = SparseFeaturesDataModule(20, FixedActive(2), n_seeds=128, batch_size=4, n_validation=4)
    found = measured(module, data)
    exact = [interference(t, 32, 20, 2) if correction == "none" else interference_of_active(t, 32, 2) for t in range(3)]
    line = "uncorrected" if correction == "none" else "ideal"
    assert found[f"val/loss_{line}"] == pytest.approx(sum(exact) / 3, rel=1e-5)
    assert [found[f"val/depth{t}_error"] for t in range(3)] == pytest.approx(exact, rel=0.15)
    assert found["val/loss"] == pytest.approx(sum(found[f"val/depth{t}_error"] for t in range(3)) / 3, rel=1e-5)


def test_a_learned_correction_lowers_the_error():
    torch.manual_seed(0)
    module = CircuitsInDepth(60, 32, 4, 3, n_seeds=2, optimizer=AdamLinear(0.1, 0, 0.5))
    data = SparseFeaturesDataModule(60, FixedActive(2), n_seeds=2, batch_size=32, n_validation=256)
    fit(module, data, 100)
    found = measured(module, data)
    assert found["val/loss_ideal"] < found["val/loss"] < 0.8 * found["val/loss_uncorrected"]


def test_data_and_settings_that_do_not_match_are_refused(refused):
    ones = SparseFeaturesDataModule(6, FixedActive(2), n_seeds=1)
    for module, data, said in (
        (CompressedComputation(6, 3), ones, "must be uniform in"),
        (PowerSuperposition(6, 3), ones, "n_active 1"),
        (CircuitsInDepth(6), pairs(n_seeds=1), "data.values one"),
        (UniversalProducts(6), SparseFeaturesDataModule(6, FixedActive(1)), "never turns on two inputs"),
        (
            UniversalProducts(6, bias=False, first_layer="signs", readoff="written"),
            SparseFeaturesDataModule(6, BernoulliActive(2.0)),
            "requires data.active FixedActive",
        ),
    ):
        with refused(said):
            validate(module, data)
    with refused("nothing is trained"):
        fit(UniversalProducts(6, bias=False, first_layer="signs", readoff="written"), pairs(n_seeds=1), 1)
    with refused("nothing is trained"):
        fit(CircuitsInDepth(6, correction="ideal"), SparseFeaturesDataModule(6, FixedActive(2)), 1)
    for settings, said in (
        ({"largest_bias": -1.0}, "largest_bias is -1"),
        ({"bias": False, "largest_bias": 1.0}, "0 without bias"),
        ({"readoff": "written"}, "requires first_layer signs"),
        ({"q": 0.5}, "at least 1"),
    ):
        with refused(said):
            UniversalProducts(6, **settings)
