"""`python -m zoo compare` writes one page on several finished studies, or on several training runs."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo import report
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.report import Report, Section, Table

LONGEST = 200  # characters of a setting's value in a table


def compare(folders: Sequence[str], out: str) -> Path:
    """Write a page that shows finished studies of one name, or training runs, side by side.

    Args:
        folders: Two or more folders of studies, or of runs.
        out: Folder to write to, created if necessary.

    Returns:
        The page, `report.html`.

    Raises:
        ZooError: If there are fewer than two folders, a folder is given twice or holds no results, `out` is one of
            them, or the folders hold different things.
    """
    paths = [expanded(folder) for folder in folders]
    if len(paths) < 2:
        raise ZooError(f"compare needs two or more folders, but only {folders[0]} is given")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ZooError(f"{path} is given twice; compare needs different folders")
        seen.add(path.resolve())
    if expanded(out).resolve() in seen:
        raise ZooError(f"--out {out} is one of the folders that are compared, whose report would be replaced")
    kinds = {path: _kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path} is a {kind}" for path, kind in kinds.items())
        raise ZooError(f"only studies or only runs can be compared, but {told}")
    made = _compared(dict(zip(names(paths), paths, strict=True)), kinds[paths[0]])
    command = shlex.join(["python", "-m", "zoo", "compare", *folders, "--out", "DIR"])
    report.write(replace(made, study="compare", command=command), expanded(out))
    return expanded(out) / "report.html"


def names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of every path, as many as are needed to distinguish it from the others."""
    resolved = [path.resolve().parts for path in paths]
    for n in range(1, max(map(len, resolved)) + 1):
        found = ["/".join(parts[-n:]) for parts in resolved]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in paths]


def differing(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the dotted keys whose values are not equal in all of several nested settings, with all values.

    Args:
        values: Settings by name of their folder, as plain values. An absent key counts as None.
    """
    flat = [_flat(value) for value in values.values()]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: [one.get(key) for one in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def settings_section(title: str, what: str, values: Mapping[str, Any]) -> Section:
    """Return the section on the settings that differ.

    Args:
        title: Title of the section.
        what: Name of what is compared, such as "settings".
        values: See `differing`.
    """
    rows = differing(values)
    finding = f"Number of {what} that differ: {len(rows)}." if rows else f"All {what} are equal."
    table = Table([what, *values], [[key, *map(_shown, row)] for key, row in rows.items()])
    return Section(what, title, finding, tables=[table] if rows else [], numbers={"differing": rows})


def _compared(paths: dict[str, Path], kind: str) -> Report:
    if kind == "study":
        from zoo.compare_studies import compared_studies

        return compared_studies({name: report.read(path) for name, path in paths.items()})
    from zoo.compare_runs import compared_runs

    return compared_runs(paths)


def _kind(path: Path) -> str:
    if (path / "report.json").is_file():
        return "study"
    if (path / "checkpoints").is_dir():
        return "run"
    if not path.is_dir():
        raise ZooError(f"{path} is not a folder; expected the folder of a study or of a run")
    raise ZooError(f"{path} has no results: neither report.json of a study nor the checkpoints of a run")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name in value for k, v in _flat(value[name], f"{key}.{name}" if key else str(name)).items()}
    return {key: value}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
