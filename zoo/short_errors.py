"""Short error messages: one line with what is wrong, where, and what would be right."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from zoo import callbacks, datamodules, models
from zoo.errors import ZooError

USERS_MISTAKES = (ZooError, MisconfigurationException, ValueError, TypeError, OSError)
_NOISE = re.compile(
    "Does not validate|Subtypes:|Errors:|Given value|Problem with given|Expected a path but"
    "|Expected a <class 'NoneType'>"
)


def explain_parse_error(message: str) -> str:
    """Return the cause of a parser's error in one line.

    Args:
        message: Text of the error, of many lines; the cause is one line in nested lists of alternatives.
    """
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    value = (re.findall(r"Got value: (.*)", message) or re.findall(r"Given value: (.*)", message) or [""])[0]
    owners = re.findall(r"Problem with given class_path '[\w.]*?(\w+)'", message)
    where = f"{key} ({owners[-1]})" if owners else key
    leaves = [re.sub(r'Parser key "[^"]+":', "", line).strip(" -") for line in message.splitlines()]
    leaf = next((line for line in leaves if line and not _NOISE.match(line)), message.strip())

    if match := re.search(r"unrecognized arguments: (\S+?)(?:[ =].*)?$", leaf):
        return f"unknown argument {_join(key, match[1])}{_suggest(match[1].lstrip('-'), _flags())}"
    if match := re.match(r"(?:Option|Key|Group) '([^']+)' is not", leaf):
        others = [c.__name__ for c in _classes() if match[1] in inspect.signature(c).parameters]
        hint = f"; it is a setting of {', '.join(others)}" if others else _suggest(match[1], _settings())
        return f"{where} has no setting {match[1]!r}{hint}"
    if match := re.match(r"(?:Expected a dot import path string|Unable to import)\W*(\w+)", leaf):
        if match[1] in _class_names():
            return f"{key}: class {match[1]!r} cannot be used here"
        return f"{key}: there is no class {match[1]!r}{_suggest(match[1], _class_names())}"
    if match := re.search(r"arguments are required: (.*)", leaf):
        if "fit.model" in match[1] or match[1].endswith(".model"):
            return "no model is given; name a config, such as --config quickstart"
        return f"{where} requires a value for {match[1]}"
    if match := re.match(r"Expected a (?:<class '(\w+)'>|typing\.(.*))", leaf):
        wanted = [match[1] or match[2]]
        wanted += [m for line in leaves for m in re.findall(r"^Expected a typing\.(.*)", line) if m not in wanted]
        return f"{key} is {value!r}; expected {' or '.join(w.rstrip('.') for w in wanted)}"
    return f"{key}: {leaf}" if key and key not in leaf else leaf


def explain_exception(error: BaseException) -> str | None:
    """Return the message of the first cause in an exception's chain; None if it is not an error in the user's input."""
    chain: list[BaseException] = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(below)
    deepest = next((e for e in chain if isinstance(e, ZooError)), chain[-1])
    if not isinstance(deepest, USERS_MISTAKES):
        return None
    return explain_parse_error(str(deepest)) if "Parser key" in str(deepest) else " ".join(str(deepest).split())


@contextmanager
def short_errors() -> Iterator[None]:
    """Turn an exception in the block into a ZooError with a short message if the user's input causes it."""
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        if explanation := explain_exception(error):
            raise ZooError(explanation) from error
        raise


def _join(key: str, flag: str) -> str:
    return f"--{key}.{flag.lstrip('-')}" if key else flag


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = [k for k in known if k.startswith(f"{word}_")] or difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else "; --help lists the valid names"


def _classes() -> list[type]:
    exported = [getattr(module, name) for module in (models, datamodules, callbacks) for name in module.__all__]
    return [c for c in exported if isinstance(c, type)]


def _class_names() -> list[str]:
    lightning_names = [n for n in dir(L.pytorch.callbacks) if n[0].isupper()]
    return [c.__name__ for c in _classes()] + lightning_names


def _settings() -> list[str]:
    return sorted({name for c in _classes() for name in inspect.signature(c).parameters})


def _flags() -> list[str]:
    trainer = [f"trainer.{name}" for name in inspect.signature(L.Trainer).parameters]
    own = ["config", "run_dir", "seed_everything", "ckpt_path", "model", "data", "trainer"]
    return [*own, *trainer, *_settings(), *(f"{k}.{s}" for k in ("model", "data", "optimizer") for s in _settings())]
