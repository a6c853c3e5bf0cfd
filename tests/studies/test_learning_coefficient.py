import numpy as np
import pytest

from zoo.studies.learning_coefficient import SHAPES, LearningCoefficientOverTraining, ToyCurves, shape_of
from zoo.studies.polygons import FindRegular


def test_the_losses_of_regular_polygons_are_recognised():
    for corners, shape in ((3, 0), (4, 1), (5, 3), (6, 4)):
        assert shape_of(FindRegular(6, corners).do(None)["loss"]) == SHAPES[shape]
    assert shape_of(0.0687415) == SHAPES[2]  # the sixth output is always 0, which costs 1/18 per active input
    assert shape_of(0.09) == "other"


@pytest.mark.slow
def test_polygons_have_half_the_rank_of_their_hessian_and_untrained_networks_are_refused():
    found = ToyCurves(4, (0, 1500), 100, 1.0).do(None)
    assert np.isnan(found["mean"][0]).all()
    assert (found["value"][0] < 0).all()
    for loss, rank, low, high in zip(*(found[key][1] for key in ("loss", "rank", "low", "high")), strict=True):
        if shape_of(loss) in SHAPES[3:]:
            assert rank == 17  # 18 parameters without the rotation
            assert low - 0.5 < rank / 2 < high + 0.5  # localization and the curvature of valleys shift it by less


def test_every_gpt2_and_step_is_one_task():
    study = LearningCoefficientOverTraining(models=("gpt2-mini.learned",), model_steps=(0, 32))
    assert len(study.tasks()) == 2 + 2 + 2 + 2
