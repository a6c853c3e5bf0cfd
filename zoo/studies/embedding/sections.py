"""What the study found, as a report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo.report import Report, Section, Verdict
from zoo.studies import row_reset_report
from zoo.studies.embedding import coding_sections, structure_sections, training_sections
from zoo.studies.embedding.numbers import limit_of, spelled, units_of
from zoo.studies.embedding.verdict import decide

QUESTIONS = {
    "A1": "How well do autoencoders code the rows?",
    "A2": "How small is the error of certified sparse codes?",
    "A3": "Does that error go to zero over pretraining?",
    "A4": "Are atoms of one kind of token near each other?",
    "A5": "Does GPT-2 train much worse with a frozen random embedding?",
    "A6": "What is one row worth, and does fine-tuning bring it back?",
    "A7": "How many bits does the token dictionary save?",
    "A8": "Is one row of a pair a matrix times the other?",
    "A9": "Do tokens of a known order lie on circles, or on lines?",
}


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
        section("A1", lambda q: coding_sections.autoencoders(q, out, done, _command(command, "A1"))),
        section("A2", lambda q: coding_sections.dictionaries(q, out, done, _command(command, "A2"))),
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


def _subject(done: dict[str, Any]) -> str:
    rows, names = done["rows"], ", ".join(done["settings"]["sources"])
    names += " (A1, A4 and A6 to A9 look at the first)" if len(done["settings"]["sources"]) > 1 else ""
    text = f"{names}: {rows['n_tokens']:,} tokens in {rows['d_model']} dimensions"
    if len(done["steps"]) > 1:
        text += f", at {len(done['steps'])} steps of pretraining up to {done['steps'][-1]:,}"
    if not rows["untrained"]:
        return f"{text}. No row looks untrained."
    kept = "they were kept" if rows["kept_all"] else f"they were set aside, and {rows['n_rows']:,} rows are studied"
    told = [f"{name} ({n:,}) with an area under the curve of {auc:.3f}" for name, (auc, n) in rows["auc"].items()]
    tells = f" The distance to other rows tells {' and '.join(told)}." if told else ""
    return f"{text}. {rows['untrained']:,} rows look untrained; {kept}.{tells}"


def _verdict(done: dict[str, Any]) -> Verdict:
    s, at_l0 = done["settings"], done["rows"]["at_l0"]
    gap, arm = training_sections.cheapest(done["A5"])
    gap = gap if gap and done["A5"]["same_shape"] else None  # that of another model says nothing of this embedding
    errors = coding_sections.errors(done)
    error, null, difference, control = (errors[k] for k in ("embedding", "null", "difference", "planted"))
    limit = limit_of(done)
    found = done["A8"]["findings"]
    beside = [line for line in found if line["experiment"] != "A4"]  # superposed rows have neighbours of a kind, too
    sentence, numbers = decide(gap, error, null, limit, found, s["margin"], s["tolerance"])
    untested = [] if gap else ["training with a frozen random embedding"]
    untested += [] if done["rows"]["tokens_known"] else ["circles and binding of known tokens"]
    going = "not tested" if len(done["steps"]) == 1 else "no limit can be fitted, see A3"
    untested += ["where the error goes over pretraining"] if len(done["steps"]) == 1 else []
    lines = [
        "| question | measured | threshold | answer |",
        "|---|---|---|---|",
        f"| Does training need the embedding? | {_gap(gap, arm)} | {s['margin']:g} nats | {numbers['needed']} |",
        f"| Does sparse coding explain it? | held-out FVU {spelled(error)} with {at_l0} of {done['rows']['n_atoms']} "
        f"atoms a row, every row counted alike | "
        f"{s['tolerance']:g} | {numbers['explained']} |",
        f"| Where is that error going? | {f'limit {spelled(limit)}' if limit else going} | {s['tolerance']:g} | |",
        f"| Is that less than its covariance explains? | {spelled(null)} for Gaussian rows, difference "
        f"{spelled(difference)} | 0 | {_sign(difference)} |",
        f"| Would it, if rows were sums of 4 atoms? | held-out FVU {spelled(control)} on planted rows | "
        f"{s['tolerance']:g} | {'yes' if control['high'] <= s['tolerance'] else 'not clearly'} |",
        f"| Is there structure that sparse coding does not look for (A8, A9)? | {_structure(beside)} | "
        f"adjusted p {s['alpha']:g} | {_answer(done, beside)} |",
    ]
    false = done["A8"]["false_findings"]
    certainty = (
        f"{at_l0} of {done['rows']['n_atoms']} atoms a row leave {spelled(error)} of the variance of held-out rows, "
        f"{spelled(null)} of Gaussian rows with the same covariance and {spelled(control)} of planted superpositions. "
        f"Intervals are 95 % Student t; those of errors are over {units_of(done)}. "
        f"Of {len(false)} Gaussian null models with the same covariance and norms, {sum(n > 0 for n in false)} had any "
        f"finding in the same search."
        + (f" Not tested: {', '.join(untested)}." if untested else "")
        + " A superposition of more atoms a row, of more atoms than the dictionaries have, or with noise would leave "
        "as much over as structure of another kind."
    )
    numbers |= {
        "planted_error": control,
        "at_l0": at_l0,
        "gap": gap,
        "arm": arm,
        "error": error,
        "null_error": null,
        "difference": difference,
    }
    numbers |= {"limit": limit, "tests": done["A8"]["tests"], "findings": found, "false_findings": false}
    return Verdict(sentence, certainty, "\n".join(lines), numbers)


def _gap(gap: dict[str, float] | None, arm: str | None) -> str:
    return f"{arm}: {spelled(gap)} nats more" if gap else "not tested"


def _answer(done: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    return ("yes" if found else "no") if done["rows"]["tokens_known"] else "not tested"


def _sign(difference: dict[str, float]) -> str:
    return "yes" if difference["high"] < 0 else "no" if difference["low"] > 0 else "undecided"


def _structure(found: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{line['name']} ({line['experiment']}, p {line['adjusted']:.2g})" for line in found) or "nothing"


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
