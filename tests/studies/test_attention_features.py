import pytest

from zoo.studies import attention_features
from zoo.studies.attention_features import Task


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs the study small and in this process; counts the measurements it makes."""
    made = []

    def do_all(do, tasks, out, jobs):
        for task in tasks:
            made.append(task)
            do(task, out)

    monkeypatch.setattr(attention_features, "do_all", do_all)
    monkeypatch.setattr(attention_features, "DIMENSIONS", (2, 8, 16))
    monkeypatch.setattr(attention_features, "NOISE_PAIRS", (16, 64))
    monkeypatch.setattr(attention_features, "NOISE_SHAPES", ((256, 16), (512, 16)))
    monkeypatch.setattr(attention_features, "USABLE", ((128, 16, 20),))

    def run(**options):
        made.clear()
        sizes = {"vocabularies": (200, 500), "n_pairs": (16, 32), "steps": 300, "seeds": 3}
        return attention_features.run(tmp_path, **{**sizes, **options}), list(made)

    return run


def of(results, kind, key):
    return [r[key] for r in results if r["kind"] == kind]


def test_learned_heads_beat_constructed_ones_and_their_groups_overlap_less_than_random_vectors(small, tmp_path):
    results, _ = small()
    for found in (r for r in results if r["kind"] == "head"):
        for learned, constructed, chance in zip(found["learned"], found["constructed"], found["chance"], strict=True):
            assert learned > constructed + 0.2
            assert constructed > chance
        assert max(found["raw_overlap"]) < min(found["raw_random"])
    assert all(share == 1 for share in of(results, "projection", "normalised"))
    text = (tmp_path / "table.md").read_text("utf-8")
    assert "float32 is sure to tell 6,433 tokens" in text
    assert "| C4 | noise, B = 64, D = 512, d_head = 16 |" in text
    assert (tmp_path / "attention_features.png").stat().st_size > 10_000
    again, made = small()
    assert again == results
    assert not made
    (unlucky := Task("noise", (16, 256, 16), 1)).file(tmp_path).unlink()
    again, made = small()
    assert made == [unlucky]
    assert again == results


def test_no_interval_without_two_seeds_and_no_study_without_a_process(small, refused):
    for options in ({"seeds": 1}, {"jobs": 0}):
        with refused("an interval needs at least 2 seeds, and jobs at least 1"):
            small(**options)


def test_a_folder_with_other_settings_is_refused(small, tmp_path, refused):
    (tmp_path / "runs").mkdir()
    (tmp_path / "settings.json").write_text('{"seeds": 3, "steps": 9}')
    with refused("holds a study with steps 9, and steps is 300 now"):
        small()
