import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zoo.callbacks import tables_and_pictures


@pytest.fixture
def figures(monkeypatch):
    """The figures that callbacks have drawn so far in this process, in order."""
    found, render = [], tables_and_pictures.render

    def kept(figure):
        found.append(figure)
        return render(figure)

    monkeypatch.setattr(tables_and_pictures, "render", kept)
    return found


@pytest.fixture
def texts(tmp_path):
    """A function that returns the last text under a tag in TensorBoard, as the rows of its table."""

    def read(tag):
        [events] = (tmp_path / "run").rglob("events.*")
        last = EventAccumulator(str(events)).Reload().Tensors(f"{tag}/text_summary")[-1]
        lines = last.tensor_proto.string_val[0].decode().splitlines()
        return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]

    return read
