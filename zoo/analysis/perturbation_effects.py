"""What changes along an autoencoder's features do to a language model's predictions, against changes that are not.

Four experiments. All return NumPy arrays, one value per token and kind of change, in nats of KL(P of the clean run ‖ P
of the edited run), see `zoo.perturbations`:

- `error_effects`: the autoencoder's own error, against random errors of the same norms.
- `support_effects`: changes of codes that keep the support, against other changes of the same norms; and the exponent
  of the response between two active atoms.
- `sphere_effects`: atoms, random directions and ends of gradient ascent on spheres around an activation.
- `exchange_effects`: right directions with wrong codes, against right codes with wrong directions.

Tokens are given by their texts `rows` (n,) and `positions` (n,). The first position of a text is never edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.analysis.local_response import (
    ANGLES,
    Response,
    ascend,
    circle,
    exponent,
    fisher_matrix,
    on_sphere,
    quadratic,
    share_below,
)
from zoo.analysis.perturbations import (
    Gaussian,
    cosines_to_atoms,
    covariance_matched,
    gaussian_of,
    in_active_span,
    isotropic,
    keeps_support,
    l0_preserving,
    mixture,
    of_other_tokens,
    on_inactive_atoms,
    permuted_atoms,
    with_values_of_other_tokens,
)
from zoo.errors import ZooError
from zoo.interventions import activations
from zoo.null_models import permuted_coordinates, with_norms_of
from zoo.perturbations import CleanRun
from zoo.precision import at_least_float32

if TYPE_CHECKING:
    from zoo.protocols import LanguageModel

ERRORS = ("error", "isotropic", "covariance-matched", "mixture", "errors of other tokens")
SUPPORT = (
    *("same support", "isotropic", "covariance-matched", "mixture", "span of active atoms"),
    *("permuted decoder", "inactive atoms"),
)
PAIRS = ("active atoms", "inactive atoms", "permuted decoder", "random directions")
RANDOM = ("isotropic", "covariance-matched", "mixture")
ATOMS = ("active atoms", "other atoms", "permuted dictionary", "null twin")
ENDS = ("atoms", "permuted dictionary", "null twin", "starts and atoms", "largest eigenvector")
EXCHANGES = ("wrong codes", "wrong directions", "isotropic")
HIGH = 0.99  # share of random directions from which on a direction counts as high
Arrays = dict[str, np.ndarray]


class Subject(NamedTuple):
    """A language model, texts, and an autoencoder of the activations at a site.

    Args:
        model: The language model.
        site: Name of the site.
        input_ids: Token ids, (n, T) int64.
        reconstruct: The autoencoder, x (..., D) -> reconstruction (..., D) and codes (..., K).
        W_dec: Its atoms, (K, D).
    """

    model: LanguageModel
    site: str
    input_ids: Tensor
    reconstruct: Callable[[Tensor], tuple[Tensor, Tensor]]
    W_dec: Tensor

    def moments(self) -> Moments:
        """Return activations and errors of all positions but the first, and their Gaussians."""
        x = torch.cat([at_least_float32(self._read(ids)) for ids in self.input_ids.split(16)])
        errors = torch.cat([self.reconstruct(text)[0].to(text) - text for text in x]).view_as(x)
        return Moments(x, errors, gaussian_of(x[:, 1:].flatten(0, 1)), gaussian_of(errors[:, 1:].flatten(0, 1)))

    def _read(self, input_ids: Tensor) -> Tensor:
        return activations(self.model, input_ids, [self.site])[self.site]

    def coded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and codes, in the precision of x.

        Raises:
            ZooError: If a code is negative.
        """
        x_hat, codes = (part.to(x) for part in self.reconstruct(x))
        if bool((codes < 0).any()):
            raise ZooError("the autoencoder has negative codes; changes that keep its support need codes of at least 0")
        return x_hat, codes

    def runs(self, rows: Tensor, positions: Tensor) -> Iterator[tuple[int, CleanRun, int]]:
        """Return the index of every token, the clean run of its text alone, and its position; text by text."""
        for row in rows.unique().tolist():
            run = CleanRun(self.model, self.site, self.input_ids[row : row + 1])
            for token in (rows == row).nonzero().flatten().tolist():
                yield token, run, int(positions[token])


