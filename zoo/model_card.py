"""The model card of a checkpoint, written from the values that the checkpoint stores."""

import inspect
from typing import Any


def model_card(name: str, network: type, part: dict[str, Any]) -> str:
    """Return a card in Markdown: what the network is, its metrics, how it was made, and what it is not for.

    Args:
        name: Title of the card.
        network: Class of the network. The card repeats the first paragraph of its docstring and its `not_for`.
        part: The "zoo" part of the checkpoint's config, see `checkpoint_config.KEYS`.
    """
    provenance = part["provenance"]
    arguments = ", ".join(f"{k}={v!r}" for k, v in part["init_args"].items())
    what = (inspect.getdoc(network) or "").partition("\n\n")[0]
    lines = [f"# {name}", "", f"{network.__name__}: {what}", ""]
    trained = "" if "source" in provenance else f" after {part['step']:,} training steps"
    lines += [f"`{part['class']}({arguments})`{trained}{_stored_as(part)}.", ""]
    if metrics := provenance.get("metrics"):
        lines += ["| metric | last measured |", "|---|---|", *(f"| {k} | {v:.4g} |" for k, v in metrics.items()), ""]
    lines += ["## How it was made", ""]
    if command := provenance.get("command"):
        lines += [f"    {command}", ""]
        lines += ["`python -m zoo rebuild` with this checkpoint's name or folder runs it again and compares.", ""]
    if data := (provenance.get("config") or {}).get("data"):
        settings = ", ".join(f"{k}={_short(v)}" for k, v in (data.get("init_args") or {}).items() if v is not None)
        lines.append(f"- data: `{_class_name(data)}({settings})`")
    for key in ("source", "seed", "corpus_fingerprint", "versions"):
        if provenance.get(key) is not None:
            value = provenance[key]
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            lines.append(f"- {key.replace('_', ' ')}: `{text}`")
    if not provenance:
        lines.append("The checkpoint does not say how it was made.")
    lines += ["", "## What it is not for", "", getattr(network, "not_for", "Anything but research.")]
    return "\n".join(lines) + "\n"


def _stored_as(part: dict[str, Any]) -> str:
    return "" if part.get("dtype") in (None, "float32", "float64") else f", its weights rounded to {part['dtype']}"


def _class_name(config: dict[str, Any]) -> str:
    return str(config.get("class_path", "")).rpartition(".")[2]


def _short(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return f"{_class_name(value)}({', '.join(f'{k}={v!r}' for k, v in (value.get('init_args') or {}).items())})"
    return repr(value)
