"""Config files that build on one another."""

from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError

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
        path = Path(value if equals else next(words, ""))
        for file in _chain(path, ()):
            arguments += ["--config", str(file)]
    if not given and (config := _config_of_run(argv)):
        arguments[1:1] = ["--config", str(config)]
    return arguments


def _chain(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise ZooError(f"config {path} is its own base")
    base = read_config(path).get("base")
    return [*(_chain(path.parent / base, (*above, path.resolve())) if base else ()), path]


def read_config(path: Path) -> dict[str, Any]:
    """A config file's content.

    Raises:
        ZooError: If it is missing or no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError:
        raise ZooError(f"config {str(path)!r} cannot be read; is the path right?") from None
    except yaml.YAMLError as error:
        raise ZooError(f"config {path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ZooError(f"config {path} holds no settings (a YAML mapping such as `model: ...`)")
    return content


def _config_of_run(argv: list[str]) -> Path | None:
    """The config saved in the folder of the run that `--ckpt_path` points into."""
    for word, value in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, inline = word.partition("=")
        if flag == "--ckpt_path":
            config = Path(inline if equals else value).parent.parent / "config.yaml"
            return config if config.is_file() else None
    return None
