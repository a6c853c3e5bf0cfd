import pytest
from doing_studies import answer

from zoo.studies import attention_features
from zoo.studies.attention_features import AttentionFeatures

SMALL = AttentionFeatures(vocabularies=(200, 500), dimensions=(2, 8, 16), n_pairs=(16, 32), steps=300, seeds=3)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_features, "NOISE_PAIRS", (16, 64))
        patch.setattr(attention_features, "NOISE_SHAPES", ((256, 16), (512, 16)))
        patch.setattr(attention_features, "USABLE", ((128, 16, 20),))
        report = answer(SMALL, tmp_path_factory.mktemp("study"))
    return {section.id: section for section in report.sections}


def test_learned_heads_beat_constructed_ones_and_their_groups_overlap_less_than_random_vectors(sections):
    heads = sections["learned-heads"].numbers["heads"]
    assert len(heads) == 2  # numbers of pairs
    for one in heads:
        assert one["against_constructed"].low > 0
        assert one["learned"].mean > one["constructed"].mean + 0.2
        assert one["constructed"].mean > one["chance"].mean
        assert one["raw_overlap"].mean < one["raw_random"].low


def test_tokens_of_equal_length_attend_to_themselves(sections):
    normalised = sections["dimensions"].numbers["normalised"]
    assert len(normalised) == 2 * 3  # vocabularies and dimensions
    for one in normalised:
        assert one["value"].tolist() == [1, 1, 1]


def test_a_circle_takes_more_than_float32(sections):
    assert "float32 is not enough" in sections["circle"].finding
    assert sections["circle"].numbers["limits"]["float32"]["certain"] == 6433
    assert sections["circle"].numbers["limits"]["float64"]["misled"] == 0


def test_tables_have_every_measurement_beside_theory(sections):
    noise, usable, ties = sections["skip-bigrams"].tables
    [row] = [row for row in noise.rows if row[:3] == [64, 512, 16]]
    assert row[3].mean == pytest.approx(row[4], rel=0.1)
    assert [len(table.rows) for table in (usable, ties)] == [1, 5]
    assert len(sections["dimensions"].tables[0].rows) == 2 * 3


def test_a_measurement_is_named_by_what_decides_it():
    few, many = ({task.key: task for task in AttentionFeatures(seeds=n).tasks()} for n in (3, 4))
    lost = {type(task).__name__ for key, task in few.items() if key not in many}
    assert lost == {"TrainHeads"}  # heads of all seeds are trained side by side


@pytest.mark.parametrize(
    ("wrong", "message"), [({"seeds": 1}, "seeds is 1; it must be"), ({"n_pairs": ()}, "n_pairs is empty")]
)
def test_wrong_settings_are_refused_in_one_line(refused, wrong, message):
    with refused(message):
        AttentionFeatures(**wrong)
