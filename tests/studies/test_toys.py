import json
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from doing_studies import do_tasks

from zoo.estimates import Estimate
from zoo.report import Report, Table, read, write
from zoo.running.folder import ResultsFolder
from zoo.studies import attention_features
from zoo.studies.attention_features import AttentionFeatures
from zoo.studies.circuits_in_depth import CircuitsInDepth
from zoo.studies.compressed_computation import CompressedComputation
from zoo.studies.explicit_gates import ExplicitGates
from zoo.studies.pair_products import PairProducts
from zoo.studies.polygons import Polygons
from zoo.studies.product_readoffs import ProductReadoffs
from zoo.studies.shared_dimensions import SharedDimensions
from zoo.studies.superposition_phases import SuperpositionPhases
from zoo.studies.toys import Toys
from zoo.studies.universal_gates import UniversalGates
from zoo.study import NotFinished, NotTested, all_tasks

IDS = ["polygons", "phases", "closed-form", "signs", "width", "superposed-inputs", "depth", "cases", "random-layers"]
IDS += ["bounds", "affine", "losses", "clean", "labels", "powers", "weights", "written", "squares", "trained", "plain"]
IDS += ["degree", "growth", "circle", "two-features", "dimensions", "skip-bigrams", "learned-heads"]
PARTS = (
    Polygons(6, 300),
    SuperpositionPhases(3, 40, 32, 2),
    ExplicitGates(16, 20, (64, 256), (2, 4), (4.0,), (2, 4, 8), (10, 80), (64, 256), (128, 256), 6, 2),
    UniversalGates(8, (6, 8), 10, 2),
    CompressedComputation(8, (2, 4, 6), (0.1, 0.3), 5, 2),
    SharedDimensions(5, 2),
    ProductReadoffs((6, 5), (2, 3), (64, 256), (4, 10), 2),
    PairProducts((6, 5), (3, 5), (2, 3), 5, 2),
    CircuitsInDepth((12, 30), (1, 2), 16, 2, 5, 2),
    AttentionFeatures((100, 200), (2, 8), (16, 32), 20, 2),
)

DRAWN = {  # by chart, the styles of its series; + of those with intervals
    "polygons-pentagon": "dotted points",
    "polygons-hexagon": "dotted points",
    "polygons-losses": "points dashed dashed points dashed dashed",
    "phases-theory": "points points points",
    "phases-trained": "points points points",
    "phases-differ": "points points",
    "closed-form-and": "dashed points+ dashed points+ dotted",
    "closed-form-and-ratio": "points+ points+",
    "closed-form-xor": "dashed points+ dashed points+ dotted",
    "closed-form-xor-ratio": "points+ points+",
    "signs-and": "dashed points+ dashed points+",
    "signs-xor": "dashed points+ dashed points+",
    "width-errors": "line+ dotted+ line+ dotted+ line+ dotted+",
    "width-used-at": "dashed points+ dashed points+",
    "superposed-inputs": "dashed points+ dashed points+ dotted",
    "depth": "dashed+ line+ dashed+ line+",
    "cases-and": "bars+ bars+ bars+ bars+ bars+",
    "cases-xor": "bars+ bars+ bars+ bars+ bars+",
    "cases-judged": "bars+ bars+",
    "random-layers-and": "dashed+ dashed+ dashed+ line+ line+",
    "random-layers-xor": "dashed+ dashed+ dashed+ line+ line+",
    "random-layers-difference": "points+ points+",
    "bounds-and-zero-one": "line+ line+ line+ line+ line+ dotted",
    "bounds-and-four": "line+ line+ line+ line+ line+ dotted",
    "bounds-xor-four": "line+ line+ line+ line+ line+ dotted",
    "affine": "bars+ bars+ bars+ bars+ bars+",
    "losses-all": "line+ line+ line+",
    "losses-ones": "line+ line+ line+",
    "losses-one-on": "line+ line+ line+",
    "losses-largest": "line+ line+ line+",
    "losses-methods": "line+ line+ dashed+ dashed+",
    "clean-loss": "line+ line+",
    "clean-computed": "line+ line+ dashed",
    "labels-computed": "bars+ bars+",
    "powers": "line+ line+ line+",
    "weights": "dashed points",
    "written": "line+ line+ line+ line+ line+ line+ line+",
    "squares": "line+ dotted line+ dotted",
    "trained": "line+ dotted line+ dotted dashed+",
    "trained-on": "line+ line+",
    "plain": "line+ dashed",
    "degree": "bars+ bars+ points",
    "growth-active": "dashed+ dotted+ line+",
    "growth-circuits": "dashed+ dotted+ line+ dashed+ dotted+ line+",
    "circle": "line dashed dashed",
    "two-features": "bars+ points points",
    "dimensions": "dashed points+ dashed points+ dotted",
    "skip-bigrams-noise": "dashed points+ dashed points+",
    "skip-bigrams-ties": "line+ dashed",
    "skip-bigrams-usable": "bars+ bars+ points",
    "learned-heads-right": "line+ line+ line+",
    "learned-heads-overlap": "line+ line+ line+",
    "learned-heads-overlap-centred": "line+ line+ line+",
}
NOT_TABLED = {
    "closed-form-and",
    "closed-form-xor",
    "width-errors",
    "cases-and",
    "cases-xor",
    "cases-judged",
    "affine",
    "losses-largest",
    "circle",
    "two-features",
}  # in whole


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The reports of small parts."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_features, "NOISE_PAIRS", (16, 64))
        patch.setattr(attention_features, "NOISE_SHAPES", ((256, 16), (512, 16)))
        patch.setattr(attention_features, "USABLE", ((128, 16, 20),))
        patch.setattr(attention_features, "TIES", ((1.0, 4, 16, 0.1), (10.0, 4, 16, 0.1)))
        for part in PARTS:
            made[part.name] = part.report(do_tasks(part, tmp_path_factory.mktemp(part.name)))
    return made


