"""What holds for every study of the zoo, found by its file. A new study needs no test of these."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path

import pytest

from zoo.running.study_files import FOLDER, load, questions
from zoo.study import Study, all_tasks
from zoo.study_command import _parse

ROOT = Path(__file__).parents[2]
STUDIES = list(questions())
SLOW = ("torch", "lightning", "matplotlib", "scipy", "plotly", "datasets", "numba", "sklearn")
MADE_BY_OTHERS = {"run", "main", "argparse", "matplotlib"}  # folders, arguments and pictures


@cache
def in_fresh_python():
    """Of every study: what of SLOW its import brings, and the keys of its tasks by default, or why there are none."""
    code = f"""
        import json, sys
        from zoo.errors import ZooError
        from zoo.running.study_files import load
        from zoo.study import all_tasks
        found = {{}}
        for name in {STUDIES}:
            before = set(sys.modules)
            try:
                load(name)
                found[name] = [sorted(set({SLOW}) & set(sys.modules) - before), None]
            except Exception as error:
                found[name] = [[str(error)], str(error)]
        for name in {STUDIES}:
            if not found[name][1]:
                try:
                    found[name][1] = [task.key for task in all_tasks(load(name)[0]())]
                except ZooError as error:
                    found[name][1] = str(error)
        print(json.dumps(found))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=STUDIES)
def study(request):
    """The class of a study."""
    return load(request.param)[0]


def test_there_are_studies():
    assert "planted-atoms" in STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_it_asks_a_question(name):
    assert re.fullmatch(r"[A-Z][^\n]+\?", questions()[name])


def test_every_setting_is_explained_and_has_a_default(study):
    told = re.findall(r"^ {8}(\w+): \S", study.__doc__.partition("Args:")[2], re.MULTILINE)
    assert told == [f.name for f in fields(study)]
    assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(study))
    assert set(study.aliases.values()) <= set(told)


@pytest.mark.parametrize("name", STUDIES)
def test_nothing_slow_is_imported_with_it(name):
    assert in_fresh_python()[name][0] == []


@pytest.mark.parametrize("name", STUDIES)
def test_its_tasks_have_names_that_last(name):
    made = load(name)[0]()
    keys = [task.key for task in all_tasks(made)]
    assert keys or made.parts()
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"\w+-[0-9a-f]{20}", key) for key in keys)
    assert in_fresh_python()[name][1] == keys


def test_it_reports_on_its_results_or_on_its_parts(study):
    has_parts = study.parts is not Study.parts
    assert (study.report_of_parts is not Study.report_of_parts) == has_parts
    assert (study.report is not Study.report) == (not has_parts)


def test_what_all_studies_share_is_not_in_it(study):
    path = Path(sys.modules[study.__module__].__file__)
    for file in path.parent.glob("*.py") if path.name == "__init__.py" else [path]:
        tree = ast.parse(file.read_text("utf-8"))
        imported = {
            alias.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        imported |= {n.module.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        called = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not MADE_BY_OTHERS & (imported | defined)
        assert not {"add_argument", "savefig", "write_text", "write_bytes"} & called


def test_no_report_stands_in_a_file_beside_its_study():
    assert not list(FOLDER.rglob("*_report.py"))


@pytest.mark.parametrize("file", sorted((ROOT / "cli_configs" / "study").glob("*.yaml")), ids=lambda file: file.stem)
def test_its_shipped_settings_are_accepted_by_the_command_in_their_first_line(file, monkeypatch):
    words = file.read_text("utf-8").splitlines()[0].removeprefix("# python -m zoo study ").split()
    monkeypatch.chdir(ROOT)
    how, made = _parse(load(words[0])[0], words[0], words[1:], None)
    assert str(file.relative_to(ROOT)) in words
    assert made != type(made)()
    assert how.out
