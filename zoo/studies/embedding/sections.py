"""What the study found, as a report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo.report import Report, Section, Verdict
from zoo.report.labels import label
from zoo.studies import row_reset_report
from zoo.studies.embedding import coding_sections, controls, structure, structure_sections, training_sections
from zoo.studies.embedding.numbers import limit_of, share, spelled, units_of
from zoo.studies.embedding.verdict import Measured, decide

QUESTIONS = {
    "rows": "Which rows were set aside as untrained?",
    "A1": "How well do autoencoders code the rows?",
    "A2": "How small is the error of certified sparse codes?",
    "controls": "Which superpositions would have been recognised?",
    "A3": "Does that error go to zero over pretraining?",
    "A4": "Are atoms of one kind of token near each other?",
    "A5": "Does GPT-2 train much worse with a frozen random embedding?",
    "A6": "What is one row worth, and does fine-tuning bring it back?",
    "A7": "How many bits does the token dictionary save?",
    "A8": "Is one row of a pair a matrix times the other?",
    "A9": "Do tokens of a known order lie on circles, or on lines?",
}

SHOWN, LISTED = 8, 200  # names of rows that were set aside, by reason, in a sentence and in a table


def write_up(out: Path, done: dict[str, Any]) -> Report:
    """The report of a finished study.

    Args:
        out: Folder of the study.
        done: What every part gave, by its name.
    """
    command = done["command"]

    def section(name: str, make: Callable[[str], Section]) -> Section:
        if isinstance(done[name], str):
            return Section(name, QUESTIONS[name], done[name], tested=False)
        return make(QUESTIONS[name])

    sections = [
        _rows(done),
        section("A1", lambda q: coding_sections.autoencoders(q, out, done, _command(command, "A1"))),
        section("A2", lambda q: coding_sections.dictionaries(q, out, done, _command(command, "A2"))),
        section("controls", lambda q: coding_sections.controls(q, done, _command(command, "the controls"))),
        coding_sections.pretraining(QUESTIONS["A3"], out, done, _command(command, "A3")),
        section("A4", lambda q: structure_sections.atoms(q, done, _command(command, "A4"))),
        section("A5", lambda q: training_sections.training(q, out, done, _command(command, "A5"))),
        _resets(done),
        section("A7", lambda q: coding_sections.bits(q, done, _command(command, "A7"))),
        structure_sections.binding(QUESTIONS["A8"], done, _command(command, "A8")),
        structure_sections.circles(QUESTIONS["A9"], done, _command(command, "A9")),
    ]
    return Report(
        "embedding",
        "Is there structure in the embedding outside superposition?",
        _subject(done),
        _verdict(done),
        sections,
        command,
        done["settings"] | {"steps": done["steps"]},
        _costs(done["costs"]),
    )


def _command(command: str, part: str) -> str:
    return f"{command}  # {part}: a part of the study; what is finished is not made again"


def _resets(done: dict[str, Any]) -> Section:
    if isinstance(done["A6"], str):
        return Section("A6", QUESTIONS["A6"], done["A6"], tested=False)
    results = done["A6"]
    settings = results["settings"]
    command = f"python -m zoo study row-reset --out DIR --source {settings['source']} --rows {settings['rows']}"
    return row_reset_report.section(results, settings, command)


def _rows(done: dict[str, Any]) -> Section:
    """The rows that look untrained, and why."""
    rows, command = done["rows"], _command(done["command"], "rows")
    what = "kept, as was asked" if rows["kept_all"] else "set aside"
    finding = (
        f"{rows['untrained']:,} of {rows['n_tokens']:,} rows look untrained and were {what}."
        if rows["untrained"]
        else "None: no row looks untrained."
    )
    if done["with_untrained"]:
        kept = share(done["with_untrained"]["errors"])
        finding += f" With them kept the held-out error of sparse coding is {spelled(kept)}."
    lines = ["| reason | rows | tokens |", "|---|---|---|"]
    lines += [
        f"| {reason} | {len(tokens):,} | {_some(tokens, LISTED).replace('|', chr(92) + '|')} |"
        for reason, tokens in rows["aside"].items()
    ]
    return Section(
        "rows",
        QUESTIONS["rows"],
        finding,
        tables="\n".join(lines) if rows["aside"] else "",
        null_models="",
        not_shown=(
            "That all other rows were trained: a row is kept where nothing decides. A rare token's row can be barely "
            "trained without being near the common cluster or a random start."
        ),
        command=command,
        numbers={key: rows[key] for key in ("n_tokens", "n_rows", "untrained", "aside", "auc")},
    )


def _subject(done: dict[str, Any]) -> str:
    rows, names = done["rows"], ", ".join(done["settings"]["sources"])
    names += " (A1, A4 and A6 to A9 look at the first)" if len(done["settings"]["sources"]) > 1 else ""
    text = f"{names}: {rows['n_tokens']:,} tokens in {rows['d_model']} dimensions"
    if len(done["steps"]) > 1:
        text += f", at {len(done['steps'])} steps of pretraining up to {done['steps'][-1]:,}"
    found = [any(rows["cluster_found"]), any(norm is not None for norm in rows["random_start_norm"])]
    unseen = [
        what for what, seen in zip(("common cluster of untrained rows", "random start"), found, strict=True) if not seen
    ]
    undecided = (
        f" No {' and no '.join(unseen)} stands out, so rows were kept where nothing else decides." if unseen else ""
    )
    if not rows["untrained"]:
        return f"{text}. No row looks untrained.{undecided}"
    kept = "they were kept" if rows["kept_all"] else f"they were set aside, and {rows['n_rows']:,} rows are studied"
    reasons = [f"{reason} {len(tokens):,} ({_some(tokens)})" for reason, tokens in rows["aside"].items()]
    told = [f"{name} ({n:,}) with an area under the curve of {auc:.3f}" for name, (auc, n) in rows["auc"].items()]
    tells = f" Nearness to the cluster's centre tells {' and '.join(told)}." if told else ""
    return (
        f"{text}. {rows['untrained']:,} rows look untrained; {kept}. Reasons: {'; '.join(reasons)}.{undecided}{tells}"
    )


def _some(tokens: Sequence[str], most: int = SHOWN) -> str:
    """Some of the tokens, spread over all, and how many more there are."""
    shown = [f"`` {label(token)} ``" for token in tokens[:: -(-len(tokens) // most)]]
    return ", ".join(shown) + (f" and {len(tokens) - len(shown):,} more" if len(shown) < len(tokens) else "")


def _verdict(done: dict[str, Any]) -> Verdict:
    s, rows = done["settings"], done["rows"]
    at_l0, n_atoms, one_step = rows["at_l0"], rows["n_atoms"], len(done["steps"]) == 1
    gap, arm = training_sections.cheapest(done["A5"])
    gap = gap if gap and done["A5"]["same_shape"] else None  # that of another model says nothing of this embedding
    errors = coding_sections.errors(done)
    error, null, difference = (errors[k] for k in ("embedding", "null", "difference"))
    limit = limit_of(done)
    found = done["A8"]["findings"]
    beside = [line for line in found if line["experiment"] != "A4"]  # superposed rows have neighbours of a kind, too
    measured = Measured(gap, error, null, difference, limit, at_l0, n_atoms)
    sentence, numbers = decide(measured, found, s["margin"], s["tolerance"])
    untested = [] if gap else ["training with a frozen random embedding"]
    untested += [] if rows["tokens_known"] else ["circles and binding of known tokens"]
    untested += ["where the error goes over pretraining"] if one_step else []
    going = "not tested" if one_step else "no limit can be fitted"
    recognised = done["controls"] if isinstance(done["controls"], str) else controls.sentence(_controls(done))
    lines = [
        "| question | measured | threshold | answer |",
        "|---|---|---|---|",
        f"| Does training need the embedding? | {_gap(gap, arm)} | {s['margin']:g} nats | {numbers['needed']} |",
        f"| Does sparse coding explain it? | held-out FVU {spelled(error)} with {at_l0} of {n_atoms} atoms in every "
        f"row, by matching pursuit, every row counted alike | {s['tolerance']:g} | {numbers['explained']} |",
        f"| Where is that error going over pretraining? | {f'limit {spelled(limit)}' if limit else going} | "
        f"{s['tolerance']:g} | |",
        f"| Is it less than that of Gaussian rows with the same covariance? | {spelled(null)} for these, difference "
        f"{spelled(difference)} | 0 | {_sign(difference)} |",
        f"| Which superpositions would have been recognised? | {recognised} | {s['tolerance']:g} | |",
        f"| Is there structure that sparse coding does not look for? | {_structure(beside)} | "
        f"adjusted p {s['alpha']:g} | {_answer(done, beside)} |",
    ]
    if done["with_untrained"]:
        lines.append(f"| What changes if untrained rows are kept? | {_with_untrained(done, error)} | | |")
    false = done["A8"]["false_findings"]
    certainty = (
        f"Brackets are 95 % intervals, Student t; those of errors are over {units_of(done)}. {recognised} "
        "The same search for circles and matrices was made in Gaussian null models with the same mean and covariance: "
        f"{structure.false_rate(false)}."
        + (f" Not tested: {', '.join(untested)}." if untested else "")
        + " An error above the tolerance can also come from a superposition of more atoms a row, of more atoms than "
        "the dictionaries have, or with more noise than those that would have been recognised."
    )
    numbers |= {
        "at_l0": at_l0,
        "gap": gap,
        "arm": arm,
        "error": error,
        "null_error": null,
        "difference": difference,
        "controls": recognised,
    }
    numbers |= {"limit": limit, "tests": done["A8"]["tests"], "findings": found, "false_findings": false}
    return Verdict(sentence, certainty, "\n".join(lines), numbers)


def _with_untrained(done: dict[str, Any], error: dict[str, float]) -> str:
    kept = done["with_untrained"]
    names = [
        {line["name"] for line in found if line["experiment"] != "A4"}
        for found in (done["A8"]["findings"], kept["findings"])
    ]
    text = f"held-out FVU {spelled(share(kept['errors']))} instead of {spelled(error)}"
    if names[0] == names[1]:
        return f"{text}; the same structure is found"
    lost, gained = (", ".join(sorted(a - b)) for a, b in (names, names[::-1]))
    return text + (f"; no longer found: {lost}" if lost else "") + (f"; found in addition: {gained}" if gained else "")


def _controls(done: dict[str, Any]) -> list[dict[str, Any]]:
    return coding_sections.judged_controls(done)


def _gap(gap: dict[str, float] | None, arm: str | None) -> str:
    return f"{arm}: {spelled(gap)} nats more" if gap else "not tested"


def _answer(done: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    return ("yes" if found else "no") if done["rows"]["tokens_known"] else "not tested"


def _sign(difference: dict[str, float]) -> str:
    return "yes" if difference["high"] < 0 else "no, it is more" if difference["low"] > 0 else "not told apart"


def _structure(found: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{line['name']} (p {line['adjusted']:.2g})" for line in found) or "nothing"


def _costs(costs: dict[str, dict[str, float]]) -> str:
    lines = ["| part | minutes | largest process, MB |", "|---|---|---|"]
    parts = {"A2": "A2, A3", "A8": "A8, A9"}
    lines += [
        f"| {parts.get(k, k)} | {v['seconds'] / 60:.1f} | {v['largest_process_mb']:.0f} |" for k, v in costs.items()
    ]
    total = sum(v["seconds"] for v in costs.values()) / 60
    jobs = int(max(v["jobs"] for v in costs.values()))
    lines += [f"| all | {total:.1f} | |", "", f"{jobs} processes at a time, of one thread each; all sessions together."]
    return "\n".join(lines)
