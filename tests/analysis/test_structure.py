"""What counts as a finding of structure, from what was measured."""

import pytest

from zoo.analysis import structure
from zoo.analysis.structure import false_findings, false_rate, findings


def measured(**changes):
    """A relation bound by a matrix, a family on a circle, and neighbours of one kind, all of them findings."""
    binding = {"p_value": 0.001, "class_p_value": 0.002, "gain": 0.3, "class_gain": 0.2, "rank": 4}
    circle = {"p_value": 0.003, "share": 0.8, "shape": "circle"}
    agreement = {"p_value": 0.004, "kappa": 0.1}
    parts = {"binding": binding, "circle": circle, "agreement": agreement}
    for name, values in changes.items():
        parts[name] |= values
    relations, circles = {"plural": binding}, {"weekdays": circle, "seasons": {"p_value": None}}
    return {"agreement": agreement, "relations": relations, "circles": circles}


def found(of):
    return [line["name"] for line in findings(structure.tests(of), 0.05)]


def test_every_test_has_a_line_with_its_p_value_adjusted_for_all_of_them():
    lines = {line["name"]: line for line in structure.tests(measured())}
    assert list(lines) == ["neighbours of one kind", "plural", "weekdays"]
    assert [line["kind"] for line in lines.values()] == ["neighbours", "binding", "circles"]
    assert [line["p_value"] for line in lines.values()] == [0.004, 0.002, 0.003]
    assert [line["adjusted"] for line in lines.values()] == pytest.approx([0.006, 0.006, 0.006])
    assert [line["size"] for line in lines.values()] == [0.1, 0.2, 0.8]
    assert found(measured()) == list(lines)


@pytest.mark.parametrize("small", [{"gain": 0.05}, {"class_gain": 0.05}, {"p_value": 0.9}, {"class_p_value": 0.9}])
def test_a_matrix_is_a_finding_only_if_it_gains_on_random_folds_and_on_those_of_a_kind(small):
    assert found(measured(binding=small)) == ["neighbours of one kind", "weekdays"]


@pytest.mark.parametrize("other", [{"shape": "line or arc"}, {"shape": "undecided"}, {"p_value": 0.9}])
def test_a_family_is_a_finding_only_if_it_is_in_order_and_on_a_circle(other):
    assert found(measured(circle=other)) == ["neighbours of one kind", "plural"]


@pytest.mark.parametrize("other", [{"kappa": 0.0}, {"kappa": -0.2}, {"p_value": 0.9}])
def test_neighbours_are_a_finding_only_if_they_agree_more_than_by_chance(other):
    assert found(measured(agreement=other)) == ["plural", "weekdays"]


def test_findings_in_null_models_are_counted_and_their_rate_is_limited():
    nothing = measured(binding={"gain": 0.0}, circle={"shape": "undecided"}, agreement={"kappa": 0.0})
    assert false_findings([measured(), nothing, nothing], 0.05) == [3, 0, 0]
    assert "0 of 20" in false_rate([0] * 20)
    assert false_rate([0] * 20).endswith(" 0.14")  # 1 - 0.05 ** (1 / 20)
    assert "2 of 4" in false_rate([3, 0, 1, 0])