def test_page_and_data_have_every_experiment_with_what_it_was_compared_with(parts, tmp_path):
    report = Toys(2).report_of_parts(parts)
    write(report, tmp_path)
    content, page = read(tmp_path), (tmp_path / "report.html").read_text("utf-8")
    assert [section["id"] for section in content["sections"]] == [section.id for section in report.sections] == IDS
    for section in report.sections:
        assert section.title in page
        for part in (section.finding, section.tables, section.charts, section.null_models, section.not_shown):
            assert part
        assert section.numbers
        assert all(chart.name.startswith(section.id) for chart in section.charts)
    names = [f"{chart.name}.png" for section in report.sections for chart in section.charts]
    assert sorted(names) == sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert report.verdict.headline in content["verdict"]["headline"]
    assert "nan" not in json.dumps([section.finding for section in report.sections])


def numbers(value):
    """All numbers in something, of estimates their means."""
    if isinstance(value, Estimate):
        return [value.mean]
    if isinstance(value, np.ndarray | int | float | np.number):
        return np.ravel(value).tolist() if np.asarray(value).dtype.kind in "fiu" else []
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [number for item in items for number in numbers(item)]


def test_charts_draw_the_numbers_of_their_sections_on_axes_with_labels(parts):
    styles = {}
    for section in Toys(2).report_of_parts(parts).sections:
        tables = [table.rows for table in section.tables if isinstance(table, Table)]
        known = np.array(numbers([section.numbers, tables]))
        known = known[np.isfinite(known)]
        for chart in section.charts:
            styles[chart.name] = [one.style + "+" * (one.low is not None) for one in chart.series]
            assert chart.title
            if not chart.map:
                assert chart.y_label
                assert chart.x_label or all(isinstance(x, str) for one in chart.series for x in one.x)
            for one in chart.series:
                drawn = np.array([y for y in one.y if y is not None and np.isfinite(y)])
                assert len(drawn), (chart.name, one.name)
                if chart.name not in NOT_TABLED:
                    near = known[np.abs(known[:, None] - drawn).argmin(0)]
                    assert drawn == pytest.approx(near, rel=1e-9), (chart.name, one.name)
    assert styles == {name: told.split() for name, told in DRAWN.items()}


def test_the_verdict_is_that_of_the_parts(parts):
    verdict = Toys(2).report_of_parts(parts).verdict
    for name, part in parts.items():
        assert part.verdict.headline in verdict.headline
        assert f"- {name}: {part.verdict.certainty}" in verdict.certainty
        assert part.verdict.numbers["evidence"]
        for question, measured, answer in part.verdict.numbers["evidence"]:
            assert f"| {question} | {measured} | {answer} |" in verdict.evidence


def test_parts_without_an_answer_say_why_and_leave_the_others_theirs(parts):
    told = parts | {"universal-gates": NotTested("Not finished: 3 of 50 tasks are done.")}
    report = Toys(2).report_of_parts(told)
    [missing] = [section for section in report.sections if not section.tested]
    assert missing.title == UniversalGates().question
    assert missing.finding == "Not finished: 3 of 50 tasks are done."
    assert "Parts without an answer: universal-gates." in report.verdict.certainty
    assert "Training the first layer too" not in report.verdict.headline
    assert parts["polygons"].verdict.headline in report.verdict.headline
    for name in parts:
        told[name] = NotTested("Not finished.")
        assert isinstance(Toys(2).report_of_parts(told), Report)
    assert Toys(2).report_of_parts(told).verdict.headline == "No answer yet."


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_that_is_not_finished_cannot_be_told(part, tmp_path):
    with pytest.raises(NotFinished):
        part.report(ResultsFolder(tmp_path))


def test_seeds_are_those_of_every_part_or_of_all():
    assert [getattr(part, "seeds", None) for part in Toys().parts().values()] == [None, 10, 3, 3, 4, 4, 4, 4, 4, 5]
    assert [getattr(part, "seeds", None) for part in Toys(2).parts().values()] == [None, *[2] * 9]
    assert [part.name for part in PARTS] == list(Toys().parts())


def test_every_task_has_a_name_of_its_own_and_says_about_how_long_it_takes():
    tasks = [task for part in Toys().parts().values() for task in part.tasks()]
    assert len({task.key for task in tasks}) == len(tasks) == len(all_tasks(Toys()))
    assert all(0 < task.seconds() < 1800 for task in tasks)


def test_wrong_seeds_are_refused_in_one_line(refused):
    with refused("seeds is 1; it must be"):
        Toys(1)
