import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_after(code):
    """Names in sys.modules after running code in a fresh interpreter that starts in the checkout."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def test_import_zoo_and_the_light_commands_load_neither_torch_nor_lightning():
    loaded = modules_after("import zoo\nzoo.list_models()\nfrom zoo.__main__ import main\nmain(['list', '--json'])")
    assert not {"torch", "lightning", "transformers", "matplotlib", "numpy"} & loaded


def test_models_datamodules_and_callbacks_are_imported_only_as_parts_of_zoo():
    loaded = modules_after("import zoo.cli, zoo.studies.frozen_embedding")
    assert {"zoo.models", "zoo.datamodules", "zoo.callbacks"} <= loaded
    assert not {"models", "datamodules", "callbacks"} & loaded


FLOORS = {"errors": 0, "metrics": 1, "catalog": 1, "checkpoints": 1, "sources": 1, "null_models": 1, "export": 1}
FLOORS |= {
    "active_inputs": 1,
    "source_files": 1,
    "saelens": 1,
    "models": 2,
    "datamodules": 2,
    "callbacks": 3,
    "analysis": 3,
}
FLOORS |= {"active_inputs": 1, "studies": 4, "cli": 4}


def imported_rooms(path):
    """Rooms of the zoo that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "zoo":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("zoo."))


@pytest.mark.parametrize("room", FLOORS)
def test_the_floors_import_only_downwards_and_models_and_data_not_each_other(room):
    path = ROOT / "zoo" / f"{room}.py"
    files = [path] if path.exists() else sorted((ROOT / "zoo" / room).rglob("*.py"))
    assert files
    for file in files:
        for other in set(imported_rooms(file)) & FLOORS.keys() - {room}:
            assert FLOORS[other] < FLOORS[room] or FLOORS[other] == FLOORS[room] in (1, 4), f"{file} imports {other}"
