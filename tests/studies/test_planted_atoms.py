import numpy as np
import pytest

from zoo.studies.planted_atoms import PlantedAtoms, RecoverAtoms
from zoo.study import Work


def test_atoms_are_found_where_there_is_no_noise_and_less_well_in_noise(tmp_path):
    study = PlantedAtoms(32, 3000, sparsities=(2,), noises=(0.0, 0.5), dictionary_steps=20, seeds=2)
    results = {task: task.do(Work({}, tmp_path)) for task in study.tasks()}
    clean, noisy = ([r for task, r in results.items() if task.noise == noise] for noise in study.noises)
    for r in clean:
        assert r["recovered"] > 0.9
        assert r["cosine"] > 0.95 > r["cosine_of_rows"]
        assert r["fvu"] < 0.1
        assert r["floor"] < 0.05
    assert max(r["cosine"] for r in noisy) < min(r["cosine"] for r in clean)
    report = study.report(results)
    assert report.verdict.headline.startswith("Basis pursuit finds ")
    assert [chart.name for chart in report.sections[0].charts] == [
        f"planted-atoms-{name}" for name in ("found", "cosine", "fvu")
    ]
    drawn = [
        {"recovered": "line"},
        {"cosine": "line", "cosine_of_rows": "dotted"},
        {"fvu": "line", "train_fvu": "dashed", "floor": "dotted"},
    ]
    for chart, styles in zip(report.sections[0].charts, drawn, strict=True):
        assert [series.style for series in chart.series] == list(styles.values())
        for series, key in zip(chart.series, styles, strict=True):
            assert (series.name, series.x) == ("2 atoms per row", [0.0, 0.5])
            assert series.y == pytest.approx([np.mean([r[key] for r in of]) for of in (clean, noisy)])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_times_overcomplete_atoms_sixteen_to_a_row_are_found_in_384_dimensions(tmp_path):
    found = RecoverAtoms(22_000, 384, 1536, 16, 0.0, 0.1, 25, 0).do(Work({}, tmp_path))
    assert found["recovered"] > 0.9
    assert found["cosine"] > 0.97
    assert found["fvu"] == pytest.approx(found["train_fvu"], abs=0.01)
    assert found["fvu"] < found["floor"] + 0.02
