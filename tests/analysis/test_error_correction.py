"""The rule by which error correction counts as seen, on values with known signs."""

import numpy as np
import pytest

from zoo.analysis.error_correction import (
    MARGINS,
    decision,
    errors_sign,
    excess_sign,
    exponent_sign,
    sides,
)

DOCUMENTS = np.repeat(np.arange(40), 5)


def draws(seed, n=200):
    return np.random.default_rng(seed).gamma(4.0, 0.25, n)


def signs(ratio, p, excess, seed=0):
    """Signs of 40 documents whose expected values are given."""
    kl, control, form, noise = draws(seed), draws(seed + 1), draws(seed + 2), draws(seed + 3)
    return {
        "errors": errors_sign(ratio * kl, control, DOCUMENTS),
        "exponent": exponent_sign(p + noise, 2 + draws(seed + 4), DOCUMENTS),
        "excess": excess_sign(excess * 3 * form * kl, form * control, 3 * form, form, DOCUMENTS),
    }


def decided(**found):
    return {name: decision(each) for name, each in sides(found).items()}


def test_all_signs_above_or_below_their_margins_decide():
    found = decided(corrects=signs(4, 4, 4), quadratic=signs(1, 2, 1, 10), mixed=signs(4, 2, 4, 20))
    assert found == {"corrects": "seen", "quadratic": "not seen", "mixed": "undecided"}


def test_estimates_are_those_that_were_planted():
    found = signs(4, 4, 4)
    assert found["errors"].estimate.mean == pytest.approx(4, rel=0.15)
    assert found["exponent"].estimate.mean == pytest.approx(2, abs=0.15)
    assert found["excess"].estimate.mean == pytest.approx(4, rel=0.15)


def test_a_sign_that_was_not_measured_leaves_it_undecided():
    found = signs(4, 4, 4)
    del found["excess"]
    assert decided(one=found) == {"one": "undecided"}


def test_at_the_margin_hardly_any_of_many_subjects_is_decided_by_a_sign():
    """Holm's correction keeps the chance of any wrong side at 5 %: over 40 families of 30 comparisons, 6 at most."""
    wrong = 0
    for family in range(40):
        found = {
            str(one): signs(MARGINS["errors"], 2 + MARGINS["exponent"], MARGINS["excess"], 1000 * family + 10 * one)
            for one in range(10)
        }
        wrong += any(side != "undecided" for each in sides(found).values() for side in each.values())
    assert wrong <= 6


def test_networks_that_do_not_react_to_small_changes_are_compared_by_their_responses():
    zero = np.zeros(200)
    found = excess_sign(8 * draws(0), draws(1), zero, zero, DOCUMENTS)
    assert found.estimate.mean == pytest.approx(8, rel=0.15)


def test_an_error_of_zero_has_no_sign():
    found = errors_sign(np.zeros(200), np.zeros(200), DOCUMENTS)
    assert np.isnan(found.p_value)
    assert decided(one={**signs(1, 2, 1), "errors": found}) == {"one": "undecided"}
