"""Speed of the complexity of Boolean functions, compared with a plain Python loop.

    python -m benchmarks.function_complexity
    python -m benchmarks.function_complexity --functions 1000000 --rounds 5

Random tables of 2^n values get their Lempel-Ziv complexity, forwards and backwards, on one thread. The plain loop
searches the text of the table for each word, as the definition says. Both run alternately, and ratios are of the same
round. Compilation is not included.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from zoo.functions.complexity import words
from zoo.functions.keys import keys_from_tables, texts_from_tables


def count_words(text: str) -> int:
    found = begin = 0
    while begin < len(text):
        end = begin + 1
        while end <= len(text) and text[begin:end] in text[: end - 1]:
            end += 1
        found, begin = found + 1, end
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--n_inputs", type=int, default=7, help="default 7")
    made.add_argument("--functions", type=int, default=200_000, help="default 200,000")
    made.add_argument("--plain", type=int, default=500, help="functions of the plain loop, default 500")
    made.add_argument("--rounds", type=int, default=5, help="default 5")
    args = made.parse_args(argv)
    tables = np.random.default_rng(0).integers(0, 2, (args.functions, 2**args.n_inputs))
    keys, texts = keys_from_tables(tables), texts_from_tables(tables[: args.plain])
    words(keys[:1], args.n_inputs)  # compile
    compiled, plain, found = [], [], np.zeros(0)
    for _ in range(args.rounds):
        start = time.perf_counter()
        found = words(keys, args.n_inputs)
        middle = time.perf_counter()
        slow = [count_words(text) + count_words(text[::-1]) for text in texts]
        compiled.append((middle - start) / args.functions)
        plain.append((time.perf_counter() - middle) / len(texts))
        if found[: len(texts)].sum(1).tolist() != slow:
            raise SystemExit("the two ways count different numbers of words")
    per_function = found.sum() / args.functions
    ratios = sorted(slow / fast for slow, fast in zip(plain, compiled, strict=True))
    shown = Table("random tables", "functions / s", "words / s", "times the plain loop")
    for name, seconds, ratio in (
        ("plain Python loop", statistics.median(plain), "1"),
        ("zoo", statistics.median(compiled), f"{statistics.median(ratios):.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})"),
    ):
        shown.add_row(name, f"{1 / seconds:.3g}", f"{per_function / seconds:.3g}", ratio)
    console = Console()
    console.print(shown)
    console.print(f"n = {args.n_inputs}, {args.functions:,} functions, {args.rounds} rounds, one thread")


if __name__ == "__main__":
    main()
