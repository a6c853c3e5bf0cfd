"""The LightningCLI of the zoo: links between data and model, short errors, run folders, exact resume."""

import importlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

import zoo.datamodules
import zoo.models
from zoo import callbacks, end_with_parent, run_folder
from zoo.callbacks.last_checkpoint import resume_hint
from zoo.checkpoints import read_lightning
from zoo.config_files import expand_configs
from zoo.errors import ZooError
from zoo.models.zoo_module import RESTORED
from zoo.paths import expanded
from zoo.protocols import offered
from zoo.short_errors import explain_parse_error, short_errors

ALWAYS = (  # callbacks of every fit, in addition to those a config names
    callbacks.RunProgress,
    callbacks.Throughput,
    callbacks.FiniteLoss,
    callbacks.GracefulStop,
    callbacks.ExactResume,
    callbacks.EndTogether,
    callbacks.LastCheckpoint,
    callbacks.RunSummary,
)
EXPECTED_WARNINGS = (  # Lightning's warnings about things that are intended here
    "Checkpoint directory .* exists and is not empty",  # resuming
    "Be aware that when using `ckpt_path`",  # validating without the training's callbacks
    ".*LeafSpec.* is deprecated",
    "The number of training batches .* is smaller than the logging interval",  # a matrix has few rows
    ".*does not have many workers",  # prompts
    "It is recommended to use `self.log",  # metrics that are global already
)
COMMANDS = {
    "fit": "Train a model, or continue a run: --ckpt_path runs/NAME/checkpoints/last.ckpt.",
    "validate": "Evaluate a model on the validation split.",
    "test": "Evaluate a model on the test split.",
    "predict": "Continue prompts with a model: --data.prompts '[\"class \"]'.",
}
LINKED = (  # attribute of the datamodule, and the setting of the model that follows it
    ("vocab_size", "vocab_size"),
    ("context_length", "context_length"),
    ("d_in", "sae.init_args.d_in"),
    ("d_in", "d_in"),
    ("n_features", "n_features"),
    ("n_seeds", "n_seeds"),
)


class ZooParser(LightningArgumentParser):
    """A parser whose errors are one line."""

    keeps_links = False  # whether a dump includes the settings of the model that follow the data

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error as a ZooError; a parser inside another one leaves this to the outer one."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ZooError(explain_parse_error(message)) from ex

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The configuration as text."""
        return super().dump(*args, **{"skip_link_targets": not self.keeps_links} | kwargs)

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Namespace:
        """Make the configured objects; an error in their `__init__` is reported in one line as a user's mistake."""
        with short_errors():
            return super().instantiate_classes(*args, **kwargs)


