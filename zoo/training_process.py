"""Runs `python -m zoo fit` in a process of its own, for tasks of studies. Configs are passed as text."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo import end_with_parent
from zoo.errors import ZooError

FOLDER = "ZOO_TASK"  # environment variable with the task's folder, for paths in the arguments


def config_texts(config: str) -> tuple[str, ...]:
    """Texts of a config's bases and of the config itself, in this order.

    Args:
        config: A file or the name of a shipped config; or the name or folder of a checkpoint, for the config that it
            was trained with.

    Raises:
        ZooError: If there is no such config, or the checkpoint does not say how it was made.
    """
    import yaml

    from zoo import catalog
    from zoo.config_files import expand_configs, with_base
    from zoo.paths import expanded

    if config not in catalog.list_models() and not expanded(config).is_dir():
        files = expand_configs(["--config", config])[1::2]
        return tuple(with_base(Path(file).read_text("utf-8"), "null") for file in files)
    from zoo.rebuild import portable
    from zoo.source import Source

    made_by = Source.open(config).provenance().get("config")
    if not made_by:
        raise ZooError(f"{config} does not say how it was made; name a config")
    return (yaml.safe_dump(portable(made_by), sort_keys=False),)


def fit(configs: Sequence[str], arguments: Sequence[str], folder: Path, device: str) -> Path:
    """Train in a process with one thread, or continue the run in the folder.

    Args:
        configs: Texts of YAML files; each builds on the one before.
        arguments: Arguments of `fit`, which take precedence over the configs.
        folder: Folder for the configs, `log.txt` and the run; $ZOO_TASK stands for it in the arguments.
        device: "cpu" or "cuda"; the arguments may name another one.

    Returns:
        The run's folder.

    Raises:
        ZooError: If the run ends with an error. The message has the run's own error and the path of its log.
    """
    words = [sys.executable, "-m", "zoo", "fit"]
    for i, text in enumerate(configs):
        (folder / f"config-{i}.yaml").write_text(text, "utf-8")
        words += ["--config", str(folder / f"config-{i}.yaml")]
    on = ["gpu", "--trainer.devices", "1"] if device == "cuda" else [device]
    words += ["--trainer.accelerator", *on, *arguments]
    words += ["--run_dir", str(folder / "run"), "--ckpt_path", "auto"]
    environment = {**os.environ, **end_with_parent.for_children(), "OMP_NUM_THREADS": "1", FOLDER: str(folder)}
    log = folder / "log.txt"
    with log.open("ab") as file:
        start = file.tell()
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    if code:
        printed = log.read_bytes()[start:].decode("utf-8", "replace")
        raise ZooError(f"{_what_is_wrong(printed, code)}; see {log}")
    return folder / "run"


def _what_is_wrong(printed: str, code: int) -> str:
    """The last line of a run's output that gives the reason for its end."""
    lines = [line.strip() for line in re.split(r"[\n\r]+", printed)]
    lines = [line for line in lines if line and not line.startswith("resume with:")]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code < 0 and not errors:
        return f"the training run was ended by signal {-code}"
    return (errors or lines or [f"the training run ended with code {code}"])[-1]
