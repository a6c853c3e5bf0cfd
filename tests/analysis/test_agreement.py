import numpy as np

from zoo.analysis.agreement import Agreement

NEAR = np.array([[0.99, 1.0, 1.01], [1.01, 1.0, 0.99]])


def test_theory_and_measurement_agree_only_if_an_interval_lies_within_the_tolerance():
    assert Agreement.of(NEAR).answer == "yes"
    assert Agreement.of(NEAR + 0.2).answer == "no"
    assert Agreement.of(np.array([[0.8, 1.0, 1.2]])).answer == "undecided"
    assert Agreement.of(np.concatenate([NEAR, NEAR + 0.2, NEAR - 0.2])).answer == "no"


def test_an_agreement_is_told_with_its_worst_setting():
    text = str(Agreement.of(np.array([[0.99, 1.0, 1.01], [1.11, 1.1, 1.09]])))
    assert "over all 2 settings, and differs from 1 by 10.0 % in the worst setting; 1 of the 2 intervals" in text
