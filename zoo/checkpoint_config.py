"""The names of the files of a zoo checkpoint, and functions that write and read its `config.json`.

The config holds the class and arguments of the model, its provenance, and hashes of tensors and files. It also holds a
SHA-256 hash of itself, so that damage to the config is detected. Fast to import.
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
        folder: Folder of the checkpoint.
        part: The zoo's part of the config, a dict with `KEYS`.
        hugging_face: Keys of a Hugging Face config, which the same file contains; may be empty.
    """
    content = {**hugging_face, "zoo": {"format_version": FORMAT_VERSION, **part}}
    content = json.loads(json.dumps(content))  # converts keys that are numbers to text
    content["zoo"]["sha256"] = _digest(content)
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def is_ours(path: Path) -> bool:
    """Return whether a config.json, damaged or not, belongs to a zoo checkpoint."""
    return re.search(r'"zoo"\s*:\s*\{', path.read_text("utf-8", errors="replace")) is not None


def read(folder: Path, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the "zoo" part of a checkpoint's config, without the hash.

    Args:
        folder: Folder of the checkpoint.
        content: Content of its config, if it was read before.

    Raises:
        ZooError: If the config cannot be read, has another format version, or is damaged.
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
            raise ZooError(
                f"{path} is not the config of a zoo checkpoint (key {key!r} must be of type {kind.__name__})"
            )
    if (own := part.get("sha256")) is None:
        raise ZooError(f"{path} has no hash of itself: it is damaged, or an older version of the zoo wrote it")
    part = {key: value for key, value in part.items() if key != "sha256"}
    if own != _digest({**content, "zoo": part}):
        raise ZooError(f"{path} is damaged: its hash differs from that of the config that was saved")
    return part


def _digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a config without its hash; white space and the order of keys in the file do not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
