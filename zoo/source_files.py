"""Where the files of a source lie: a folder of this machine or of the Hugging Face hub."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo import catalog, checkpoint_config
from zoo.errors import ZooError


def open_folder(source: str | Path, step: int | None) -> tuple[str, Callable[[str], Path | None]]:
    """A label, and a function from a file's name to its path, or None where there is no such file.

    Args:
        source: A zoo name, a folder, or hf:org/repo[/folder][@revision].
        step: Training step, for a folder that holds several in folders such as `step-000512`.

    Raises:
        ZooError: If there is no such folder, step or repository.
    """
    text = str(source)
    if text.startswith("hf:"):
        repo, inside, revision = hub_place(text)
        if step is None:
            return text, lambda name: _hub_file(repo, revision, inside + name)
        return f"{text} at step {step}", lambda name: _hub_file(
            repo, revision, f"{inside}{catalog.step_folder(step)}/{name}"
        )
    folder = catalog.folder(source, step)
    return text, lambda name: path if (path := folder / name).is_file() else None


def hub_place(text: str) -> tuple[str, str, str | None]:
    """Repository, folder in it ("" or ending in a slash) and revision that hf:org/repo[/folder][@revision] names.

    Raises:
        ZooError: If it names no such place.
    """
    place, _, revision = text.removeprefix("hf:").partition("@")
    parts = place.split("/")
    if not text.startswith("hf:") or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", place) or {".", ".."} & set(parts):
        raise ZooError(f"{text!r} is no place on the hub; write hf:org/repo, hf:org/repo/folder or ...@revision")
    return "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:]), revision or None


def _hub_file(repo: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except LocalEntryNotFoundError as error:
        if try_to_load_from_cache(repo, name, revision=revision) is _CACHED_NO_EXIST:  # known to be absent
            return None
        raise ZooError(f"hf:{repo}: {name} is not in the local cache and the hub cannot be reached") from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ZooError(f"hf:{repo} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error


def weight_files(name: str, get: Callable[[str], Path | None]) -> dict[str, str]:
    """Tensor name -> file, or "*" -> file where one file holds all.

    Raises:
        ZooError: If there are no safetensors weights, or their index is damaged.
    """
    if get(checkpoint_config.WEIGHTS):
        return {"*": checkpoint_config.WEIGHTS}
    if index := get(f"{checkpoint_config.WEIGHTS}.index.json"):
        files = read_json(index, name).get("weight_map")
        if not isinstance(files, dict) or any(f != Path(str(f)).name for f in files.values()):
            raise ZooError(f"{index} is damaged: its weight_map does not name files beside it")
        return files
    if get("pytorch_model.bin"):
        raise ZooError(f"{name} has only pytorch_model.bin, a pickle, which the zoo does not read; convert it first")
    raise ZooError(f"{name} has no {checkpoint_config.WEIGHTS}")


def read_json(path: Path | None, name: str) -> dict[str, Any]:
    """The object in a JSON file of the source called `name`.

    Raises:
        ZooError: If the file is missing or holds something else.
    """
    try:
        content = json.loads(require(path, name, "config.json").read_text("utf-8"))
    except ZooError:
        raise
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ZooError(f"{path} is damaged: it holds no JSON object")
    return content


def require(path: Path | None, name: str, file: str) -> Path:
    """A file's path, which must be there.

    Raises:
        ZooError: If it is None.
    """
    if path is None:
        raise ZooError(f"{name} has no {file}")
    return path


def reject_step(source: str | Path, step: int | None) -> None:
    """Refuse a step where a source holds only one.

    Raises:
        ZooError: If a step is given.
    """
    if step is not None:
        raise ZooError(f"{source} holds one step only; leave step out")