class _SaveFitConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder in `fit`, and not in other commands."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class ZooCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` for every model and datamodule of the zoo.

    Args:
        typed: The user's arguments after `python -m zoo`.
        held: Locks and files that stay open until the command ends.
    """

    def __init__(self, typed: list[str], held: ExitStack, **kwargs: Any) -> None:
        self.typed, self.held = typed, held
        super().__init__(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's folder and the links from data to model."""
        parser.add_argument("--run_dir", type=str | None, help="Folder of the run. Default runs/NAME-OF-CONFIG.")
        parser.add_argument("--base", type=str | None, help="In a config: another config that this one builds on.")
        for name, setting in LINKED:
            made = self._rows if name == "vocab_size" else None
            parser.link_arguments(f"data.{name}", f"model.init_args.{setting}", made, apply_on="instantiate")

    def _rows(self, n_tokens: int) -> int:
        """Number of rows of the embedding: one per token, or more if the user asked for more."""
        return max(n_tokens, self.asked.get("vocab_size") or 0)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would replace settings of the command line by those of the checkpoint, silently."""

    def _add_instantiators(self) -> None:
        """Do nothing: Lightning would record every linked value, and the zoo's modules record their own arguments."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and checkpoint; refuse to overwrite a run or to change settings of a resumed one."""
        config = self.config[self.subcommand]
        for name in ("model", "data", "trainer"):
            if not isinstance(config.get(name), Namespace):
                raise ZooError(f"{name} is {config.get(name)!r}; expected a mapping of settings")
        self._forget_defaults(config)
        _check_trainer(config.trainer)
        _check_pair(self.subcommand, config.model.get("class_path"), config.data.get("class_path"))
        config.base = None
        names = [Path(str(path)).stem for path in config.config or []]
        run_dir = expanded(config.run_dir or f"runs/{names[-1] if names else 'unnamed'}")
        if config.trainer.fast_dev_run:
            run_dir = Path(tempfile.mkdtemp(prefix="zoo-"))
        if config.trainer.default_root_dir not in (None, str(run_dir)):
            print(f"note: trainer.default_root_dir has no effect; the run's folder is {run_dir}", file=sys.stderr)
        config.run_dir = config.trainer.default_root_dir = str(run_dir)
        self.plain_config = run_folder.plain_config(self._parser(self.subcommand), config)
        self.first_step = 0
        asked = config.get("ckpt_path")
        asked = "last" if asked == "auto" and self.subcommand != "fit" else asked
        path = run_folder.find_checkpoint(asked, run_dir)
        config.ckpt_path = None
        part: dict[str, Any] = {}
        if path:
            config.ckpt_path = str(path)
            _, part = read_lightning(path)
            RESTORED.set(part)
            self.first_step = part.get("step", 0)
        is_first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
        if self.subcommand == "fit":
            if is_first:
                self.held.enter_context(run_folder.occupied(run_dir))
            if path:
                run_folder.check_resumed(run_dir, path, part, self.plain_config)
                run_folder.check_unfinished(run_dir, path, part, self.plain_config)
            elif is_first:
                run_folder.check_new(run_dir, again=asked == "auto")
        elif not path and config.model.get("init_args", {}).get("init_from") is None:
            print("note: without --ckpt_path these weights are untrained", file=sys.stderr)

    def _forget_defaults(self, config: Namespace) -> None:
        """Drop the settings that follow the data, except those that the user wrote; these are kept in `asked`."""
        given = self.parser.parse_args(sys.argv[1:], defaults=False)  # the command line and its configs only
        written = given.get(f"{self.subcommand}.model.init_args") or {}
        self.asked = {setting: written[setting] for _, setting in LINKED if written.get(setting) is not None}
        for _, setting in LINKED:
            if (key := f"model.init_args.{setting}") in config and setting not in self.asked:
                config[key] = None
        parser: Any = self._parser(self.subcommand)  # a ZooParser
        parser.keeps_links = True

    def instantiate_classes(self) -> None:
        """Make all objects; refuse a setting of the model that contradicts the data it follows."""
        super().instantiate_classes()
        for name, setting in LINKED:
            value, actual = self.asked.get(setting), offered(self.datamodule, name)
            made = self.model.net.config["vocab_size"] if name == "vocab_size" and value else actual
            if actual is not None and value not in (None, actual, made):
                remedy = "leave it out, or change that of the data"
                raise ZooError(f"model.{name} is {value}, and the data's {name} is {actual}; {remedy}")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the callbacks and the logger of every run, except those that the config names itself."""
        trainer_config = self._get(self.config_init, "trainer")
        given = trainer_config.get("callbacks") or []
        given = list(given) if isinstance(given, list) else [given]
        trains = self.subcommand == "fit" and not trainer_config.get("fast_dev_run")
        always = ALWAYS if trains else (callbacks.FiniteLoss,)
        wanted = [c for c in always if not any(isinstance(g, c) for g in given)]
        if trains and trainer_config.get("enable_progress_bar") is False:
            wanted.remove(callbacks.RunProgress)
        if trains and trainer_config.get("enable_checkpointing") is False:
            wanted.remove(callbacks.LastCheckpoint)
        given += [c() for c in wanted]
        for kind in {type(c) for c in given}:
            if sum(type(c) is kind for c in given) > 1 and kind.__module__.startswith("zoo."):
                raise ZooError(f"trainer.callbacks names {kind.__name__} twice")
        if trainer_config.get("strategy") == "ddp":  # gradients are views of the buffers that are sent: one copy less
            kwargs["strategy"] = DDPStrategy(gradient_as_bucket_view=True)
        if trainer_config.get("logger") in (None, True):
            kwargs["logger"] = self.subcommand == "fit" and TensorBoardLogger(
                self._get(self.config, "run_dir"), name="", version="", purge_step=self.first_step
            )
        with short_errors():
            return super().instantiate_trainer(callbacks=given, use_distributed_sampler=False, **kwargs)

    def _set_seed(self) -> None:
        with short_errors():
            super()._set_seed()

    def before_fit(self) -> None:
        """Record in the module how the run was started."""
        self.model.provenance = {
            "command": "python -m zoo " + shlex.join(self.typed),
            "seed": self.plain_config["seed_everything"],
            "config": self.plain_config,
        }

    def after_predict(self) -> None:
        """Print the continued prompts."""
        tokenizer = offered(self.datamodule, "tokenizer")
        for batch in self.trainer.predict_loop.predictions if self.trainer.is_global_zero else []:
            for row in batch:
                print(tokenizer.decode(row.tolist()) if tokenizer else row)
                print("---")


def _help(command: str, text: str) -> dict[str, str]:
    """Usage and description of a command's --help."""
    return {
        "usage": f"python -m zoo {command} --config NAME [--KEY VALUE ...]",
        "description": f"{text} NAME is a shipped config, such as quickstart (`python -m zoo configs` lists them), or "
        "the path of your own; every KEY below can stand in it or on the command line, which takes precedence. What a "
        "class takes: --model.help FrozenEmbeddingGPT2, --data.help TextDataModule, --trainer.callbacks.help "
        "EmbeddingDrift.",
    }


