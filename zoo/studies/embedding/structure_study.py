"""The search for circles and binding alone, without dictionaries and training: A8 and A9 of the embedding study."""

from pathlib import Path
from typing import Any

from zoo import report, sources
from zoo.errors import ZooError
from zoo.studies.embedding import rows, structure
from zoo.studies.embedding.families_file import read_families
from zoo.studies.embedding.sections import QUESTIONS
from zoo.studies.embedding.structure_sections import binding, circles
from zoo.studies.tasks import check_folder, do_all

ALPHA = 0.05


def run(
    out: Path,
    source: str,
    tokens: str | None = None,
    keep_untrained: bool = False,
    families: str | None = None,
    null_draws: int = 20,
    command: str = "",
    jobs: int = 1,
) -> report.Report:
    """Search what was not searched before, then write `report.html`, `report.json` and `figures/` into the folder.

    Args:
        out: Folder of the study.
        source: What `zoo.embedding` takes; its last step.
        tokens: File with the rows' tokens, for a source that has none, see `rows.read_tokens`.
        keep_untrained: Whether rows that look untrained are searched too.
        families: File with families of tokens in a known order, beside the zoo's, see `families_file.read_families`.
        null_draws: Draws of the covariance-matched null model that are searched in the same way, at least 1.
        command: What was asked for, to be told in the report.
        jobs: Processes, of one thread each.

    Returns:
        The report.

    Raises:
        ZooError: If a setting is out of range, a file cannot be read, the tokens are not known, or the folder holds
            another study.
    """
    for name, value in (("null_draws", null_draws), ("jobs", jobs)):
        if value < 1:
            raise ZooError(f"{name} is {value}; it must be at least 1")
    read_families(families)
    settings: dict[str, Any] = {"source": source, "tokens": tokens, "keep_untrained": keep_untrained}
    step = rows.steps_of(source)[-1]
    prepared = rows.prepare(out, [source], [step], tokens, keep_untrained)
    if not prepared["tokens_known"]:
        raise ZooError(f"the tokens of {source} are not known; give --tokens")
    check_folder(out, settings)
    (out / "structure").mkdir(exist_ok=True)
    file = prepared["patterns"][0].replace("{step}", str(step))
    draws = [structure.Draw(file, number, families) for number in (None, *range(null_draws))]
    do_all(structure.look, [draw for draw in draws if not draw.done(out)], out, jobs)
    searched = structure.read(out, draws, ALPHA)
    settings |= {"families": families, "null_draws": null_draws, "alpha": ALPHA}
    done = {"settings": settings, "rows": prepared | {"tokens": sources.token_strings(file)}, "A8": searched}
    sections = [binding(QUESTIONS["A8"], done, command), circles(QUESTIONS["A9"], done, command)]
    aside = "they were kept" if keep_untrained else "they were set aside"
    written = report.Report(
        "structure",
        "Are there circles or binding in the embedding?",
        f"{source}: {prepared['n_tokens']:,} tokens in {prepared['d_model']} dimensions. {prepared['untrained']:,} "
        f"rows look untrained; {aside}.",
        report.Verdict(
            " ".join(section.finding for section in sections), _certainty(searched), numbers=_numbers(searched)
        ),
        sections,
        command,
        settings,
    )
    report.write(written, out)
    return written


def _certainty(searched: dict[str, Any]) -> str:
    return (
        f"{len(searched['tests'])} tests share a chance of {ALPHA:g} of any false finding (Holm), by "
        f"{searched['found']['draws']:,} draws each. In the same search of Gaussian rows with the embedding's "
        f"covariance, {structure.false_rate(searched['false_findings'])}."
    )


def _numbers(searched: dict[str, Any]) -> dict[str, Any]:
    return {key: searched[key] for key in ("tests", "findings", "false_findings")}
