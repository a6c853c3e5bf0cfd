"""Config files that build on one another."""

from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError
from zoo.paths import expanded

FLAGS = ("--config", "-c")


def expand_configs(argv: list[str]) -> list[str]:
    """Put a config's `base`, a path beside it, before it; a run's own config stands in where none is given.

    Args:
        argv: Command-line arguments after `python -m zoo`.

    Raises:
        ZooError: If a config is missing, is no YAML mapping or is its own base.
    """
    arguments: list[str] = []
    words = iter(argv)
    given = False
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            arguments.append(word)
            continue
        given = True
        path = expanded(value if equals else next(words, ""))
        for file in _chain(path, ()):
            arguments += ["--config", str(file)]
    if not given and (run_dir := _run_of_checkpoint(argv)):
        arguments[1:1] = ["--config", str(run_dir / "config.yaml"), "--run_dir", str(run_dir)]
    return arguments


def _chain(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise ZooError(f"config {path} is its own base")
    base = read_config(path).get("base")
    if not isinstance(base, str | None):
        raise ZooError(f"config {path}: base is {base!r}; expected the path of another config")
    return [*(_chain(path.parent / expanded(base), (*above, path.resolve())) if base else ()), path]


def read_config(path: Path) -> dict[str, Any]:
    """A config file's content.

    Raises:
        ZooError: If it is missing or no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ZooError(f"config {str(path)!r} cannot be read; is the path right?") from None
    except yaml.YAMLError as error:
        raise ZooError(f"config {path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ZooError(f"config {path} holds no settings (a YAML mapping such as `model: ...`)")
    return content


def _run_of_checkpoint(argv: list[str]) -> Path | None:
    """The folder of the run whose config stands in for one: that of `--ckpt_path`, or `--run_dir` for last or auto.

    Raises:
        ZooError: If the checkpoint does not exist.
    """
    ckpt_path, run_dir = _value(argv, "--ckpt_path"), _value(argv, "--run_dir")
    if ckpt_path is None:
        return None
    is_own = run_dir is not None and ckpt_path in ("last", "auto")
    path = expanded(run_dir or "") / "checkpoints" / "last.ckpt" if is_own else expanded(ckpt_path)
    if ckpt_path == "auto" and not path.is_file():
        return None
    if not path.is_file():
        raise ZooError(f"ckpt_path {str(path)!r} does not exist")
    folder = path.parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def _value(argv: list[str], flag: str) -> str | None:
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        name, equals, inline = word.partition("=")
        if name == flag:
            return inline if equals else following
    return None
