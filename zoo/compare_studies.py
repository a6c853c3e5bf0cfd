"""One report on several finished studies of the same name."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo import estimates
from zoo.compare import settings_section
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.report.chart import Style

STYLES: tuple[Style, ...] = ("line", "dashed", "dotted")  # of the series of one study in a chart
NOT_INDEPENDENT = (
    "Differences have no interval, because the studies have a source or their random seeds in common: their errors are "
    "related."
)

Json = dict[str, Any]


def compared_studies(studies: Mapping[str, Json]) -> Report:
    """Return a report with the verdicts, numbers, charts and settings of several studies side by side.

    Args:
        studies: Contents of `report.json`, by name of the folder.

    Raises:
        ZooError: If the studies do not have the same name.
    """
    kinds = {name: study["study"] for name, study in studies.items()}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} is the study {kind}" for name, kind in kinds.items())
        raise ZooError(f"only studies of one name can be compared, but {told}")
    settings = {name: {**study["settings"], "versions": study["versions"]} for name, study in studies.items()}
    are_independent = not _have_a_source_in_common(studies)
    evidence = ["| study | what was studied | verdict |", "|---|---|---|"]
    for name, study in studies.items():
        evidence.append(
            f"| {name} | {_cell(study['subject'].partition('. ')[0])} | {_cell(study['verdict']['headline'])} |"
        )
    parts = _of_parts(studies, are_independent)
    cases = {name: study["verdict"]["numbers"].get("case") for name, study in studies.items()}
    known = [f"{name}: {case}" for name, case in cases.items() if case]
    answers = "; ".join(known) if len(known) == len(cases) else f"verdicts of {len(cases)} studies are shown below"
    certainty = "Each verdict is that of its own study. " + (
        "A difference is a study minus the first study. Its 95 % interval is unpaired (Welch): it treats the samples "
        "of the two studies as independent. The intervals are not corrected for the number of comparisons."
        if are_independent
        else NOT_INDEPENDENT
    )
    verdict = Verdict(f"{_sentence(answers)}.", certainty, "\n".join(evidence), {"cases": cases})
    sections = [*parts, settings_section("Which settings and versions differ?", "settings", settings)]
    title = f"How do {len(studies)} results of study {next(iter(kinds.values()))} differ?"
    return Report(f"Studies: {', '.join(studies)}", verdict, sections, title=title)


def unpaired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return b minus a with Welch's 95 % interval, from the Student t intervals of two independent samples.

    Args:
        a: Mean of the first sample, with its interval. The wider side of the interval counts, as the other may be cut
            off at the smallest or largest possible value.
        b: Mean of the second sample, with its interval.

    Returns:
        The difference; without an interval (NaN) if the size of a sample is not known.
    """
    from scipy import stats

    centre = b.mean - a.mean
    if min(a.n, b.n) < 2:
        return Estimate(centre, math.nan, math.nan)
    parts = []
    for one in (a, b):
        half = max(one.high - one.mean, one.mean - one.low)
        parts.append(((half / float(stats.t.ppf(0.975, one.n - 1))) ** 2, one.n - 1))
    variance = sum(v for v, _ in parts)
    if variance == 0:
        return Estimate(centre, centre, centre, min(a.n, b.n))
    df = variance**2 / sum(v**2 / d for v, d in parts)
    half = float(stats.t.ppf(0.975, df)) * variance**0.5
    return Estimate(centre, centre - half, centre + half, min(a.n, b.n))


def _of_parts(studies: Mapping[str, Json], are_independent: bool) -> list[Section]:
    """Return one section on the numbers of the verdicts, and one for every part that two or more studies have."""
    verdicts = {
        name: {key.replace("_", " "): value for key, value in _numbers(study["verdict"]["numbers"])}
        for name, study in studies.items()
    }
    found = [
        _section("verdict", "Which numbers do the verdicts depend on?", verdicts, [], are_independent, list(studies))
    ]
    by_id: dict[str, dict[str, Json]] = {}
    for name, study in studies.items():
        for section in study["sections"]:
            if section["tested"]:
                by_id.setdefault(section["id"], {})[name] = section
    for part, own in by_id.items():
        if len(own) < 2:
            continue
        title = next(iter(own.values()))["title"]
        cells = {name: _once(_cells(section)) for name, section in own.items()}
        found.append(_section(part, title, cells, _charts(own), are_independent, list(own)))
    return [section for section in found if section.tables or section.charts]


def _section(
    id: str, title: str, values: Mapping[str, Mapping[str, Any]], charts: list[Chart], independent: bool, all: list[str]
) -> Section:
    first, *others = all
    rows: list[list[Any]] = []
    numbers: dict[str, Any] = {}
    for key in dict.fromkeys(key for own in values.values() for key in own):
        cells = [values[name].get(key) for name in all]
        if sum(cell is not None for cell in cells) < 2:
            continue
        gaps = [_gap(cells[0], cell, independent) for cell in cells[1:]]
        rows.append([key, *cells, *gaps])
        numbers[key] = {
            "values": dict(zip(all, cells, strict=True)),
            "differences": dict(zip(others, gaps, strict=True)),
        }
    note = (
        "Brackets of values are those of the studies; that of a difference from a null model is for one more draw of "
        "the null model. Only numbers that two or more studies have are shown."
    )
    table = Table(["number", *all, *(f"{name} - {first}" for name in others)], rows, note=note)
    clear = sum(isinstance(gap, Estimate) and gap.sign != "undecided" for row in rows for gap in row[1 + len(all) :])
    measured = sum(isinstance(gap, Estimate) and math.isfinite(gap.low) for row in rows for gap in row[1 + len(all) :])
    finding = f"{len(rows)} numbers are in two or more of the studies."
    if measured:
        finding += f" Of {measured} differences with an interval, {clear} exclude 0."
    return Section(id, title, finding, tables=[table] if rows else [], charts=charts, numbers=numbers)


