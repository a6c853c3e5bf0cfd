"""Functions that find studies, the zoo's own and those in a user's file. Listing them imports nothing."""

import ast
import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from zoo.errors import ZooError
from zoo.paths import expanded

FOLDER = Path(__file__).parent.parent / "studies"


def questions() -> dict[str, str]:
    """Return the questions of the zoo's studies by name, sorted by name."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith("_") or file.suffix != ".py" or not file.is_file():
            continue
        tree = ast.parse(file.read_text("utf-8"))
        found[path.stem.replace("_", "-")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def load(name: str) -> tuple[type, Path | None]:
    """Return the class of a study and its file, which is None for a study of the zoo.

    Args:
        name: Name of a study of the zoo, or path of a file that defines a study.

    Raises:
        ZooError: If there is no such study, or the file does not define exactly one study.
    """
    if name.endswith(".py") or "/" in name:
        path = expanded(name).resolve()
        return _only_study(load_file(path), str(path)), path
    known = questions()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else "`python -m zoo study` lists all."
        raise ZooError(f"there is no study {name!r}; {hint} A study in a file is named by its path, such as ./mine.py")
    module = importlib.import_module(f"zoo.studies.{name.replace('-', '_')}")
    return _only_study(module, name), None


def load_file(path: Path) -> ModuleType:
    """Import a user's file as a module with the file's name.

    Raises:
        ZooError: If the file does not exist or cannot be imported, or another module has its name.
    """
    if not path.is_file():
        raise ZooError(f"there is no file {path}")
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    other = importlib.util.find_spec(name) if name.isidentifier() else None
    if not name.isidentifier() or name in sys.modules or (other and Path(other.origin or "").resolve() != path):
        raise ZooError(f"{path} needs another name: {name!r} is not a valid module name, or a module has it already")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ZooError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _only_study(module: ModuleType, name: str) -> type:
    from zoo.study import Study

    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Study) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ZooError(f"{name} defines {len(own)} studies; it must define exactly one subclass of zoo.study.Study")
    return own[0]