class Moments(NamedTuple):
    """Activations and errors, (n, T, D), and the Gaussians with their moments."""

    x: Tensor
    errors: Tensor
    of_x: Gaussian
    of_errors: Gaussian


def draw_tokens(n: int, documents: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the texts and positions of n random tokens, (n,) each; texts have equally many, up to one.

    Neither the first nor the last position of a text is drawn.

    Raises:
        ZooError: If there are fewer than n such tokens.
    """
    if n > documents * (length - 2):
        raise ZooError(
            f"{n} tokens are asked for, and {documents} documents of {length} tokens have {documents * (length - 2)} "
            "between their first and last ones"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(documents, length - 2, generator=generator).argsort(1) + 1
    rows = torch.arange(n) % documents
    return rows, order[rows, torch.arange(n) // documents]


@torch.no_grad()
def error_effects(subject: Subject, rows: Tensor, positions: Tensor, seed: int, batch: int = 16) -> Arrays:
    """Measure the autoencoder's error and random errors of the same norms, one token at a time and all together.

    Args:
        subject: What is measured.
        rows: Texts of the tokens that are edited one at a time, (P,).
        positions: Their positions, (P,).
        seed: Seed of the random errors.
        batch: Number of texts that are run at a time.

    Returns:
        With kinds as in `ERRORS`: `all` (kinds, n, T - 1) with all positions edited; `at` (kinds, P) at the edited
        position and `after` (kinds, P), the sum over all later ones, with one position edited. `relative_norm`,
        (n, T - 1): norm of the error relative to that of the activation minus the mean. `fvu`, (): the mean square of
        the errors' norm over that of the activations minus their mean.
    """
    generator, found = torch.Generator().manual_seed(seed), subject.moments()
    errors = found.errors[:, 1:].flatten(0, 1)
    changes = [
        errors,
        isotropic(errors, generator),
        covariance_matched(errors, found.of_errors, generator),
        mixture(errors, found.of_x, generator),
        of_other_tokens(errors, generator),
    ]
    shaped = torch.stack([torch.zeros_like(found.errors) for _ in ERRORS])
    shaped[:, :, 1:] = torch.stack(changes).view(len(ERRORS), *found.errors[:, 1:].shape)
    together, at, after = [], *(torch.zeros(len(ERRORS), len(rows), dtype=torch.float64) for _ in range(2))
    for first in range(0, len(subject.input_ids), batch):
        part = slice(first, first + batch)
        run = CleanRun(subject.model, subject.site, subject.input_ids[part])
        own = ((rows >= first) & (rows < first + batch)).nonzero().flatten()
        together.append(torch.stack([run.kl(_plus(change))[:, 1:] for change in shaped[:, part]]).cpu())
        for kind, change in enumerate(shaped):
            kl = run.kl_from(rows[own] - first, positions[own], change[rows[own], positions[own]]).cpu()
            at[kind, own] = kl[torch.arange(len(own)), positions[own]]
            after[kind, own] = kl.nansum(1) - at[kind, own]
    centred = (found.x[:, 1:] - found.of_x.mean).norm(dim=-1)
    return {
        "all": _numpy(torch.cat(together, 1)),
        "at": _numpy(at),
        "after": _numpy(after),
        "relative_norm": _numpy(found.errors[:, 1:].norm(dim=-1) / centred),
        "fvu": _numpy(errors.square().sum() / centred.square().sum()),
    }


@torch.no_grad()
def support_effects(
    subject: Subject, rows: Tensor, positions: Tensor, norms: Sequence[float], radii: Sequence[float], seed: int
) -> Arrays:
    """Measure changes of codes that keep the support, other changes of the same norms, and exponents of the response.

    Tokens with fewer than two active atoms are left out. The two atoms of an exponent are those with the smallest
    |cosine| among the active ones, or among as many inactive ones. The null models are chosen in the same way among
    as many atoms of other latents, and among as many random directions.

    Args:
        subject: What is measured.
        rows: Texts of the tokens, (P,).
        positions: Their positions, (P,).
        norms: Norms of the changes, as multiples of the norm of the reconstruction.
        radii: Radii of the exponents, as multiples of the norm of the activation minus the mean.
        seed: Seed of the changes.

    Returns:
        For the p tokens that are left, `rows` (p,); `kl` (norms, kinds, p) with kinds as in `SUPPORT`; `keeps`
        (norms + 1, p): whether encoding the decoded point selects the same support, first for the unchanged
        reconstruction; `exponents` (radii, kinds, p) with kinds as in `PAIRS`, NaN where the response is 0; and
        `cosines` (kinds, p) between the two atoms.

    Raises:
        ZooError: If no token has two active atoms, or a code is negative.
    """
    generator, found = torch.Generator().manual_seed(seed), subject.moments()
    rows, positions = _with_two_atoms(subject, found.x, rows, positions)
    x = found.x[rows, positions]
    x_hat, codes = subject.coded(x)
    keeps, changes = [keeps_support(subject.reconstruct, x_hat, codes)], []
    W_dec = subject.W_dec.to(x)
    for norm in norms:
        delta = l0_preserving(codes, W_dec, norm * x_hat.norm(dim=1), generator)
        own = delta @ W_dec
        keeps.append(keeps_support(subject.reconstruct, x_hat + own, codes))
        others = [
            isotropic(own, generator),
            covariance_matched(own, found.of_errors, generator),
            mixture(own, found.of_x, generator),
            in_active_span(own, codes, W_dec, generator),
            delta @ permuted_atoms(W_dec, generator),
            on_inactive_atoms(delta, codes, generator) @ W_dec,
        ]
        changes.append(torch.stack([own, *(with_norms_of(other, own) for other in others)]))
    together = torch.stack(changes)  # (norms, kinds, p, D)
    kl = torch.zeros(together.shape[:3], dtype=torch.float64)
    exponents, cosines = np.full((len(radii), len(PAIRS), len(rows)), np.nan), np.zeros((len(PAIRS), len(rows)))
    permuted = permuted_atoms(W_dec, generator)
    for token, run, position in subject.runs(rows, positions):
        respond = run.kl_at(0, position)
        kl[:, :, token] = respond(together[:, :, token].flatten(0, 1)).view(kl.shape[:2]).cpu()
        size, on = float((x[token] - found.of_x.mean).norm()), codes[token] != 0
        off = _some(W_dec[~on], int(on.sum()), generator)
        for kind, atoms in enumerate([W_dec[on], off, permuted[on], isotropic(W_dec[on], generator)]):
            u, v, cosine = _least_alike(atoms)
            cosines[kind, token] = cosine
            for at, radius in enumerate(radii):
                values = on_sphere(respond, circle(u, v), radius * size)
                exponents[at, kind, token] = exponent(_numpy(values), cosine, ANGLES).mean
    return {
        "rows": _numpy(rows),
        "kl": _numpy(kl),
        "keeps": _numpy(torch.stack(keeps)),
        "exponents": exponents,
        "cosines": cosines,
    }


def sphere_effects(
    subject: Subject,
    null_atoms: Tensor | None,
    rows: Tensor,
    positions: Tensor,
    radii: Sequence[float],
    directions: int,
    n_atoms: int,
    starts: int,
    ascent_radius: float,
    ascent_steps: int,
    seed: int,
) -> Arrays:
    """Compare atoms, random directions and ends of gradient ascent on spheres around activations.

    Args:
        subject: What is measured.
        null_atoms: Atoms of the autoencoder's null twin, (K', D); None if there is none.
        rows: Texts of the tokens, (P,).
        positions: Their positions, (P,).
        radii: Radii, as multiples of the norm of the activation minus the mean.
        directions: Number of random directions of a token, of each kind in `RANDOM`, in equal parts for all radii.
        n_atoms: Largest number of inactive atoms of a token that are measured, and of each null dictionary.
        starts: Number of starts of gradient ascent.
        ascent_radius: Radius of gradient ascent, in the same unit as `radii`.
        ascent_steps: Steps of gradient ascent.
        seed: Seed of all draws.

    Returns:
        With groups as in `RANDOM` and then `ATOMS`: means over the directions of a token `kl` and `quadratic`, the
        quadratic form of the Fisher matrix, (radii, groups, P). With kinds as in `ATOMS` and `RANDOM`: `share`
        (radii, atoms, random, P), the mean share of random directions below an atom, and `high`, the share of atoms
        for which this is above `HIGH`. `ends`, (kinds, P): mean cosines of the ends of ascent to the nearest atom, with
        kinds as in `ENDS`. `end_kl` and `best_kl`, (P,): mean divergence of the ends, and largest one of the atoms at
        `ascent_radius`. NaN where a group is empty.
    """
    generator, found = torch.Generator().manual_seed(seed), subject.moments()
    W_dec, D = subject.W_dec.to(found.x), found.x.shape[-1]
    null = torch.zeros(0, D).to(W_dec) if null_atoms is None else null_atoms.to(W_dec)
    permuted = with_norms_of(permuted_coordinates(W_dec, generator).to(W_dec), W_dec)
    each = max(1, directions // len(radii))
    groups, P = len(RANDOM) + len(ATOMS), len(rows)
    kl, form = (np.full((len(radii), groups, P), np.nan) for _ in range(2))
    share, high = (np.full((len(radii), len(ATOMS), len(RANDOM), P), np.nan) for _ in range(2))
    ends, end_kl, best_kl = np.full((len(ENDS), P), np.nan), np.full(P, np.nan), np.full(P, np.nan)
    for token, run, position in subject.runs(rows, positions):
        x = run.x[0, position]
        size, respond = float((x - found.of_x.mean).norm()), run.kl_at(0, position)
        fisher = fisher_matrix(run.logits_at(0, position), torch.zeros_like(x))
        with torch.no_grad():
            on = subject.reconstruct(x[None])[1][0] != 0
        of_atoms = [
            W_dec[on],
            *(_some(rest, n_atoms, generator) for rest in (W_dec[~on], permuted, null)),
        ]
        of_atoms = [atoms[atoms.norm(dim=1) > 0] for atoms in of_atoms]
        for at, radius in enumerate(radii):
            ones = torch.ones(each, D).to(x)
            random = [
                isotropic(ones, generator),
                covariance_matched(ones, found.of_errors, generator),
                mixture(ones, found.of_x, generator),
            ]
            values = [_on_sphere(respond, part, radius * size) for part in (*random, *of_atoms)]
            for group, (part, value) in enumerate(zip((*random, *of_atoms), values, strict=True)):
                if len(part):
                    unit = radius * size * torch.nn.functional.normalize(part, dim=1)
                    kl[at, group, token] = float(value.mean())
                    form[at, group, token] = float(quadratic(fisher, unit).mean())
            for atoms, value in enumerate(values[len(RANDOM) :]):
                for kind in range(len(RANDOM)) if len(value) else ():
                    below = share_below(value, values[kind])
                    share[at, atoms, kind, token] = float(below.mean())
                    high[at, atoms, kind, token] = float((below > HIGH).double().mean())
        first = isotropic(torch.ones(starts, D).to(x), generator)
        last, reached = ascend(respond, first, ascent_radius * size, ascent_steps)
        top = torch.linalg.eigh(fisher.double()).eigenvectors[:, -1].to(x)
        with_null = (("atoms", last, W_dec), ("permuted dictionary", last, permuted), ("null twin", last, null))
        for name, which, dictionary in (*with_null, ("starts and atoms", first, W_dec)):
            if len(dictionary):
                ends[ENDS.index(name), token] = float(cosines_to_atoms(which, dictionary)[0].mean())
        ends[ENDS.index("largest eigenvector"), token] = float((last @ top).abs().mean())
        end_kl[token] = float(reached.mean())
        best_kl[token] = float(_on_sphere(respond, torch.cat(of_atoms[:2]), ascent_radius * size).max())
    return {
        "rows": _numpy(rows),
        "kl": kl,
        "quadratic": form,
        "share": share,
        "high": high,
        "ends": ends,
        "end_kl": end_kl,
        "best_kl": best_kl,
        "each": np.array(each),
    }


@torch.no_grad()
def exchange_effects(subject: Subject, rows: Tensor, positions: Tensor, seed: int) -> Arrays:
    """Measure right directions with wrong codes, and right codes with wrong directions, at the same norm.

    Wrong codes are those of another token on the same support. The norm is that of their change.

    Args:
        subject: What is measured.
        rows: Texts of the tokens, (P,). Those with fewer than two active atoms are left out.
        positions: Their positions, (P,).
        seed: Seed of the changes.

    Returns:
        For the p tokens that are left, `rows` (p,); `kl` (kinds, p) with kinds as in `EXCHANGES`; and
        `relative_norm` (p,), the norm of the change relative to that of the reconstruction.

    Raises:
        ZooError: If no token has two active atoms, or a code is negative.
    """
    generator, found = torch.Generator().manual_seed(seed), subject.moments()
    rows, positions = _with_two_atoms(subject, found.x, rows, positions)
    x_hat, codes = subject.coded(found.x[rows, positions])
    W_dec = subject.W_dec.to(x_hat)
    wrong_codes = (with_values_of_other_tokens(codes, generator) - codes) @ W_dec
    wrong_directions = codes @ (permuted_atoms(W_dec, generator) - W_dec)
    changes = torch.stack(
        [wrong_codes, with_norms_of(wrong_directions, wrong_codes), isotropic(wrong_codes, generator)]
    )
    kl = torch.zeros(changes.shape[:2], dtype=torch.float64)
    for token, run, position in subject.runs(rows, positions):
        kl[:, token] = run.kl_at(0, position)(changes[:, token]).cpu()
    return {
        "rows": _numpy(rows),
        "kl": _numpy(kl),
        "relative_norm": _numpy(wrong_codes.norm(dim=1) / x_hat.norm(dim=1)),
    }


def _with_two_atoms(subject: Subject, x: Tensor, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens with at least two active atoms, and at least as many inactive ones as active ones."""
    n_on = (subject.coded(x[rows, positions])[1] != 0).sum(1).cpu()
    kept = (n_on >= 2) & (2 * n_on <= len(subject.W_dec))
    if len(rows[kept].unique()) < 2:
        raise ZooError(
            "fewer than two documents have tokens with at least two active atoms and as many inactive ones; the "
            "experiments support and exchange need them"
        )
    return rows[kept], positions[kept]


def _least_alike(atoms: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the two atoms with the smallest |cosine|, and their cosine."""
    unit = torch.nn.functional.normalize(atoms, dim=1)
    cosines = unit @ unit.T
    n = len(atoms)
    first, second = divmod(int((cosines.abs() + 2 * torch.eye(n).to(cosines)).argmin()), n)
    return unit[first], unit[second], float(cosines[first, second])


def _on_sphere(respond: Response, directions: Tensor, radius: float) -> Tensor:
    """Return the divergences in some directions (n, D), of which there may be none, (n,) on the CPU."""
    return on_sphere(respond, directions, radius).cpu() if len(directions) else torch.zeros(0)


def _plus(change: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x + change


def _some(atoms: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return at most n of the atoms, drawn at random."""
    return atoms[torch.randperm(len(atoms), generator=generator)[:n].to(atoms.device)]


def _numpy(x: Any) -> np.ndarray:
    array: np.ndarray = x.detach().cpu().numpy()
    return array
