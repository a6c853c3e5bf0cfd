from zoo.analysis.multiple_tests import holm
from zoo.analysis.token_families import CYCLIC, families, kinds, relations

WEEK = CYCLIC["weekdays"].split()


def test_a_family_is_found_in_every_form_that_all_members_have():
    tokens = [*WEEK, *(" " + day.capitalize() for day in WEEK), *(day.upper() for day in WEEK[:6])]
    (found,) = families(tokens)
    assert found.name == "weekdays"
    assert found.rows == [list(range(7)), list(range(7, 14))]
    usable = [True] * len(tokens)
    usable[3] = False
    assert families(tokens, usable)[0].rows == [list(range(7, 14))]
    assert families(WEEK[:6]) == []


def test_relations_pair_tokens_that_differ_by_one_thing():
    words = [a + b + "t" for a in "bcdfglmnpr" for b in "aeiou"]
    tokens = [*words, *(w + "s" for w in words), *(" " + w for w in words), *(w.capitalize() for w in words)]
    found = {r.name: r for r in relations(tokens)}
    assert set(found) == {"-s", "leading space", "capital"}
    assert found["-s"].pairs == [(i, i + 50) for i in range(50)]
    assert found["leading space"].pairs[0] == (0, 100)
    assert relations(tokens, least=51) == []
    marked = {r.name: r for r in relations([*words, *("##" + w for w in words)])}
    assert marked["continuation"].pairs == [(i, i + 50) for i in range(50)]


def test_kinds_are_read_off_the_spelling_in_both_kinds_of_tokenizer():
    spaced = kinds([" the", "ing", " The", "NASA", " 12", "();", "\n\n", "é", "<|endoftext|>", " a"])
    expected = ["word", "continuation", "capitalised", "upper case", "number", "punctuation", "space", "not Latin"]
    assert spaced == [*expected, "special", "word"]
    assert kinds(["the", "##ing", "[unused3]", "##5"]) == ["word", "continuation", "special", "number"]


def test_holm_is_that_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.005]).tolist()[:3] == [0.03, 0.06, 0.06]
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.005])[4] == 0.02
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
