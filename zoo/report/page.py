"""Writes a report as one HTML page that requires no other file and no network."""

import base64
import html as markup
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.report.chart import Chart, Series
from zoo.report.colors import color_name, colors
from zoo.report.document import Report, Section
from zoo.report.labels import label, visible
from zoo.report.plain import plain
from zoo.report.traces import figure, legend
from zoo.report.versions import versions
from zoo.wording import listed

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# With this policy, the browser loads nothing from other places.
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
WIDE = 8  # a chart with more series takes the full width of the page, so that they can be distinguished
DASHES = {"line": "", "dashed": "5 3", "dotted": "1.5 3"}
LONG = 40  # characters of a table's cell, from which on its column has a least width
INTERVAL = re.compile(r"-?[\d.,]+(?: %)? \[-?[\d.,]+, -?[\d.,]+\]")
BOX = (
    '<div class="box"><p class="hint" hidden>More columns: scroll the table sideways →</p>'
    '<div class="scroll" role="region" aria-label="Table" tabindex="0">'
)


def html(report: Report, out: Path) -> str:
    """Return the HTML page of a report.

    Args:
        report: The report.
        out: Folder in which pictures are searched first; then in the current folder.

    Raises:
        ZooError: If a picture does not exist, or the fields of a chart's series have different lengths.
    """
    from plotly.offline import get_plotlyjs

    text = _markdown()
    shades = colors(report)
    parts = [
        f'<header><p class="study">Question of the study <code>{_shown(report.study)}</code></p>',
        f'<h1>{_shown(report.title)}</h1><p class="subject">{_inline(text, report.subject)}</p></header>',
        _verdict(text, report, shades),
        _overview(text, report.sections),
        *(_section(text, section, shades, out) for section in report.sections),
        _end(text, report),
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_shown(report.title)}</title>\n<style>\n{_own('page.css')}</style>\n</head>\n<body>\n<main>",
            *parts,
            f"</main>\n<script>{get_plotlyjs()}</script>\n<script>\n{_own('page.js')}</script>\n</body>\n</html>\n",
        ]
    )


def _own(name: str) -> str:
    return (files("zoo.report") / name).read_text("utf-8")


def _markdown() -> "MarkdownIt":
    """Return a Markdown parser without HTML, links and images, because tokens may look like these by chance."""
    from markdown_it import MarkdownIt

    found = MarkdownIt("commonmark", {"html": False}).enable("table")
    return found.disable(["image", "link", "autolink", "reference", "html_block", "html_inline"])


def _block(text: "MarkdownIt", source: str) -> str:
    """Render Markdown as HTML paragraphs and tables.

    Every table is in a box that scrolls sideways. Its cells know the names of their columns.
    """
    tokens = text.parse(visible(source, "\n\t"))
    columns: list[str] = []
    column = 0
    for token, content in itertools.pairwise(tokens):
        if token.type in ("table_open", "tr_open"):
            columns, column = [] if token.type == "table_open" else columns, 0
        elif token.type == "th_open":
            columns.append(_plain(content))
        elif token.type == "td_open":
            token.attrSet("data-column", columns[column])
            if len(_plain(content)) > LONG:
                token.attrSet("class", "long")
            column += 1
    made = _unbroken(text.renderer.render(tokens, text.options, {}))
    return made.replace("<table>", f"{BOX}<table>").replace("</table>", "</table></div></div>")


def _plain(inline: "Token") -> str:
    return "".join(child.content for child in inline.children or ())


def _inline(text: "MarkdownIt", source: str) -> str:
    return _unbroken(text.renderInline(visible(source, "\n\t")))


def _unbroken(made: str) -> str:
    """Mark intervals, such as 0.41 [0.35, 0.47], so that no line ends inside them."""
    return INTERVAL.sub(r'<span class="interval">\g<0></span>', made)


def _shown(source: str, keep: str = "") -> str:
    return markup.escape(visible(source, keep))


def _anchor(section: Section) -> str:
    return re.sub(r"[^\w.-]", "-", visible(section.id))


def _verdict(text: "MarkdownIt", report: Report, shades: Mapping[str, str]) -> str:
    """Return the answer, a chart, how certain the answer is, what it covers, and the results that it is based on."""
    verdict, charts = report.verdict, report.charts()
    opening, _, rest = verdict.headline.partition("\n\n")
    chart = verdict.chart or (charts[0] if charts else None)
    parts = [f'<div><h2>Answer</h2><p class="headline">{_inline(text, opening)}</p>{_block(text, rest)}</div>']
    parts.append(_chart(chart, shades, "chart-of-the-answer") if chart else "")
    for title, content in (
        ("How sure is this?", verdict.certainty),
        ("What would have been recognised?", verdict.recognised),
        ("What was not tested?", _not_tested(report)),
    ):
        parts.append(f"<div><h2>{title}</h2>{_block(text, content)}</div>" if content else "")
    parts.append(f'<div class="evidence">{_block(text, verdict.evidence)}</div>' if verdict.evidence else "")
    return f'<section class="verdict{"" if chart else " without"}">{"".join(parts)}</section>'


