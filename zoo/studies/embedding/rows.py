"""The rows that the study looks at: those of every run and step, without the ones that were never trained."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo import catalog, sources
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.studies.tasks import write_json
from zoo.token_texts import decoded_tokens, without_text
from zoo.untrained_rows import (
    KEPT,
    NEVER_OCCURS,
    REASONS,
    area_under_curve,
    reserved_names,
    untrained_rows,
)

WORD_STARTS = ("\u2581", "\u0120")  # SentencePiece's and byte-level BPE's marks of a leading space
LEAST_ROWS, LEAST_DIMENSIONS = 40, 4


def steps_of(source: str) -> list[int | None]:
    """All training steps that a source holds, or only the last, where it does not say."""
    place = catalog.place(source)
    if source.startswith("hf:") or not place.is_dir():
        return [None]
    kept = place / "steps" if (place / "steps").is_dir() else place
    return list(catalog.steps(kept)) or [None]


def read_tokens(file: str) -> list[str]:
    """Tokens of a vocabulary: a tokenizer.json, a JSON list, a JSON object from tokens to ids, or lines of text.

    Raises:
        ZooError: If the file cannot be read as one of these.
    """
    path = expanded(file)
    try:
        text = path.read_text("utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise ZooError(f"--tokens {file} cannot be read: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and sorted(map(str, content.values())) == sorted(map(str, range(len(content)))):
        content = [token for token, _ in sorted(content.items(), key=lambda item: int(item[1]))]
    if isinstance(content, dict):
        from tokenizers import Tokenizer

        try:
            return decoded_tokens(Tokenizer.from_str(text))
        except Exception as error:
            raise ZooError(f"--tokens {file} is no tokenizer: {error}") from None
    if not isinstance(content, list) or not all(isinstance(token, str) for token in content):
        raise ZooError(f"--tokens {file} is no list of texts")
    return [" " + token[1:] if token[:1] in WORD_STARTS else token for token in content]


def prepare(
    out: Path, names: Sequence[str], steps: Sequence[int | None], tokens_file: str | None = None, keep_all: bool = False
) -> dict[str, Any]:
    """Write every run's trained rows at every step as .npy, tokens and counts beside them, unless that is done.

    Rows are judged at the last step, and set aside in all steps and runs if they are untrained in any run.

    Args:
        out: Folder of the study.
        names: Sources, one per run of pretraining.
        steps: Ascending.
        tokens_file: Their tokens, if the source has none, see `read_tokens`.
        keep_all: Whether untrained rows stay.

    Returns:
        What was done: `patterns`, where the rows of every run are ({step} stands for the step); `patterns_all`, where
        those of the last step are with no row set aside; and what was set aside, `aside`, the names of the rows by the
        reason.

    Raises:
        ZooError: If the sources cannot be read, have different shapes or too few rows, or are not those that the folder
            was begun with.
    """
    last = [_read(name, steps[-1]) for name in names]
    V, D = last[0].shape
    tokens = read_tokens(tokens_file) if tokens_file else _tokens(names[0], steps[-1])
    n_tokens = V if tokens is None else len(tokens)
    if n_tokens > V or (tokens_file and n_tokens < V):
        raise ZooError(f"there are {n_tokens} tokens and {V} rows; give --tokens with one token per row")
    if tokens is not None:
        tokens = tokens + [f"row {i}" for i in range(n_tokens, V)]  # rows that belong to no token
    counts = sources.row_counts(*sources.at_step(names[0], steps[-1]), V)
    digest = hashlib.sha256(json.dumps([tokens, None if counts is None else counts.tolist()]).encode())
    for name in names:
        for step in steps:
            W = _read(name, step)
            if W.shape != (V, D):
                raise ZooError(f"{name} has {list(W.shape)} rows at step {step}, and {names[0]} has {[V, D]}")
            digest.update(W.contiguous().numpy().data)
    fingerprint, file = digest.hexdigest(), out / "rows" / "rows.json"
    folders = [out / "rows" / f"run-{i}" for i in range(len(names))]
    patterns = [str(f / ("{step}.npy" if steps[-1] is not None else "last.npy")) for f in folders]
    with_all = [str(f / "all" / f"{_stem(steps[-1])}.npy") for f in folders]
    if file.exists():
        summary = dict(json.loads(file.read_text("utf-8")))
        if "aside" not in summary:
            raise ZooError(f"{out} was begun when other rows were called untrained; choose another --out, or delete it")
        if (summary["fingerprint"], summary["kept_all"]) != (fingerprint, keep_all):
            raise ZooError(f"{out} holds a study of other rows or tokens than {', '.join(names)} has now")
        return summary | _places(summary, patterns, with_all)
    no_text = _without_text(names[0], steps[-1], tokens_file)
    found = [untrained_rows(W, counts, tokens, no_text) for W in last]
    reasons = torch.stack([torch.where(f.untrained, f.reason, len(REASONS)) for f in found]).amin(0)
    reasons = torch.where(reasons == len(REASONS), KEPT, reasons)  # the first that holds in any run
    reasons[n_tokens:] = NEVER_OCCURS
    untrained = reasons != KEPT
    kept = torch.ones(V, dtype=torch.bool) if keep_all else ~untrained
    if kept.sum() < LEAST_ROWS or D < LEAST_DIMENSIONS:
        why = (
            ""
            if keep_all or not untrained.any()
            else f" ({int(untrained.sum())} of {V} look untrained; --keep-untrained keeps them)"
        )
        raise ZooError(
            f"{names[0]} has {int(kept.sum())} rows in {D} dimensions{why}; the study needs {LEAST_ROWS} in "
            f"{LEAST_DIMENSIONS}"
        )
    for name, folder in zip(names, folders, strict=True):
        for step in steps:
            _write(folder / _stem(step), _read(name, step), tokens, counts, kept)
    if not kept.all():
        for W, place in zip(last, with_all, strict=True):
            _write(Path(place).with_suffix(""), W, tokens, counts, torch.ones(V, dtype=torch.bool))
    named = tokens or [f"row {i}" for i in range(V)]
    summary = {
        "fingerprint": fingerprint,
        "steps": list(steps),
        "n_tokens": V,
        "d_model": D,
        "n_rows": int(kept.sum()),
        "tokens_known": tokens is not None,
        "counts_known": counts is not None,
        "untrained": int(untrained.sum()),
        "never_occur": None if counts is None else int((counts == 0).sum()),
        "aside": {
            reason: [named[i] for i in (reasons == code).nonzero().squeeze(1).tolist()]
            for code, reason in enumerate(REASONS)
            if code != KEPT and (reasons == code).any()
        },
        "cluster_found": [not f.distance.isnan().any().item() for f in found],
        "random_start_norm": [None if f.norm != f.norm else f.norm for f in found],
        "kept_all": keep_all,
        "auc": _aucs(found[0].distance, counts, tokens, no_text),
    }
    write_json(file, summary)
    return summary | _places(summary, patterns, with_all)


def _stem(step: int | None) -> str:
    return "last" if step is None else str(step)


def _places(summary: dict[str, Any], patterns: list[str], with_all: list[str]) -> dict[str, Any]:
    aside = summary["untrained"] and not summary["kept_all"]
    return {"patterns": patterns, "patterns_all": with_all if aside else patterns}


def _write(
    stem: Path, W: torch.Tensor, tokens: list[str] | None, counts: torch.Tensor | None, kept: torch.Tensor
) -> None:
    """Rows that are kept, (V,) bool, as .npy, with their tokens and counts."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    np.save(f"{stem}.npy", W[kept].numpy())
    if tokens is not None:
        write_json(Path(f"{stem}.tokens.json"), [t for t, k in zip(tokens, kept.tolist(), strict=True) if k])
    if counts is not None:
        write_json(Path(f"{stem}.token_counts.json"), counts[kept].tolist())


