import json

import pytest

from zoo.analysis.token_families import Ordered, known_families
from zoo.families_file import read_families

NOTES = ["do", "re", "mi", "fa", "so", "la", "ti"]


@pytest.mark.parametrize("name", ["own.yaml", "own.json"])
def test_families_are_read_beside_the_known_ones_which_they_may_replace(tmp_path, name):
    content = {"solfege": NOTES, "digits": {"order": "cyclic", "members": list(range(6))}}
    text = json.dumps(content) if name.endswith("json") else "solfege: [do, re, mi, fa, so, la, ti]\n"
    (tmp_path / name).write_text(text)
    known = read_families(str(tmp_path / name))
    assert known["solfege"] == Ordered("cyclic", NOTES)
    if name.endswith("json"):
        assert known["digits"] == Ordered("cyclic", ["0", "1", "2", "3", "4", "5"])
    assert set(known_families()) < set(known)


def test_words_that_yaml_takes_for_values_are_words(tmp_path):
    (tmp_path / "own.yaml").write_text("answers: {order: linear, members: [no, 1e3, 2001-01-01, yes, null, ' 07']}")
    assert read_families(str(tmp_path / "own.yaml"))["answers"] == Ordered(
        "linear", ["no", "1e3", "2001-01-01", "yes", "null", "07"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [b", "own.yaml is not valid YAML or JSON"),
        ("- a\n- b", "must contain a mapping of names to members"),
        ("", "must contain a mapping"),
        ("a: b", "the members of a must be a list of words"),
        ("a: [b, c, [d], e, f, g]", "the members of a must be a list of words"),
        ("a: [b, c, d, e, f, b]", "a has 'b' twice"),
        ("a: [b, c, d, e, f, ' ']", "a has a member without text"),
        ("a: [b, c, d, e, f]", "a has 5 members; at least 6 are needed"),
        ("a: {order: circular, members: [b, c, d, e, f, g]}", "the order of a is 'circular'; it must be cyclic or"),
        ("a: {order: linear}", "a must have 'members'"),
        ("a: {member: [b]}", "a must have 'members'"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, refused, text, words):
    (tmp_path / "own.yaml").write_text(text)
    with refused(words):
        read_families(str(tmp_path / "own.yaml"))


def test_an_absent_file_is_told(tmp_path, refused):
    with refused("none.yaml cannot be read: No such file"):
        read_families(str(tmp_path / "none.yaml"))
