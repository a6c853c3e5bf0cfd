"""Config files: they are found by path or by shipped name, and one builds on another by its `base`."""

import difflib
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError
from zoo.paths import expanded

FLAGS = ("--config", "-c")
SHIPPED = Path(__file__).parent / "cli_configs"


def shipped() -> dict[str, Path]:
    """Return the files of the shipped configs by name, such as gpt2/learned, sorted by name."""
    files = {file.relative_to(SHIPPED).with_suffix("").as_posix(): file for file in SHIPPED.rglob("*.yaml")}
    return dict(sorted(files.items()))


def shipped_name(name: str) -> str:
    """Return the name of a shipped config without the folder `cli_configs/` and without `.yaml`."""
    return name.removeprefix("cli_configs/").removesuffix(".yaml")


def closest(name: str) -> str:
    """Return a hint: the shipped config with the most similar name, or the command that lists the shipped configs."""
    key, known = shipped_name(name), shipped()
    if any(one.startswith(f"{key}/") for one in known):
        return f"`python -m zoo configs {key}` lists the shipped ones"
    names = {part: one for one in known for part in (one.rpartition("/")[2], one)}
    close = difflib.get_close_matches(key, names, 1)
    return f"did you mean {names[close[0]]!r}?" if close else "`python -m zoo configs` lists the shipped ones"


def find_config(name: str, named_in: Path | None = None) -> Path:
    """Return the file of a config. A file on disk takes precedence over a shipped config.

    Args:
        name: Path of a file, or name of a shipped config.
        named_in: The config that has `name` as its `base`; a path is then relative to the folder of that config.

    Raises:
        ZooError: If there is no such file and no such shipped config.
    """
    path = (named_in.parent if named_in else Path()) / expanded(name)
    if path.is_file():
        return path
    if file := shipped().get(shipped_name(name)):
        return file
    what = f"config {named_in}: base" if named_in else "config"
    reason = "is a folder" if name and path.is_dir() else "is neither a file nor a shipped config"
    raise ZooError(f"{what} {name!r} cannot be read: it {reason}; {closest(name)}")


def about(path: Path) -> str:
    """Return the first sentence of a config's first comment, without example commands."""
    comment = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    lines = [line.lstrip("# ") for line in comment]
    text = " ".join(line for line in lines if not line.startswith("python -m zoo"))
    return re.split(r"(?<=[.?])\s", text, maxsplit=1)[0]


def portable_text(name: str) -> str:
    """Return the text of a shipped config whose `base` is a shipped name, so that it works in any folder."""
    files = shipped()
    text, base = files[name].read_text("utf-8"), read_config(files[name]).get("base")
    if base is None:
        return text
    names = {file: name for name, file in files.items()}
    return with_base(text, names[find_config(base, files[name])])


def with_base(text: str, base: str) -> str:
    """Return a config's text with another value of `base`; a text without a `base` stays as it is."""
    node = yaml.compose(text)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "base":
            return f"{text[: value.start_mark.index]}{base}{text[value.end_mark.index :]}"
    return text


def expand_configs(argv: list[str]) -> list[str]:
    """Return the arguments with the file of every config, and the files that it builds on before it.

    If the arguments have `--ckpt_path` and no config, the config of the checkpoint's run is added.

    Args:
        argv: Command-line arguments after `python -m zoo`.

    Raises:
        ZooError: If a config or its base is missing, is no YAML mapping or is its own base.
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
        for file in _chain(find_config(value if equals else next(words, "")), ()):
            arguments += ["--config", str(file)]
    if not given and (run_dir := _run_of_checkpoint(argv)):
        arguments[1:1] = ["--config", str(run_dir / "config.yaml"), "--run_dir", str(run_dir)]
    return arguments


def _chain(path: Path, above: tuple[Path, ...]) -> list[Path]:
    if path.resolve() in above:
        raise ZooError(f"config {path} is its own base")
    base = read_config(path).get("base")
    if not isinstance(base, str | None):
        raise ZooError(f"config {path}: base is {base!r}; expected the path or the name of another config")
    return [*(_chain(find_config(base, path), (*above, path.resolve())) if base else ()), path]


def read_config(path: Path) -> dict[str, Any]:
    """A config file's content.

    Raises:
        ZooError: If it is missing or no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ZooError(f"config {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ZooError(f"config {str(path)!r} cannot be read: it is not UTF-8 text") from None
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