def _read(name: str, step: int | None) -> torch.Tensor:
    W = sources.embedding(*sources.at_step(name, step))
    if len(W) < 2:
        raise ZooError(f"{name} has {len(W)} rows; at least 2 are needed")
    return W


def _tokens(name: str, step: int | None) -> list[str] | None:
    try:
        return sources.token_strings(*sources.at_step(name, step))
    except ZooError:
        if not name.startswith("hf:"):
            raise
        return None  # rows can do without names where the hub cannot be reached


def _without_text(name: str, step: int | None, tokens_file: str | None) -> torch.Tensor | None:
    """Which tokens no text has, (n_tokens,) bool, if there is a tokenizer to ask."""
    from tokenizers import Tokenizer

    try:
        if tokens_file:
            tokenizer = Tokenizer.from_str(expanded(tokens_file).read_text("utf-8-sig"))
        elif text := sources.tokenizer_json(*sources.at_step(name, step)):
            tokenizer = Tokenizer.from_str(text)
        else:
            return None
    except Exception:  # a list of tokens, or a hub that cannot be reached
        return None
    return torch.tensor(without_text(tokenizer), dtype=torch.bool)


def _aucs(
    distance: torch.Tensor, counts: torch.Tensor | None, tokens: list[str] | None, no_text: torch.Tensor | None
) -> dict[str, list[float]]:
    """How well nearness to the cluster tells rows that must be untrained: area under the curve, and their number."""
    if distance.isnan().any():
        return {}
    certain = {}
    if counts is not None:
        certain["tokens that never occur"] = counts == 0
    if tokens is not None:
        certain["reserved names"] = reserved_names(tokens)
    if no_text is not None:
        certain["tokens that no text has"] = torch.nn.functional.pad(no_text, (0, len(distance) - len(no_text)))
    return {name: [area_under_curve(-distance, rows), int(rows.sum())] for name, rows in certain.items() if rows.any()}
