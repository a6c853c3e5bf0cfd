"""Properties of tokens that follow from their texts: their kind, families with a known order, and related pairs.

A token is represented by the text to which the tokenizer decodes it. A leading space belongs to the token, and "##"
marks a WordPiece token that continues a word.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from zoo.token_texts import BYTE, REPLACED

CONTINUES = "##"
KINDS = ("word", "continuation", "capitalised", "upper case", "number", "punctuation", "space", "not Latin", "special")
CYCLIC = {
    "weekdays": "monday tuesday wednesday thursday friday saturday sunday",
    "weekdays, short": "mon tue wed thu fri sat sun",
    "months": "january february march april may june july august september october november december",
    "months, short": "jan feb mar apr may jun jul aug sep oct nov dec",
    "seasons": "spring summer autumn winter",
    "hours": "one two three four five six seven eight nine ten eleven twelve",
    "compass": "north northeast east southeast south southwest west northwest",
    "colour wheel": "red orange yellow green blue purple",
    "musical notes": "c d e f g a b",
    "zodiac": "aries taurus gemini cancer leo virgo libra scorpio sagittarius capricorn aquarius pisces",
}
LINEAR = {
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "numbers 1-100": " ".join(str(number) for number in range(1, 101)),
    "number words": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty"
    ),
    "tens": "ten twenty thirty forty fifty sixty seventy eighty ninety",
    "powers of ten": "ten hundred thousand million billion trillion",
    "ordinals": "first second third fourth fifth sixth seventh eighth ninth tenth",
    "ordinals in digits": "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th",
    "years": " ".join(str(year) for year in range(1500, 2100)),
    "decades": " ".join(f"{year}s" for year in range(1900, 2020, 10)),
    "units of time": "second minute hour day week month year decade century",
    "ages": "newborn infant child teenager adult elderly",
    "planets": "mercury venus earth mars jupiter saturn uranus neptune",
    "alphabet": " ".join(string.ascii_lowercase),
    "Greek letters": "alpha beta gamma delta epsilon zeta eta theta",
    "Roman numerals": "i ii iii iv v vi vii viii ix x",
}
LONG = 24  # members; of a longer family, a run of its members is enough
LEAST_RUN = 12  # members of such a run, at least

Order = Literal["cyclic", "linear"]


class Ordered(NamedTuple):
    """Words in a known order."""

    order: Order
    members: list[str]


class Family(NamedTuple):
    """Tokens in a known order."""

    name: str
    order: Order
    members: list[str]  # words as in the list of families, in order
    rows: list[list[int]]  # token ids in order, for every form that all members have


class Relation(NamedTuple):
    """Pairs of tokens that differ by the same change, such as a final -s."""

    name: str
    example: str
    pairs: list[tuple[int, int]]  # token ids


def kind(token: str) -> str:
    """Return the kind of a token, one of `KINDS`.

    "word" and "continuation" are tokens of lower-case letters that start or continue a word. A token without a leading
    space counts as a continuation here. With a tokenizer that marks continuations with "##" it starts a word; `kinds`
    takes this into account.
    """
    token = BYTE.sub(REPLACED, token)
    text = token.removeprefix(CONTINUES).strip()
    if (token.startswith("[") and token.endswith("]") and len(token) > 2) or (token[:1], token[-1:]) == ("<", ">"):
        return "special" if any(c.isalpha() for c in token) else "punctuation"
    if not text:
        return "space"
    if any(c.isdigit() for c in text) and not any(c.isalpha() for c in text):
        return "number"
    if not any(c.isalpha() for c in text):
        return "punctuation"
    if not text.isascii():
        return "not Latin"
    if len(text) > 1 and text.isupper():
        return "upper case"
    if text[0].isupper():
        return "capitalised"
    return "word" if token[:1].isspace() else "continuation"


def kinds(tokens: Sequence[str]) -> list[str]:
    """Return the kind of every token (V), see `kind`."""
    marked = sum(t.startswith(CONTINUES) for t in tokens) > sum(t.startswith(" ") for t in tokens)
    found = [kind(token) for token in tokens]
    if marked:  # tokens have no spaces, and a token without "##" starts a word
        swap = {"continuation": "word"}
        found = [k if t.startswith(CONTINUES) else swap.get(k, k) for k, t in zip(found, tokens, strict=True)]
    return found


def known_families() -> dict[str, Ordered]:
    """Return the families of `CYCLIC` and `LINEAR` by name."""
    cyclic = {name: Ordered("cyclic", text.split()) for name, text in CYCLIC.items()}
    return cyclic | {name: Ordered("linear", text.split()) for name, text in LINEAR.items()}


def families(
    tokens: Sequence[str], usable: Sequence[bool] | None = None, known: Mapping[str, Ordered] | None = None
) -> list[Family]:
    """Return the families whose members are all tokens, in every form that all members have.

    Forms are: with a leading space, with a capital, in upper case, ... A family of more than 24 members, such as years,
    may be incomplete. It is then represented by the longest run of members that any form has, if this has at least 12
    members.

    Args:
        tokens: Text of every token, (V).
        usable: Which tokens may be members, (V); by default all.
        known: Families to search for; by default `known_families`.
    """
    ids = _ids(tokens, usable)
    found = []
    for name, (order, members) in (known_families() if known is None else known).items():
        forms = [
            [ids.get(start + change(member)) for member in members]
            for start in ("", " ", CONTINUES)
            for change in (str, str.lower, str.capitalize, str.upper)
        ]
        least = LEAST_RUN if len(members) > LONG else len(members)
        first, end = max((_longest_run(form) for form in forms), key=lambda run: run[1] - run[0])
        if end - first < least:
            continue
        rows: list[list[int]] = []
        for form in forms:
            run = [i for i in form[first:end] if i is not None]
            if len(run) == end - first and run not in rows:
                rows.append(run)
        found.append(Family(name, order, members[first:end], rows))
    return found


def _longest_run(form: Sequence[int | None]) -> tuple[int, int]:
    """Return start and end of the longest run without None."""
    best, start = (0, 0), 0
    for place, value in enumerate([*form, None]):
        if value is None:
            if place - start > best[1] - best[0]:
                best = (start, place)
            start = place + 1
    return best


def relations(tokens: Sequence[str], usable: Sequence[bool] | None = None, least: int = 40) -> list[Relation]:
    """Return the relations with at least `least` pairs of tokens; for the other arguments see `families`."""
    ids = _ids(tokens, usable)
    found = []
    for name, change in RELATIONS.items():
        pairs = [(i, ids[other]) for token, i in ids.items() if (other := change(token)) in ids and ids[other] != i]
        if len(pairs) >= least:
            a, b = pairs[len(pairs) // 2]
            found.append(Relation(name, f"{tokens[a]!r} to {tokens[b]!r}", pairs))
    return found


def _ids(tokens: Sequence[str], usable: Sequence[bool] | None) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens) if usable is None or usable[i]}


def _word(change: Callable[[str], str]) -> Callable[[str], str | None]:
    """Apply a change to the text of words of at least three lower-case letters; a leading space stays."""

    def changed(token: str) -> str | None:
        text = token.strip()
        if len(text) < 3 or not (text.isascii() and text.isalpha() and text.islower()):
            return None
        return token[: len(token) - len(token.lstrip())] + change(text)

    return changed


def _with_space(token: str) -> str | None:
    return " " + token if token[:1].isalpha() else None


def _past(text: str) -> str:
    return text + ("d" if text.endswith("e") else "ed")


def _progressive(text: str) -> str:
    return text.removesuffix("e") + "ing"


RELATIONS: dict[str, Callable[[str], str | None]] = {
    "leading space": _with_space,
    "continuation": lambda token: CONTINUES + token if token[:1].isalpha() else None,
    "capital": _word(str.capitalize),
    "upper case": _word(str.upper),
    "-s": _word(lambda text: text + "s"),
    "-ed": _word(_past),
    "-ing": _word(_progressive),
    "-ly": _word(lambda text: text + "ly"),
    "-er": _word(lambda text: text + "er"),
    "un-": _word(lambda text: "un" + text),
}