def _gap(a: Any, b: Any, independent: bool) -> Any:
    """Return b minus a: with an interval if possible, as a number otherwise, or None if one is not a number."""
    centre = [one.mean if isinstance(one, Estimate) else one for one in (a, b)]
    if any(not isinstance(one, int | float) or isinstance(one, bool) for one in centre):
        return None
    if independent and isinstance(a, Estimate) and isinstance(b, Estimate):
        gap = unpaired_difference(a, b)
        if math.isfinite(gap.low):
            return gap
    return float(centre[1] - centre[0])


def _numbers(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Return the estimates, numbers and short texts in a verdict's numbers, by their keys."""
    if (estimate := _estimate(content)) is not None:
        yield key, estimate
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from _numbers(value, f"{key}, {name}" if key else name)
    elif isinstance(content, int | float) or (isinstance(content, str) and len(content) < 60):
        yield key, content


def _cells(section: Json) -> Iterator[tuple[str, Any]]:
    """Return the estimates and fractions in the tables of a section, by the names of their row and column.

    All cells before the first number name a row.
    """
    for table in section["tables"]:
        if not isinstance(table, dict):
            continue
        for row in table["rows"]:
            values = [cell if isinstance(cell, float) else _estimate(cell) for cell in row]
            first = next((i for i, value in enumerate(values) if value is not None), len(row))
            name = ", ".join(map(str, row[: max(1, first)]))
            for column, value in zip(table["columns"][1:], values[1:], strict=True):
                if value is not None and value is not estimates.UNKNOWN:
                    yield f"{name}: {column}", value


def _once(cells: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Return the cells whose name occurs once; it is not known which rows of the same name belong together."""
    found = list(cells)
    times = Counter(name for name, _ in found)
    return {name: value for name, value in found if times[name] == 1}


def _estimate(content: Any) -> Estimate | None:
    if not isinstance(content, dict) or set(content) != {"mean", "low", "high", "n"}:
        return None
    if content["mean"] is None:
        return estimates.UNKNOWN
    low, high = (content[end] if content[end] is not None else math.nan for end in ("low", "high"))
    return Estimate(content["mean"], low, high, content["n"])


def _charts(sections: Mapping[str, Json]) -> list[Chart]:
    """Return the charts that two or more studies have, each with the first series of all of them."""
    by_name: dict[str, dict[str, Json]] = {}
    for name, section in sections.items():
        for chart in section["charts"]:
            if not chart["map"] and not chart["grid"]:  # places on a map have no meaning of their own
                by_name.setdefault(chart["name"], {})[name] = chart
    return [_overlaid(name, own) for name, own in by_name.items() if len(own) > 1]


def _overlaid(name: str, charts: Mapping[str, Json]) -> Chart:
    first = next(iter(charts.values()))
    own = {study: {s["name"]: s for s in reversed(chart["series"])} for study, chart in charts.items()}
    shared = [s["name"] for s in first["series"] if sum(s["name"] in series for series in own.values()) > 1]
    shared = list(dict.fromkeys(shared))
    chosen = shared[: len(STYLES)]
    series = [
        _renamed(of[kind], study, kind, style)
        for kind, style in zip(chosen, STYLES, strict=False)
        for study, of in own.items()
        if kind in of
    ]
    left = f"Of {len(shared)} series, the first {len(chosen)} are drawn." if len(shared) > len(chosen) else ""
    caption = " ".join(text for text in (first["caption"], left) if text)
    axes = {key: first[key] for key in ("x_label", "y_label", "log_x", "log_y")}
    return Chart(name, first["title"], series, **axes, caption=caption)


def _renamed(series: Json, study: str, kind: str, style: Style) -> Series:
    """Return a series with the study's name and, if it is a line, in the study's colour and the style of its kind."""
    name, is_line = f"{study}: {kind}" if kind else study, series["style"] in STYLES
    changed = {"style": style, "color": study} if is_line else {"color": None}
    y = [math.nan if value is None else value for value in series["y"]]
    ends = {end: _gaps(series[end]) for end in ("low", "high")}
    return Series(**{**series, **ends, **changed, "name": name, "y": y, "written": False})


def _gaps(values: Sequence[float | None] | None) -> list[float] | None:
    return None if values is None else [math.nan if value is None else value for value in values]


def _have_a_source_in_common(studies: Mapping[str, Json]) -> bool:
    """Return whether two studies read the same model or embedding, at whatever step.

    A study without a model or embedding draws its data from seeds 0, 1, ..., which others of its name draw as well.
    """
    seen: set[str] = set()
    for study in studies.values():
        sources: set[str] = set()
        for key in ("source", "model", "embedding", "models", "last_model"):
            value = study["settings"].get(key) or ()
            sources |= {value} if isinstance(value, str) else set(map(str, value))
        if not sources or sources & seen:
            return True
        seen |= sources
    return False


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith("verdicts") else text
