"""What holds, and how sure it is."""

from typing import Any

from zoo.report import Verdict
from zoo.studies.embedding.numbers import spelled
from zoo.studies.explicit_gates_report import exponents, of_kind, values
from zoo.studies.toys import explicit, noisy_inputs, skip_bigrams
from zoo.studies.toys.gate_errors import comparisons, places
from zoo.studies.toys.measured import TOLERANCE, agreement, agrees, listed, sign
from zoo.studies.toys.pentagon import FEATURES

AGREE = {
    "yes": "Random neurons compute gates of sparse inputs with the errors that theory says",
    "no": "Random neurons do not compute gates of sparse inputs with the errors that theory says",
    "undecided": "Whether random neurons err as theory says is undecided",
}


def decide(done: dict[str, Any]) -> Verdict:
    """The verdict.

    Args:
        done: What every part gave, by its name.
    """
    gates, trained, heads = (
        done["explicit-gates"],
        done["universal-gates"],
        skip_bigrams.heads(done["attention-features"]),
    )
    fits = {
        "closed form": agreement(explicit.ratios(gates)),
        "superposed": agreement(noisy_inputs.floor_ratios(gates)),
        "attention": agreement(skip_bigrams.noise_ratios(done["attention-features"])),
    }
    compared, polygons, phases = comparisons(trained), done["pentagon"], done["superposition-phases"]
    better = sum(sign(one["against_constructed"]) == "above" for one in heads)
    slope = exponents(gates, "and", values(of_kind(gates, "width"), 1)[0])["mean"]
    kept, d = noisy_inputs.steady(gates), values(of_kind(gates, "depth"), 0)[-1]
    same, points = sum(phases["agree"]), len(phases["agree"])
    lines = [
        "| question | measured | answer |",
        "|---|---|---|",
        *(
            f"| Does training beat random neurons: {one['gate'].upper()}, d = {one['d']:,}? (B1 to B3, B9) "
            f"| {spelled(one['trained'])} against {spelled(one['best'])}, difference {spelled(one['against_best'])}; "
            f"of rms {spelled(one['against_best_rms'])} | {one['answer']} |"
            for one in compared
        ),
        f"| Do random neurons err as the closed form says? (B6) | measured over theory "
        f"{spelled(fits['closed form']['overall'])}, worst {100 * fits['closed form']['largest']:.1f} % | "
        f"{agrees(fits['closed form'])} |",
        f"| Does the error fall like 1 / sqrt(d)? (B7) | exponent {spelled(slope)} | "
        f"{'yes' if slope['low'] <= -0.5 <= slope['high'] else 'about' if abs(slope['mean'] + 0.5) < 0.05 else 'no'} |",
        f"| Do superposed inputs leave the floor of the theory? (B8) | measured over theory "
        f"{spelled(fits['superposed']['overall'])}, worst {100 * fits['superposed']['largest']:.1f} % | "
        f"{agrees(fits['superposed'])} |",
        f"| Does error correction keep errors small in depth? (B10) | growth per depth at d = {d:,} "
        f"{spelled(noisy_inputs.growth(gates, d, True), 2)}, without it "
        f"{spelled(noisy_inputs.growth(gates, d, False), 2)} | "
        f"{'at d = ' + listed([f'{n:,}' for n in kept]) if kept else 'at no width'} |",
        *(
            f"| Is the {FEATURES[p['n_features']]} found? (B11) | {p['reach']} of {len(p['loss'])} networks, share "
            f"{spelled(p['share'], 2)} | {'yes' if p['reach'] else 'no'} |"
            for p in polygons
        ),
        f"| Are phases of two features those of the theory? (B11) | the best network at {same} of {points} points, a "
        f"single one at {spelled(phases['seed_agrees'])} | "
        f"{'yes' if same == points else 'at most of them' if 2 * same > points else 'no'} |",
        f"| Is the noise of constructed skip bigrams that of the theory? (C4) | measured over theory "
        f"{spelled(fits['attention']['overall'])}, worst {100 * fits['attention']['largest']:.1f} % | "
        f"{agrees(fits['attention'])} |",
        f"| Do learned heads beat the construction? (C5) | {spelled(heads[-1]['learned'])} against "
        f"{spelled(heads[-1]['constructed'])} with {heads[-1]['pairs']} pairs | at {better} of {len(heads)} numbers "
        "of pairs |",
    ]
    numbers = {"agreement": fits, "comparisons": compared, "heads": heads, "exponent": slope, "steady": kept}
    numbers |= {"polygons": {FEATURES[p["n_features"]]: p["share"] for p in polygons}}
    return Verdict(_headline(fits, compared, polygons), _certainty(done), "\n".join(lines), numbers)


def _headline(fits: dict[str, Any], compared: list[dict[str, Any]], polygons: list[dict[str, Any]]) -> str:
    return f"{AGREE[agrees(fits['closed form'])]}. {_training(compared)}. {_shapes(polygons)}."


def _training(compared: list[dict[str, Any]]) -> str:
    better, worse = places(compared, "better"), places(compared, "worse")
    subject = "Training their first layer too"
    if {one["answer"] for one in compared} == {"better"}:
        return f"{subject} beats their best readoff at every width"
    if {one["answer"] for one in compared} == {"worse"}:
        return f"{subject}, as it was done here, does not come up to their best readoff at any width"
    if not better and not worse:
        return f"{subject} is not clearly better or worse than their best readoff"
    if not worse:
        return f"{subject} beats their best readoff for {better}, and nowhere falls short of it"
    if not better:
        return f"{subject}, as it was done here, nowhere beats their best readoff, and falls short of it for {worse}"
    return f"{subject} beats their best readoff for {better}, and, as it was done here, falls short of it for {worse}"


def _shapes(polygons: list[dict[str, Any]]) -> str:
    found, missed = ([FEATURES[p["n_features"]] for p in polygons if bool(p["reach"]) == yes] for yes in (True, False))
    if not found:
        return f"No network with features in two dimensions finds the {' or the '.join(missed)}"
    return f"Features in two dimensions find the {' and the '.join(found)}" + (
        f", but not the {' or the '.join(missed)}" if missed else ""
    )


def _certainty(done: dict[str, Any]) -> str:
    draws = len({r["seed"] for r in done["explicit-gates"]})
    seeds = done["universal-gates"][0]["seeds"]
    features = done["attention-features"]
    drawn = len({r["seed"] for r in features})
    return (
        f"Brackets are 95 % Student t intervals over seeds: {draws} draws of random neurons, {seeds} trained networks "
        f"for each way of training them, {done['superposition-phases']['seeds']} for phases, {drawn} for attention; "
        f"shares of {len(done['pentagon'][0]['loss'])} networks have Wilson intervals. Theory counts as right if the "
        f"overall ratio is within {100 * TOLERANCE:g} % and no setting's interval lies outside that. Training is "
        "better or worse only if mean and root mean square error both say so; a network that training left worse than "
        "a readoff which it could have found has not converged, so that 'worse' speaks of this training, not of what "
        "networks can do. Intervals are not corrected for their number."
    )
