"""`python -m zoo fit` as a process of a task's, from configs that travel as texts."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo import end_with_parent
from zoo.errors import ZooError

FOLDER = "ZOO_TASK"  # environment variable of the process: the task's folder, for paths in its arguments


def config_texts(config: str) -> tuple[str, ...]:
    """Texts of a config and of those it builds on, these first.

    Args:
        config: A file or the name of a shipped config; or the name or folder of a checkpoint, which stands for the
            config that it was trained with.

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
    """Train in a process of one thread, or go on with what is in the folder.

    Args:
        configs: Texts of YAML files, each building on the one before.
        arguments: Of `fit`, which win over the configs.
        folder: Gets the configs, `log.txt` and the folder of the run; in the arguments it is $ZOO_TASK.
        device: "cpu" or "cuda", unless the arguments say otherwise.

    Returns:
        The run's folder.

    Raises:
        ZooError: If the run ends with an error: what it says of it, and where its log is.
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
    """The last line of what a run printed that says why it ended."""
    lines = [line.strip() for line in re.split(r"[\n\r]+", printed)]
    lines = [line for line in lines if line and not line.startswith("resume with:")]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code < 0 and not errors:
        return f"the training run was ended by signal {-code}"
    return (errors or lines or [f"the training run ended with code {code}"])[-1]
