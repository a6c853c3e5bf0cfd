"""The files of a zoo checkpoint, and its `config.json`: what rebuilds the model, where it came from, and hashes.

The config carries its own SHA-256: a damaged digit is noticed before it becomes another network or another account of
a run. Imports nothing heavy.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

NAME = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
TOKEN_COUNTS = "token_counts.json"
CARD = "README.md"
FILES = (NAME, WEIGHTS, TOKENIZER, TOKEN_COUNTS, CARD)
FORMAT_VERSION = 1
KEYS = {"class": str, "init_args": dict, "step": int, "tensors": dict, "files": dict, "provenance": dict}


def write(folder: Path, part: dict[str, Any], hugging_face: dict[str, Any]) -> None:
    """Write a checkpoint's config.

    Args:
        folder: Where to.
        part: What has `KEYS`.
        hugging_face: Keys of a Hugging Face config beside it, if any.
    """
    content = {**hugging_face, "zoo": {"format_version": FORMAT_VERSION, **part}}
    content = json.loads(json.dumps(content))  # numbers that are keys become text
    content["zoo"]["sha256"] = _digest(content)
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def is_ours(path: Path) -> bool:
    """Whether a config.json, damaged or not, is that of a zoo checkpoint."""
    return re.search(r'"zoo"\s*:\s*\{', path.read_text("utf-8", errors="replace")) is not None


def read(folder: Path, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """The "zoo" part of a checkpoint's config, without its hash.

    Args:
        folder: The checkpoint.
        content: What its config holds, if that was read before.

    Raises:
        ZooError: If it cannot be read, is of a newer format, or is not the one that was saved.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text("utf-8")) if content is None else content
        part = content["zoo"]
        version = part["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ZooError(f"{path} is not the config of a zoo checkpoint ({type(error).__name__}: {error})") from None
    if version != FORMAT_VERSION:
        raise ZooError(f"{path} has format version {version}; this version of the zoo reads {FORMAT_VERSION}")
    for key, kind in KEYS.items():
        if not isinstance(part.get(key), kind):
            raise ZooError(f"{path} is not the config of a zoo checkpoint ({key!r} is no {kind.__name__})")
    if (own := part.get("sha256")) is None:
        raise ZooError(f"{path} is damaged, or was written by an older version of the zoo: it has no hash of itself")
    part = {key: value for key, value in part.items() if key != "sha256"}
    if own != _digest({**content, "zoo": part}):
        raise ZooError(f"{path} is damaged: it is not the config that was saved")
    return part


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of everything but the digest itself, whatever its layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
