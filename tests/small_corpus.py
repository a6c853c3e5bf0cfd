"""Sixty small documents that differ."""

import random

SUBJECTS = ["the cat", "a naïve fox", "one old owl", "my neighbour", "the π-shaped robot", "every student"]
VERBS = ["sees", "follows", "paints", "forgets", "measures", "explains to"]
OBJECTS = ["the moon", "a red door", "two small dogs", "the angle θ", "its own shadow", "an empty café"]


def document(number):
    rng = random.Random(number)
    sentences = [" ".join(map(rng.choice, (SUBJECTS, VERBS, OBJECTS))) for _ in range(rng.randint(6, 14))]
    return f"Story {number}: " + ". ".join(sentences) + ".\n"


def make_corpus(folder):
    """Write 60 different documents; returns their folder."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(60):
        (corpus / f"{number:02}.txt").write_text(document(number), "utf-8")
    return corpus
