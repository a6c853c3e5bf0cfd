import pytest

from zoo.studies import planted_atoms
from zoo.studies.planted_atoms import Task, recover


def test_atoms_are_found_where_there_is_no_noise_and_less_well_in_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(planted_atoms, "do_all", lambda do, tasks, out, jobs: [do(t, out) for t in tasks])
    results = planted_atoms.run(tmp_path, 32, 3000, sparsities=(2,), noises=(0.0, 0.5), dictionary_steps=20, seeds=2)
    clean, noisy = ([r for r in results if r["noise"] == noise] for noise in (0.0, 0.5))
    for r in clean:
        assert r["recovered"] > 0.9
        assert r["cosine"] > 0.95 > r["cosine_of_rows"]
        assert r["fvu"] < 0.1
        assert r["floor"] < 0.05
    assert max(r["cosine"] for r in noisy) < min(r["cosine"] for r in clean)
    assert (tmp_path / "planted.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_times_overcomplete_atoms_sixteen_to_a_row_are_found_in_384_dimensions():
    found = recover(Task(22_000, 384, 1536, 16, 0.0, 0.1, 25, 0))
    assert found["recovered"] > 0.9
    assert found["cosine"] > 0.97
    assert found["fvu"] == pytest.approx(found["train_fvu"], abs=0.01)
    assert found["fvu"] < found["floor"] + 0.02
