import pytest
from changed_results import Changed
from doing_studies import do_tasks

from zoo.studies.polygons import FindRegular, Polygons, TrainFeatures

SMALL = Polygons(networks=6, steps=300)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return do_tasks(SMALL, tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize(
    ("n", "length", "bias", "loss"), [(5, 1.17046, -0.2823, 0.015826), (6, 1.32053, -0.61814, 0.048192)]
)
def test_regular_polygons_are_those_that_are_known(results, n, length, bias, loss):
    found = results[FindRegular(n, n)]
    assert [found["length"], found["bias"]] == pytest.approx([length, bias], abs=1e-4)
    assert found["loss"] == pytest.approx(loss, abs=1e-6)
    assert results[FindRegular(n, n - 1)]["loss"] > found["loss"]


def test_the_finding_tells_how_many_networks_find_them(results):
    report = SMALL.report(results)
    [section] = report.sections
    pentagon = section.numbers["polygons"][0]
    assert section.finding.startswith(f"{pentagon['reach']} of 6 networks reach the pentagon")
    assert pentagon["best"]["loss"] == min(pentagon["loss"])
    assert report.verdict.numbers["polygons"]["pentagon"].mean == pentagon["reach"] / 6


def with_losses(results, pentagon, hexagon):
    """Results whose first network with five and with six features has so many times the loss of the regular one."""
    changed = {}
    for n, times in ((5, pentagon), (6, hexagon)):
        task = TrainFeatures(n, 6, 300)
        loss = [times * results[FindRegular(n, n)]["loss"], 1.0, 1.0, 1.0, 1.0, 1.0]
        changed[task] = results[task] | {"loss": loss}
    return Changed(results, changed)


def test_polygons_that_nobody_finds_are_not_found(results):
    headline = SMALL.report(with_losses(results, 1.1, 1.1)).verdict.headline
    assert headline == "No network with two dimensions finds the regular pentagon or hexagon."
    headline = SMALL.report(with_losses(results, 1.001, 1.1)).verdict.headline
    assert headline == "Networks with two dimensions find the regular pentagon, but not the hexagon."
