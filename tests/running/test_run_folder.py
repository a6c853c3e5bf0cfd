"""Which settings may change when a run is resumed, and what is said of those that may."""

import pytest

from zoo import run_folder
from zoo.run_folder import check_resumed, differences

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "M", "init_args": {"d_model": 16, "compile": False}},
    "data": {"class_path": "D", "init_args": {"batch_size": 4, "prompts": ["a"]}},
    "trainer": {"max_steps": 100, "max_epochs": -1, "precision": "32-true", "log_every_n_steps": 10},
}


def changed(part, name, value):
    """The settings with another value."""
    own = (
        CONFIG[part] | {name: value}
        if part == "trainer"
        else CONFIG[part] | {"init_args": CONFIG[part]["init_args"] | {name: value}}
    )
    return CONFIG | {part: own}


def resume(tmp_path, config, saved=CONFIG):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    part = {"provenance": {"config": saved} if saved else None}
    check_resumed(run, run / "checkpoints" / "last.ckpt", part, config)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("model", "d_model", 32), ("data", "batch_size", 8), ("trainer", "precision", "bf16-mixed")],
)
def test_a_setting_that_changes_the_result_is_refused_with_both_values(tmp_path, refused, part, name, value):
    old = CONFIG[part].get(name, CONFIG[part].get("init_args", {}).get(name))
    with refused(rf"{name} is {value!r}.*{old!r}"):
        resume(tmp_path, changed(part, name, value))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("model", "compile", True), ("data", "prompts", ["b"]), ("trainer", "log_every_n_steps", 1)],
)
def test_a_setting_that_does_not_change_the_result_may_change_without_a_word(tmp_path, capsys, part, name, value):
    resume(tmp_path, changed(part, name, value))
    assert capsys.readouterr().out == ""


def test_another_end_of_the_run_is_allowed_and_pointed_out(tmp_path, capsys):
    resume(tmp_path, changed("trainer", "max_steps", 200))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: trainer.max_steps was 100 and is 200;")


def test_a_run_from_python_has_no_settings_to_compare(tmp_path):
    resume(tmp_path, CONFIG, saved=None)


def test_the_checkpoint_of_another_run_is_not_resumed_into_a_folder_that_holds_one(tmp_path, refused):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    with refused("holds a run already"):
        check_resumed(tmp_path / "run", tmp_path / "other.ckpt", {}, CONFIG)
    check_resumed(tmp_path / "new", tmp_path / "other.ckpt", {}, CONFIG)


def test_differences_have_dotted_keys_and_both_values():
    assert differences(CONFIG, CONFIG) == {}
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}) == {
        "a.c": (2, 4),
        "d": (3, None),
        "e": (None, 5),
    }
    assert set(run_folder.ENDS) == {"trainer.max_steps", "trainer.max_epochs"}