def run(argv: list[str]) -> int:
    """Run a trainer's command, returning the exit code."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "Tip" not in r.getMessage())
    typed, sys.argv = sys.argv, [*sys.argv[:1], *expand_configs(argv)]  # which DDP's child processes see too
    threading.excepthook = _unless_reported
    for name in zoo.models.__all__:
        getattr(zoo.models, name)  # configs may use the short names of classes that are imported
    held = ExitStack()
    os.environ |= end_with_parent.for_children()
    try:
        ZooCLI(
            typed=argv,
            held=held,
            parser_class=ZooParser,
            parser_kwargs={"prog": "python -m zoo", **{name: _help(name, text) for name, text in COMMANDS.items()}},
            save_config_callback=_SaveFitConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"max_epochs": -1},
        )
    except callbacks.RunStopped as stop:
        if getattr(rank_zero_only, "rank", 0) == 0:
            print(f"{stop}\n{resume_hint(stop.checkpoint)}", file=sys.stderr)
        return 128 + stop.signum
    except run_folder.RunIsComplete as complete:
        if getattr(rank_zero_only, "rank", 0) == 0:
            print(complete)
    except SystemExit as end:
        if not isinstance(interrupt := end.__context__, KeyboardInterrupt):  # which Lightning turns into code 1
            raise
        if (checkpoint := getattr(interrupt, "checkpoint", None)) and getattr(rank_zero_only, "rank", 0) == 0:
            print(f"interrupted\n{resume_hint(checkpoint)}", file=sys.stderr)
        return 128 + signal.SIGINT
    except MisconfigurationException as error:
        raise ZooError(" ".join(str(error).split())) from error
    except RuntimeError as error:
        if lost := getattr(error, "lost_process", None):
            print(f"error: {lost}", file=sys.stderr)
            return 1
        if "loading state_dict" not in str(error):
            raise
        raise ZooError(f"the checkpoint does not fit the model: {str(error).splitlines()[1].strip()}") from error
    finally:
        held.close()
        os.environ.pop(end_with_parent.STARTED_BY, None)
        sys.argv, threading.excepthook = typed, threading.__excepthook__
        RESTORED.set(None)
    return 0


def _unless_reported(thread_exception: Any) -> None:
    """Print the error that ended a thread. Errors of the disk in TensorBoard's thread are raised again elsewhere."""
    from_tensorboard = type(thread_exception.thread).__module__.startswith("tensorboard")
    if not (from_tensorboard and isinstance(thread_exception.exc_value, OSError)):
        threading.__excepthook__(thread_exception)


def _check_pair(command: str | None, model: str | None, data: str | None) -> None:
    """Refuse data that the model cannot train on, and a command that the model does not support."""
    if model is None or data is None:
        return
    model_class, data_class = _class_at(model), _class_at(data)
    wanted, given = (getattr(cls, "batches", None) for cls in (model_class, data_class))
    if None not in (wanted, given) and wanted != given:
        fitting = [name for name in zoo.datamodules.__all__ if _batches_of(name) == wanted]
        raise ZooError(
            f"{model_class.__name__} takes batches of {wanted}, and those of {data_class.__name__} hold {given}; "
            f"use {' or '.join(fitting)}"
        )
    if command == "predict" and model_class.predict_step is L.LightningModule.predict_step:
        raise ZooError(f"{model_class.__name__} has nothing to predict; use validate or test, or zoo.load in Python")


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _batches_of(name: str) -> str | None:
    return getattr(getattr(zoo.datamodules, name), "batches", None)


def _check_trainer(trainer: Namespace) -> None:
    """Refuse settings of the trainer that would fail later or have no effect."""
    for name in ("val_check_interval", "accumulate_grad_batches"):
        value = trainer.get(name)
        if isinstance(value, int | float) and value <= 0:
            raise ZooError(f"trainer.{name} is {value}; it must be positive")
    strategy = str(trainer.strategy.get("class_path") if isinstance(trainer.strategy, Namespace) else trainer.strategy)
    if re.search("fsdp|deepspeed|modelparallel|model_parallel", strategy, re.IGNORECASE):
        raise ZooError(
            f"trainer.strategy {strategy} splits parameters over processes, and the zoo clips, tracks and checks them "
            "whole; use ddp"
        )
    if trainer.overfit_batches:
        raise ZooError("trainer.overfit_batches has no effect on the zoo's loaders; use a small corpus instead")
