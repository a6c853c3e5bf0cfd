"""Writes the files of a report (HTML page, JSON, tables, figures) and reads its JSON."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.report.colors import colors
from zoo.report.document import Report, Section
from zoo.report.page import find_picture, html
from zoo.report.plain import plain
from zoo.report.table import Table
from zoo.report.versions import versions

SCHEMA = "superposition-zoo/report"
SCHEMA_VERSION = 2  # in version 1, the tables of a section and the costs were Markdown texts


def write(report: Report, out: Path) -> None:
    """Write `report.html`, `report.json`, `table.md`, pictures in `figures/`, and tables as CSV in `tables/`.

    Every file is written completely or not at all.

    Args:
        report: The report.
        out: Folder, created if necessary; files of an older report in it are replaced.

    Raises:
        ZooError: If two sections or figures have the same name, a picture does not exist, or the fields of a chart's
            series have different lengths.
    """
    from zoo.report.drawing import draw

    _check(report)
    page = html(report, out)
    content = json.dumps(_content(report), indent=1, allow_nan=False)
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    shades = colors(report)
    for chart in report.charts():
        file = figures / f"{chart.name}.png"
        partial = _partial(file)
        draw(chart, shades).savefig(partial, format="png")
        partial.replace(file)
    for section in report.sections:
        for picture in section.pictures:
            found, file = find_picture(picture, out), figures / picture.name
            if found.resolve() != file.resolve():
                _put(file, found.read_bytes())
        tables = [table for table in section.tables if isinstance(table, Table)]
        for number, table in enumerate(tables, 1):
            name = re.sub(r"[^\w.-]+", "-", section.id) + (f"-{number}" if len(tables) > 1 else "")
            (out / "tables").mkdir(exist_ok=True)
            _put(out / "tables" / f"{name}.csv", table.csv().encode("utf-8"))
    _put(out / "table.md", _tables(report).encode("utf-8"))
    _put(out / "report.json", (content + "\n").encode("ascii"))
    _put(out / "report.html", page.encode("utf-8"))


def read(path: Path) -> dict[str, Any]:
    """Read a `report.json`.

    Args:
        path: The file, or its folder.

    Raises:
        ZooError: If the file does not exist, is damaged, is not a report, or is too new for this version of the zoo.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ZooError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ZooError(f"{file} is damaged: it is not valid JSON") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ZooError(f"{file} is not a report of superposition-zoo")
    version = content.get("schema_version")
    if type(version) is not int or version < 1:
        raise ZooError(f"{file} is damaged: its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise ZooError(f"{file} has schema_version {version}, but this zoo reads up to {SCHEMA_VERSION}; update it")
    if not isinstance(content.get("verdict"), dict) or not isinstance(content.get("sections"), list):
        raise ZooError(f"{file} is damaged: it has no verdict or no sections")
    return content


def _check(report: Report) -> None:
    charts = [chart.name for chart in report.charts()]
    for name in charts:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise ZooError(f"chart {name!r}: a name may only have letters, digits, _, - and .")
    files = [f"{name}.png" for name in charts]
    files += [picture.name for section in report.sections for picture in section.pictures]
    for kind, names in (("sections", [section.id for section in report.sections]), ("figures", files)):
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ZooError(f"two {kind} of a report have the same name {twice[0]}")


def _content(report: Report) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "study": report.study,
        "title": report.title,
        "subject": report.subject,
        "verdict": plain(report.verdict),
        "sections": [_section(section) for section in report.sections],
        "command": report.command,
        "settings": plain(report.settings),
        "costs": plain(report.costs),
        "versions": versions(),
    }


def _section(section: Section) -> dict[str, Any]:
    found = {key: plain(getattr(section, key)) for key in ("id", "title", "finding", "tested", "tables")}
    found["pictures"] = [f"figures/{picture.name}" for picture in section.pictures]
    return found | {
        key: plain(getattr(section, key)) for key in ("null_models", "not_shown", "command", "numbers", "charts")
    }


def _tables(report: Report) -> str:
    """Return all tables as Markdown, each under the question that it answers."""
    parts = [f"# {report.title}\n\n{report.verdict.headline}"]
    parts += [report.verdict.evidence] if report.verdict.evidence else []
    for section in report.sections:
        parts.append(f"## {section.title}\n\n{section.finding}")
        parts += [table if isinstance(table, str) else table.markdown() for table in section.tables]
    return "\n\n".join(parts) + "\n"


def _partial(file: Path) -> Path:
    return file.with_name(f"{file.name}.partial")


def _put(file: Path, content: bytes) -> None:
    partial = _partial(file)
    partial.write_bytes(content)
    partial.replace(file)
