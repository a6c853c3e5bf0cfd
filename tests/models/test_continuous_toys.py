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
from zoo.models.toy.compressed_computation import dedicated_loss, dedicated_mixed_loss, least_loss, zero_map_loss
from zoo.models.toy.pair_bounds import least_balanced_loss, least_squared_loss
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
        expected["dedicated"] = p * (dedicated_mixed_loss(4, M) if mixing else dedicated_loss(4, 10, p))
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
    signed = values == "sign"
    assert found["val/loss_bound"] == pytest.approx(least_balanced_loss(6, 5 if signed else 6, 2, signed), rel=1e-5)
    assert found["val/loss_dedicated"] == pytest.approx(1 - 5 / 15)


@pytest.mark.parametrize("values", ["one", "sign"])
@pytest.mark.parametrize("output_bias", [True, False])
def test_the_plain_loss_of_products_has_a_bound_of_its_own(values, output_bias):
    module = without_outputs(UniversalProducts(6, 0, 5, 2, output_bias=output_bias, balanced=False))
    found = measured(module, pairs(s=3, values=values))
    assert (module.net.b_out is not None) == output_bias
    assert found["val/loss"] == pytest.approx(1, rel=1e-4) == found["val/loss_zero_map"]
    neurons = 5 + (output_bias and values == "one")
    assert found["val/loss_bound"] == pytest.approx(least_squared_loss(6, neurons, 3, values == "sign"))


def test_a_residual_stream_has_the_lines_of_its_mixed_labels():
    torch.manual_seed(0)
    module = without_outputs(CompressedComputation(10, 4, 2, d_embed=30, residual=True))
    found, M = measured(module, signed()), torch.eye(10) - module.net.W_E @ module.net.W_E.T
    assert found["val/loss"] == pytest.approx(found["val/loss_zero_map"], rel=0.05)
    assert found["val/loss_zero_map"] == pytest.approx(0.1 * zero_map_loss(M))
    assert found["val/loss_dedicated"] == pytest.approx(0.1 * dedicated_mixed_loss(4, M))
    assert found["val/loss_bound"] == pytest.approx(0.1 * least_loss(4, 10, 0.1, M))


def test_output_biases_do_not_lower_the_smallest_loss_of_products_of_signs():
    """The best outputs of rank 1 and a constant, by descent from many starts, for all 2 inputs of 4 with signs."""
    torch.manual_seed(0)
    x = torch.tensor([[a if k == i else b if k == j else 0.0 for k in range(4)] for i in range(4) for j in range(i)
                      for a in (1.0, -1.0) for b in (1.0, -1.0)])  # fmt: skip
    i, j = torch.triu_indices(4, 4, 1)
    target = x[:, i] * x[:, j]
    h, V, b = torch.randn(32, 24, 1), torch.randn(32, 1, 6), torch.randn(32, 1, 6)
    for weights in (h, V, b):
        weights.requires_grad_()
    optimizer = torch.optim.Adam((h, V, b), 0.03)
    for _ in range(500):
        error = (h @ V + b - target).square()
        losses = torch.where(target != 0, 6 * error, 1.2 * error).mean((1, 2))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    bound, lower = least_balanced_loss(4, 1, 2, signed=True), least_balanced_loss(4, 2, 2, signed=True)
    assert losses.min().item() == pytest.approx(bound, rel=1e-3)
    assert lower < 0.9 * bound


@pytest.mark.slow
@pytest.mark.parametrize(("d", "loss"), [(12, 0.0647), (20, 0.0342), (40, 0.0099)])
def test_training_reaches_the_bound_of_ands_of_twelve_inputs(d, loss):
    torch.manual_seed(0)
    module = UniversalProducts(12, 0, d, 16, output_bias=False, optimizer=AdamLinear(0.01, 0, 0.5))
    data = pairs(12, values="one", n_seeds=16)
    fit(module, data, 3000)
    validate(module, data)
    assert module.seed_losses.min().item() == pytest.approx(loss, rel=5e-3, abs=1e-4)


@pytest.mark.slow
def test_few_neurons_reach_the_bound_of_squared_errors_and_are_far_below_dedicated_ones_with_fourth_powers():
    for q in (2.0, 4.0):
        torch.manual_seed(0)
        module = CompressedComputation(12, 6, 16, q, optimizer=AdamLinear(3e-3, 0, 0.5))
        data = signed(12, 0.36, 16, batch_size=512, n_validation=1 << 17)
        fit(module, data, 3000)
        found = measured(module, data)
        best, dedicated = module.seed_losses.min().item(), found["val/loss_dedicated"]
        if q == 2:
            assert found["val/loss_bound"] * 0.97 < best < 1.03 * dedicated
        else:
            assert best < 0.2 * dedicated
        assert module.computed.max().item() < 6.1


@pytest.mark.slow
def test_fifty_neurons_for_a_hundred_functions_reach_the_known_loss_of_fourth_powers():
    torch.manual_seed(0)
    module = CompressedComputation(100, 50, 2, 4.0, optimizer=AdamLinear(3e-3, 0, 0.7))
    data = signed(100, 2.0, 2, batch_size=2048, n_validation=1 << 16)
    fit(module, data, 4000)
    found = measured(module, data)
    assert found["val/loss_zero_map"] == pytest.approx(2e-3)
    assert found["val/loss_dedicated"] == pytest.approx(1e-3)
    assert module.seed_losses.tolist() == pytest.approx([3.6e-5] * 2, rel=0.2)  # after four times as many steps
    assert found["val/loss"] < found["val/loss_dedicated"] / 20


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
