"""Decides from three signs whether a network corrects errors along features.

A network that corrects errors ignores a small change along a feature, and reacts once the change is so large that the
feature looks on instead of off. Its response along a feature therefore grows faster than a quadratic form, and is
larger there than in other directions. The three signs are numbers that say how much:

- `errors`: the divergence of errors along features (of a language model: the errors of an autoencoder), divided by that
  of random errors with the same norms, mean and covariance. Without any difference it is 1.
- `exponent`: the exponent p of the response on the circle through two features that are off, minus that of two
  directions of a permuted dictionary. Every quadratic form has p = 2, so without any difference it is 0.
- `excess`: the divergence along features that are off over that along directions of a permuted dictionary, divided by
  the same ratio of the quadratic forms of the Fisher matrix. Without any difference it is 1.

Each sign has a margin, because in networks without error correction the signs are not exactly at 1, 0 and 1 either. The
margins lie between what networks with and without error correction have when their features are known, see
`zoo.studies.planted_perturbations`. A sign is *above* or *below* its margin if the difference is significant at 5 %
after Holm's correction for all signs that are compared at the same time. The rule: error correction is *seen* if all
three signs are above their margins, *not seen* if all three are below, and otherwise it is *undecided*.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from zoo import estimates
from zoo.analysis.document_tests import ratio_of_means
from zoo.analysis.multiple_tests import holm
from zoo.estimates import UNKNOWN, Estimate

MARGINS = {"errors": 1.5, "exponent": 0.5, "excess": 1.5}
LEVEL = 0.05
SMALLEST = 1e-12  # nats; smaller quadratic forms count as equal
Side = Literal["above", "below", "undecided"]
Decision = Literal["seen", "not seen", "undecided"]


class Sign(NamedTuple):
    """A sign of error correction, and its comparison with the margin."""

    estimate: Estimate  # with the uncorrected 95 % interval
    p_value: float  # two-sided, of the hypothesis that the sign equals its margin; NaN if it is not known


NO_SIGN = Sign(UNKNOWN, float("nan"))


def errors_sign(kl: np.ndarray, control: np.ndarray, units: np.ndarray) -> Sign:
    """Return the sign `errors`: the ratio of two means.

    The p-value is that of a t-test over units of the mean of a - m b, for a divergence a, that of the control b, and
    the margin m (Fieller 1954, Some problems in interval estimation).

    Args:
        kl: Divergences of errors along features, (n,).
        control: Divergences of random errors, (n,).
        units: Document or network of every value, (n,); units are independent.
    """
    top, bottom = _means(kl, units), _means(control, units)
    if len(top) < 2 or not bottom.any():
        return NO_SIGN
    return Sign(ratio_of_means(kl, control, units), _p_value(top - MARGINS["errors"] * bottom))


def exponent_sign(p: np.ndarray, control: np.ndarray, units: np.ndarray) -> Sign:
    """Return the sign `exponent`: the mean over units of the median difference.

    Args:
        p: Exponents, (n,); NaN where there is no response.
        control: Exponents of a permuted dictionary, (n,).
        units: Document or network of every value, (n,).
    """
    difference = p - control
    known = np.isfinite(difference)
    each = np.array([np.median(difference[known & (units == unit)]) for unit in np.unique(units[known])])
    if len(each) < 2:
        return NO_SIGN
    return Sign(estimates.mean(each), _p_value(each - MARGINS["exponent"]))


def excess_sign(
    kl: np.ndarray, control: np.ndarray, form: np.ndarray, control_form: np.ndarray, units: np.ndarray
) -> Sign:
    """Return the sign `excess`: the geometric mean over units of (kl / control) / (form / control_form).

    Args:
        kl: Divergences along features, (n,); NaN where there is none.
        control: Divergences along a permuted dictionary, (n,).
        form: Quadratic forms of the Fisher matrix of the former, (n,).
        control_form: Those of the latter, (n,). Forms that are both below 1e-12 nats count as equal, as in networks
            that do not react to any small change.
        units: Document or network of every value, (n,).
    """
    known = np.isfinite(kl) & np.isfinite(control)
    parts = [_means(part[known], units[known]) for part in (kl, control, form, control_form)]
    top, bottom, own, other = (np.maximum(part, SMALLEST) for part in parts)
    if len(top) < 2:
        return NO_SIGN
    logs = np.log(top / bottom) - np.log(own / other)
    found = estimates.mean(logs)
    mean, low, high = (float(np.exp(end)) for end in (found.mean, found.low, found.high))
    ratio = Estimate(mean, low, high, found.n)
    return Sign(ratio, _p_value(logs - np.log(MARGINS["excess"])))


def sides(found: Mapping[str, Mapping[str, Sign]]) -> dict[str, dict[str, Side]]:
    """Return on which side of its margin every sign is, by subject and sign, after Holm's correction for all of them.

    Args:
        found: The signs by subject, such as an autoencoder, and name, a key of `MARGINS`.
    """
    places = [(subject, name) for subject, signs in found.items() for name in signs]
    adjusted = holm([found[subject][name].p_value for subject, name in places])
    told: dict[str, dict[str, Side]] = {subject: {} for subject in found}
    for (subject, name), p in zip(places, adjusted, strict=True):
        above = found[subject][name].estimate.mean > MARGINS[name]
        told[subject][name] = ("above" if above else "below") if p < LEVEL else "undecided"
    return told


def decision(signs: Mapping[str, Side]) -> Decision:
    """Return whether error correction is seen in one subject, from the sides of all its signs.

    It is undecided if one of the three signs was not measured.
    """
    told = {signs.get(name, "undecided") for name in MARGINS}
    return "seen" if told == {"above"} else "not seen" if told == {"below"} else "undecided"


def signs_of(
    results: Mapping[str, Mapping[str, np.ndarray]], exponent_radii: Sequence[float], radii: Sequence[float]
) -> dict[str, Sign]:
    """Return the signs of one autoencoder of a language model, with documents as the independent units.

    `errors` compares with covariance-matched errors, all positions edited. `exponent` is at the largest radius of
    exponents, and `excess` at the radius of spheres that is nearest to it.

    Args:
        results: Results of the functions of `zoo.analysis.perturbation_effects`, by experiment: errors, support,
            sphere. The documents of tokens are `rows` and, for all positions of a text, `texts`. Experiments may be
            missing.
        exponent_radii: Radii of the exponents, ascending.
        radii: Radii of the spheres.
    """
    from zoo.analysis.perturbation_effects import ATOMS, ERRORS, PAIRS, RANDOM

    found: dict[str, Sign] = {}
    if "errors" in results:
        kl = results["errors"]["all"].reshape(len(ERRORS), -1)
        documents = np.repeat(results["errors"]["texts"], results["errors"]["all"].shape[2])
        found["errors"] = errors_sign(kl[0], kl[ERRORS.index("covariance-matched")], documents)
    if "support" in results:
        p = results["support"]["exponents"][-1]
        off, control = p[PAIRS.index("inactive atoms")], p[PAIRS.index("permuted decoder")]
        found["exponent"] = exponent_sign(off, control, results["support"]["rows"])
    if "sphere" in results:
        at = int(np.argmin(np.abs(np.asarray(radii) - exponent_radii[-1])))
        off, permuted = (len(RANDOM) + ATOMS.index(name) for name in ("other atoms", "permuted dictionary"))
        kl, form = (results["sphere"][name][at] for name in ("kl", "quadratic"))
        rows = results["sphere"]["rows"]
        found["excess"] = excess_sign(kl[off], kl[permuted], form[off], form[permuted], rows)
    return found


def _means(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    return np.array([np.mean(values[units == unit]) for unit in np.unique(units)])


def _p_value(differences: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided p-value of a t-test that the mean is 0; equal values that are not 0 have p-value 0."""
    from scipy import stats

    values = np.asarray(differences, float)
    if np.ptp(values) == 0:
        return float(values[0] == 0)
    return float(stats.ttest_1samp(values, 0.0).pvalue)
