import csv
import io

import lightning as L
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.callbacks.tables_and_pictures import logged_step, markdown_table, quoted, render, show, write_table


@pytest.fixture
def figure():
    made = Figure(figsize=(2, 1), dpi=50)
    made.add_subplot().plot([0, 1], [1, 0])
    return made


def test_the_file_and_tensorboards_image_are_the_figures_own_pixels(figure, make_trainer, tmp_path, monkeypatch):
    trainer, path = make_trainer(logger=True), tmp_path / "new" / "a.png"
    monkeypatch.setattr(L.Trainer, "global_step", 7)
    assert logged_step(trainer) == 6
    show(trainer, figure, path, "a/b", {"first": "one", "second": "two"})
    pixels = render(figure)
    assert pixels.shape == (50, 100, 4)
    assert np.array_equal(imread(path), pixels / np.float32(255))
    assert not list(tmp_path.rglob("*.partial"))
    trainer.logger.experiment.flush()
    [events] = (tmp_path / "run").rglob("events.*")
    log = EventAccumulator(str(events)).Reload()
    (image,) = log.Images("a/b")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), pixels)
    (first,), (second,) = (log.Tensors(f"a/b/{name}/text_summary") for name in ("first", "second"))
    assert [event.tensor_proto.string_val for event in (first, second)] == [[b"one"], [b"two"]]
    assert [event.step for event in (image, first, second)] == [6] * 3


def test_a_new_picture_takes_the_place_of_the_old_one(figure, make_trainer, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    show(make_trainer(), figure, path, "a", {})
    assert np.array_equal(imread(path), render(figure) / np.float32(255))


def test_a_table_is_read_back_as_it_was_and_a_failed_one_leaves_the_old(tmp_path):
    path = tmp_path / "new" / "a.csv"
    columns = {"token": ['a, "b"', "c\nd", "日本"], "n": [1, 2, 3]}
    write_table(path, columns)
    with path.open(encoding="utf-8", newline="") as f:
        assert list(csv.reader(f)) == [["token", "n"], ['a, "b"', "1"], ["c\nd", "2"], ["日本", "3"]]
    before = path.read_bytes()
    with pytest.raises(ValueError, match="shorter"):
        write_table(path, {"a": [1, 2], "b": [1]})
    assert path.read_bytes() == before


def test_a_table_in_markdown_has_a_header_a_rule_and_its_rows():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", "4"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    assert quoted("a\n") == r"``'a\n'``"