def _not_tested(report: Report) -> str:
    shown = [section.not_shown for section in report.sections if section.tested and section.not_shown]
    left = [f"`{section.id}`" for section in report.sections if not section.tested]
    told = [f"{listed(left)} (the reasons are below)."] if left else []
    return report.verdict.not_tested or " ".join([*told, *shown[:1]])


def _overview(text: "MarkdownIt", sections: Sequence[Section]) -> str:
    rows = []
    for section in sections:
        mark = "" if section.tested else '<span class="mark">not tested</span> '
        rows.append(
            f'<li><a href="#{_anchor(section)}"><span class="id">{_shown(section.id)}</span> {_shown(section.title)}'
            f"</a><div>{mark}{_inline(text, section.finding)}</div></li>"
        )
    return f'<nav><h2>Experiments</h2><ul class="overview">{"".join(rows)}</ul></nav>' if rows else ""


def _section(text: "MarkdownIt", section: Section, shades: Mapping[str, str], out: Path) -> str:
    mark = "" if section.tested else ' <span class="mark">not tested</span>'
    parts = [f'<section class="experiment" id="{_anchor(section)}"><h2><span class="id">{_shown(section.id)}</span> ']
    parts.append(f'{_shown(section.title)}{mark}</h2><div class="finding">{_block(text, section.finding)}</div>')
    if section.tested:
        charts = "".join(_chart(chart, shades) for chart in section.charts)
        parts.append(f'<div class="charts">{charts}</div>' if charts else "")
        parts += [_picture(section, picture, out) for picture in section.pictures]
        parts += [_block(text, table if isinstance(table, str) else table.markdown()) for table in section.tables]
        for title, content in (
            ("Null models and baselines", section.null_models),
            ("What this experiment does not show", section.not_shown),
        ):
            parts.append(f"<h3>{title}</h3>{_block(text, content)}" if content else "")
        parts.append(f"<h3>Command that repeats this experiment</h3>{_pre(section.command)}" if section.command else "")
    return "".join([*parts, "</section>"])


def _pre(content: str) -> str:
    return f'<pre tabindex="0">{_shown(content, chr(10))}</pre>'


def _chart(chart: Chart, shades: Mapping[str, str], anchor: str = "") -> str:
    names = legend(chart)
    first = {name: next(series for series in chart.series if series.name == name) for name in names}
    entries = "".join(
        f'<li><button type="button" aria-pressed="true" data-group="{group}">'
        f"{_swatch(first[name], shades[color_name(first[name])])}{markup.escape(label(name))}</button></li>"
        for group, name in enumerate(names)
        if name
    )
    kind = " ".join(["chart", *(["wide"] if len(names) > WIDE else []), *(["map"] if chart.map else [])])
    content = json.dumps(figure(chart, shades), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":  # so that no label can end the script element
        content = content.replace(sign, f"\\u{ord(sign):04x}")
    return (
        f'<figure class="{kind}" id="{anchor or f"chart-{_shown(chart.name)}"}"><h3>{_shown(chart.title)}</h3>'
        f'<div class="plot" role="img" aria-label="{_shown(chart.title)}"></div>'
        f'<script type="application/json">{content}</script>'
        + (f'<ul class="legend">{entries}</ul>' if entries else "")
        + (f"<figcaption>{_shown(chart.caption)}</figcaption>" if chart.caption else "")
        + "</figure>"
    )


def _swatch(series: Series, color: str) -> str:
    shapes = {"points": '<circle cx="11" cy="6" r="4"/>', "bars": '<rect x="5" y="1" width="12" height="10"/>'}
    line = f'<path d="M0 6H22" fill="none" stroke="{color}" stroke-width="2.5" stroke-dasharray="{{}}"/>'
    shape = shapes.get(series.style) or line.format(DASHES[series.style])
    return f'<svg width="22" height="12" fill="{color}" aria-hidden="true">{shape}</svg>'


def find_picture(picture: Path, out: Path) -> Path:
    """Return the path of a picture: relative to the report's folder, or else as given.

    Raises:
        ZooError: If neither file exists.
    """
    for path in (out / picture, picture):
        if path.is_file():
            return path
    raise ZooError(f"the report's picture {picture} does not exist")


def _picture(section: Section, picture: Path, out: Path) -> str:
    content = base64.b64encode(find_picture(picture, out).read_bytes()).decode()
    told = _shown(f"{section.title} ({picture.stem.replace('_', ' ').replace('-', ' ')})")
    return f'<figure class="picture"><img alt="{told}" src="data:image/png;base64,{content}"></figure>'


def _end(text: "MarkdownIt", report: Report) -> str:
    told = "".join(f"<dt>{_shown(name)}</dt><dd>{_shown(version)}</dd>" for name, version in versions().items())
    settings = json.dumps(plain(report.settings), indent=1, ensure_ascii=False, allow_nan=False)
    return (
        '<section class="end"><h2>How this report was made</h2>'
        + (_block(text, report.costs.markdown()) if report.costs else "")
        + (f"<h3>Settings</h3>{_pre(settings)}" if report.settings else "")
        + f"<h3>Versions</h3><dl>{told}</dl>"
        f"<h3>Command that repeats the whole study</h3>{_pre(report.command)}</section>"
    )
