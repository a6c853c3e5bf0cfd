"""The study of priors over functions: its numbers on maps whose priors are known, and settings that it refuses."""

import re
import sys

import pytest
from doing_studies import do_tasks

from zoo.functions.maps import MLP
from zoo.functions.named_maps import default_maps, named_map, same_size
from zoo.studies.function_priors import BLOCK, FunctionPriors

MAPS = ("MLP:widths=2", "LinearThreshold:bias=false", "RandomTable", "Polynomial:degree=2")
SWEEP = {"depths": (1,), "widths": (2,), "scales": (1.0, 4.0), "activations": ("tanh",)}


@pytest.fixture(scope="module")
def study():
    """Few samples of 4 inputs."""
    return FunctionPriors(maps=MAPS, n_inputs=4, n_samples=40_000, **SWEEP)


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    return do_tasks(study, tmp_path_factory.mktemp("priors"))


@pytest.fixture(scope="module")
def report(study, done):
    return study.report(done)


def measured(study, done, spec):
    return done[study._task(spec)]


def test_every_sample_is_counted_once(study, done):
    for spec in MAPS:
        merged = done[study._merged(spec)]
        assert merged["counts"].sum(1).tolist() == merged["n_samples"] == [20_000, 20_000]
    assert [(task.first, task.last) for task in study._merged(MAPS[0]).samples] == [(0, -(-20_000 // BLOCK))] * 2


def test_the_perceptron_has_its_370_functions_and_exact_impossible_ones(study, done):
    found = measured(study, done, "LinearThreshold:bias=false")
    assert found["functions"] == 370
    assert found["ties"] == 40_000  # at input 0000 of every sample
    assert found["corner"] == {"above": 35, "undecided": 0, "below": 282 - 35}


def test_random_tables_have_no_simple_function_above_the_average_and_obey_the_bound(study, done):
    found = measured(study, done, "RandomTable")
    assert found["corner"] == {"above": 0, "undecided": 0, "below": 282}  # tau is 10 / 40,000
    assert found["above"]["functions"] == 0
    assert abs(found["mean_complexity"][0] - 22.37) < 0.1  # over all 65,536 functions, and 4 standard errors


def test_the_report_tells_each_claim_and_lists_the_functions_that_networks_leave_improbable(study, report):
    claims = [claim["claim"][:2] for claim in report.verdict.numbers["claims"]]
    assert claims == ["1.", "2.", "3.", "4.", "5.", "5.", "5."]
    assert [section.id for section in report.sections] == ["bound", "corner", "disliked", "sweep", "checks"]
    disliked = report.sections[2]
    assert "0110100110010110" not in disliked.numbers["functions"]  # parity is not simple in this sense
    assert "0010010010010010" in disliked.numbers["functions"]
    assert len(report.sections[0].charts) == 1 + len(MAPS)
    prior = report.sections[1].tables[0].rows[-1]
    assert prior[2:5] == [282, 0, 0]


def test_functions_stand_on_hover_with_their_intervals(report):
    chart = report.sections[0].charts[2]
    assert chart.title.startswith("linear threshold without bias")
    functions = chart.series[0]
    assert all(re.fullmatch(r"0[01]{15}( .+)?", text) for text in functions.labels)
    assert all(low < y < high for low, y, high in zip(functions.low, functions.y, functions.high, strict=True))


def test_networks_that_differ_in_one_setting_share_what_is_the_same(study):
    swept = {spec for specs in study._sweeps.values() for spec in specs.values()}
    assert swept == {
        "MLP:widths=40,activation=tanh",
        "MLP:widths=2-2,activation=tanh",
        "MLP:widths=40-40,activation=tanh",
        "MLP:widths=40-40,activation=tanh,sigma_w=4",
    }


def test_one_input_is_studied_as_well(tmp_path):
    study = FunctionPriors(maps=("MLP", "RandomTable"), n_inputs=1, n_samples=200, sweep=False)
    report = study.report(do_tasks(study, tmp_path))
    assert [row[2] for row in report.sections[0].tables[0].rows] == [4, 4]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_default_maps_exist_for_every_number_of_inputs(n):
    made = [named_map(text, n) for text in default_maps(n)]
    assert isinstance(made[0], MLP)
    assert made[0].widths == (40, 40)
    if n == 7:
        rivals = [one for one in made if same_size(one, made[0]) and not isinstance(one, MLP)]
        assert [one.n_parameters for one in rivals] == [1998, 2001]


def test_a_map_of_ones_own_is_one_class(tmp_path, monkeypatch, refused):
    (tmp_path / "own_maps.py").write_text(
        "import torch\nfrom zoo.functions.maps import ParameterFunctionMap\n"
        "class Constant(ParameterFunctionMap):\n"
        "    n_inputs, n_parameters = 3, 1\n"
        "    def sample(self, size, generator):\n"
        "        return torch.randn(size, 1, generator=generator).expand(-1, 8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_maps", raising=False)
    study = FunctionPriors(maps=("own_maps.Constant",), n_inputs=3, n_samples=1000, sweep=False)
    found = measured(study, do_tasks(study, tmp_path / "out"), "own_maps.Constant")
    assert (found["functions"], found["name"]) == (2, "Constant")
    with refused("map own_maps.Constant has 3 inputs; the study has n_inputs = 4"):
        FunctionPriors(maps=("own_maps.Constant",), n_inputs=4)
    with refused("the module of nowhere.Map cannot be imported"):
        FunctionPriors(maps=("nowhere.Map",))
    with refused("there is no map 'own_maps.Other'"):
        FunctionPriors(maps=("own_maps.Other",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_samples": 0}, "n_samples is 0; it must be above 0"),
        ({"n_samples": 1}, "n_samples is 1; 2 seeds need at least 2"),
        ({"n_samples": 5}, "tau is 2; it must be at least 10 / n_samples = 2, and at most 1"),
        ({"n_inputs": 8}, "n_inputs is 8; it must be 1 to 7"),
        ({"n_inputs": 0}, "n_inputs is 0; it must be above 0"),
        ({"c": 7.0}, "c is 7; it must be above 7, the complexity of the simplest functions"),
        ({"tau": 1e-6}, "tau is 1e-06; it must be at least 10 / n_samples = 1e-05, and at most 1"),
        ({"measure": "length"}, "measure is 'length'; expected one of lempel-ziv, entropy, circuit"),
        ({"measure": "circuit"}, "measure is circuit with 7 inputs; it works for at most 3 inputs"),
        ({"measure": "circuit", "n_inputs": 1}, "all functions of 1 input need no gates, so use 2 or 3"),
        ({"coding": "01"}, "coding is '01'; expected one of bits, signs"),
        ({"at_zero": 2}, "at_zero is '?2'?; expected one of 0, 1"),
        ({"maps": ("MLP", "MLP")}, "maps has a value twice"),
        ({"maps": ("Perceptron",)}, "there is no map 'Perceptron'; the maps are MLP, "),
        ({"maps": ("MLP:depth=3",)}, "map MLP:depth=3: 'depth=3' is not setting=value of MLP; its settings are widths"),
        ({"maps": ("MLP:widths=a",)}, "map MLP:widths=a: widths is 'a'; it must be whole numbers such as 40-40"),
        ({"maps": ("Polynomial:degree=9",)}, "degree is 9; it must be from 0 to the number of inputs, 7"),
        ({"activations": ("gelu",)}, "activation is 'gelu'; it must be one of relu"),
    ],
)
def test_wrong_settings_are_refused(settings, message, refused):
    with refused(message):
        FunctionPriors(**settings)
