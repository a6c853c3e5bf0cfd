from zoo.analysis.token_families import CYCLIC, LINEAR, Ordered, families, kinds, known_families, relations

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


def test_of_a_long_family_the_longest_run_of_tokens_is_taken_and_of_a_short_one_all_or_nothing():
    numbers = [str(n) for n in (*range(1, 9), *range(20, 45))]
    marked = ["##" + n for n in numbers if n != "30"]
    (found,) = (family for family in families([*numbers, *marked]) if family.name == "numbers 1-100")
    assert found.members == [str(n) for n in range(20, 45)]
    assert found.rows == [list(range(8, 33))]  # the other form lacks a member
    assert families(numbers[:19]) == []  # 11 in a row


def test_every_known_family_says_whether_its_order_is_cyclic_and_names_no_member_twice():
    known = known_families()
    assert {name: family.order for name, family in known.items() if name in ("weekdays", "hours", "digits")} == {
        "weekdays": "cyclic",
        "hours": "cyclic",
        "digits": "linear",
    }
    assert len(known) == len(CYCLIC) + len(LINEAR)
    assert all(len(set(family.members)) == len(family.members) for family in known.values())
    (found,) = families([" Q", " W", " E"], known={"keys": Ordered("linear", ["q", "w", "e"])})
    assert (found.order, found.rows) == ("linear", [[0, 1, 2]])


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
