"""What the callbacks' pictures show, read from the figures' own lines, points, bars and texts."""

import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from zoo.callbacks.atom_picture import draw_atoms
from zoo.callbacks.certificate_picture import draw_certificates
from zoo.callbacks.drift_picture import draw_drift
from zoo.callbacks.error_picture import draw_errors
from zoo.callbacks.feature_picture import draw_features
from zoo.callbacks.gate_picture import draw_gate_errors
from zoo.metrics.case_errors import EDGES

BLUE, ORANGE, RED, BLACK = (to_rgba(name) for name in ("C0", "C1", "C3", "black"))


def labels(axes):
    """The titles of the axes, and that of the panel."""
    return axes.get_xlabel(), axes.get_ylabel(), axes.get_title()


def legend(owner):
    """The texts of the legend, in order; none without a legend."""
    shown = owner.get_legend()
    return [] if shown is None else [text.get_text() for text in shown.get_texts()]


def named(axes):
    """What is drawn with a label, by its label, which the legend shows; of a histogram, all of its bars."""
    handles, names = axes.get_legend_handles_labels()
    assert names == legend(axes)
    bars = {id(bar): container for container in axes.containers for bar in container}
    return {name: bars.get(id(handle), handle) for name, handle in zip(names, handles, strict=True)}


def written(axes):
    return [text.get_text() for text in axes.texts]


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


def heights(bars, values):
    """Height of the bar that each value lies in, among bars that lie side by side."""
    found = []
    for value in values:
        (height,) = [b.get_height() for b in bars if b.get_x() <= value < b.get_x() + b.get_width()]
        found.append(height)
    return found


def total(bars):
    return sum(bar.get_height() for bar in bars)


def color(bars):
    """The colour of bars, whatever their opacity."""
    (found,) = {bar.get_facecolor()[:3] for bar in bars}
    return found


def shades(n, last=0.9):
    return matplotlib.colormaps["viridis"](np.linspace(0, last, n)).tolist()


def is_at(line, x=None, y=None):
    """Whether a line is the vertical or horizontal one at a place, from one end of the axes to the other."""
    ends = line.get_xydata().tolist()
    return ends == ([[x, 0], [x, 1]] if y is None else [[0, y], [1, y]])


class TestAtoms:
    """Six latents, of which two never fire; cosines of four with rows; three random atoms."""

    frequency = torch.tensor([0.0, 0.1, 0.0012, 0.1, 0.0, 1.0])
    cosine = torch.tensor([0.9, 0.31, 0.42, 0.33, 0.8, 0.97])
    null = torch.tensor([0.105, 0.112, 0.52])
    path = ([[20.0, 3.0, 0.9], [40.0, 2.5, 0.5], [60.0, 2.75, 0.25]],)

    def drawn(self, points=path[0], cosine=cosine, null=null):
        return draw_atoms(points, self.frequency, 1234, cosine, null)

    def test_fvu_is_drawn_against_l0_with_a_colour_for_the_step(self):
        figure = self.drawn()
        axes, bar = figure.axes[0], figure.axes[-1]
        assert labels(axes) == ("L0", "FVU", "validations")
        (line,), (dots,) = axes.lines, axes.collections
        assert line.get_xydata().tolist() == [[3.0, 0.9], [2.5, 0.5], [2.75, 0.25]]
        assert points(dots) == line.get_xydata().tolist()
        assert dots.get_array().tolist() == [20, 40, 60]
        assert bar.get_ylabel() == "step"
        assert axes.get_ylim()[0] == 0

    def test_latents_are_counted_by_the_decade_of_their_frequency_and_dead_ones_in_words(self):
        axes = self.drawn().axes[1]
        assert labels(axes) == ("log10 of the firing frequency", "latents", "how often a latent fires")
        alive = [-1.0, math.log10(0.0012), -1.0]
        assert (total(axes.patches), len(axes.patches)) == (4, 50)
        assert heights(axes.patches, alive) == [2, 1, 2]
        assert axes.patches[-1].get_height() == 1  # always
        assert color(axes.patches) == BLUE[:3]
        (dead,) = written(axes)
        assert "2 of 6 (33.3%)" in dead
        assert "1,234 vectors" in dead

    def test_the_cosines_of_latents_that_fire_stand_beside_those_of_random_atoms_as_shares(self):
        axes = self.drawn().axes[2]
        assert labels(axes) == ("largest cosine with a row of W_E", "share of atoms", "atoms that fire: nearest row")
        shown = named(axes)
        atoms, random = shown["atoms"], shown["random atoms, covariance of W_E"]
        assert total(atoms) == pytest.approx(1)
        assert heights(atoms, [0.31, 0.42, 0.33, 0.97]) == [0.25] * 4
        assert color(atoms) == BLUE[:3]
        outline = random.get_xy()  # of a step: both ends of every bin at its height
        within = [[y for x, y in outline if abs(x - value) < 0.02] for value in self.null.tolist()]
        assert [max(found) for found in within] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
        assert outline[:, 1].max() == pytest.approx(2 / 3)
        assert random.get_edgecolor() == BLACK

    def test_what_is_not_known_is_said_in_its_place(self):
        figure = self.drawn([], None, None)
        left, _, right = figure.axes
        assert not left.lines
        assert not left.collections
        assert not right.patches
        assert "val/fvu" in written(left)[0]
        assert "W_E" in written(right)[0]
        assert not legend(right)

    def test_where_no_latent_fires_random_atoms_are_drawn_alone(self):
        figure = draw_atoms([], torch.zeros(3), 9, torch.tensor([0.1, 0.2, 0.3]), self.null)
        assert not figure.axes[1].patches
        assert "3 of 3 (100.0%)" in written(figure.axes[1])[0]
        assert list(named(figure.axes[2])) == ["random atoms, covariance of W_E"]


class TestCertificates:
    gaps = torch.tensor([0.0, 2e-6, 2.1e-6, 9e-5, 1.1e-4, 3e-3, math.inf, -1.0], dtype=torch.float64)
    visited = gaps >= 0
    certified = (gaps >= 0) & (gaps <= 1e-4)

    def drawn(self, certified=certified):
        rows = {"relative_gap": self.gaps, "visited": self.visited, "certified": certified}
        return draw_certificates(rows, 1e-4, 1500).axes[0]

    def test_gaps_are_counted_on_two_logarithmic_axes_beside_the_tolerance(self):
        axes = self.drawn()
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_ylabel() == "rows"
        assert axes.get_xlabel().startswith("duality gap / objective")
        assert "1e-10" in axes.get_xlabel()
        assert axes.get_title() == "4 of 7 rows certified after step 1,500"
        (line,) = axes.lines
        assert is_at(line, x=1e-4)
        assert (line.get_color(), line.get_linestyle()) == ("black", "--")
        assert named(axes)["tolerance, 1e-04"] is line

    def test_certified_rows_and_others_have_a_colour_each_and_are_counted_in_the_legend(self):
        shown = named(self.drawn())
        good, bad = shown["4 certified"], shown["3 not certified, 1 without a bound (last bar)"]
        assert len(shown) == 3
        assert (total(good), total(bad)) == (4, 3)
        assert (color(good), color(bad)) == (BLUE[:3], RED[:3])
        assert heights(good, [2e-6, 9e-5]) == [2, 1]
        assert good[0].get_height() == 1  # an exact 0 stands with the smallest gaps
        assert heights(bad, [1.1e-4]) == [1]
        assert bad[-1].get_height() == 2  # 3e-3, and without a bound
        assert bad[-1].get_x() + bad[-1].get_width() == pytest.approx(3.6e-3)

    def test_a_part_without_rows_is_not_drawn(self):
        assert list(named(self.drawn(self.visited))) == ["7 certified", "tolerance, 1e-04"]


class TestDrift:
    relative = torch.tensor([0.0, 0.105, 0.4, 0.255])
    counts = torch.tensor([0, 9, 99, 4])
    history = ([[0.0, 0.0, 0.0], [10.0, 0.1, 0.2], [20.0, 0.15, 0.4]],)
    groups = ("0", "1-9")

    def drawn(self, counts=counts, groups=groups, history=history[0], decay_alone=0.2):
        return draw_drift("W_E", self.relative, counts, list(groups), history, decay_alone).axes

    def test_every_row_is_a_point_at_its_tokens_count_and_its_drift(self):
        left, _ = self.drawn()
        (dots,) = left.collections
        expected = [[1, 0.0], [10, 0.105], [100, 0.4], [5, 0.255]]
        assert points(dots) == [pytest.approx(point) for point in expected]
        assert dots.get_facecolor()[0].tolist()[:3] == list(BLUE[:3])
        assert labels(left) == (
            "occurrences of the token + 1",
            "distance from the initial row / row norm",
            "rows of W_E",
        )
        assert left.get_xscale() == "log"
        assert left.get_ylim()[0] == 0
        (line,) = left.lines
        assert is_at(line, y=0.2)
        assert (line.get_color(), line.get_linestyle()) == ("black", "--")
        assert named(left) == {"weight decay alone": line}

    def test_without_weight_decay_there_is_no_line_of_it(self):
        left, _ = self.drawn(decay_alone=0.0)
        assert not left.lines
        assert not legend(left)

    def test_the_median_of_every_group_is_a_curve_over_the_steps(self):
        _, right = self.drawn()
        curves = named(right)
        assert list(curves) == ["0", "1-9"]
        assert len(right.lines) == 2
        assert curves["0"].get_xydata().tolist() == [[0, 0], [10, 0.1], [20, 0.15]]
        assert curves["1-9"].get_xydata().tolist() == [[0, 0], [10, 0.2], [20, 0.4]]
        assert [list(line.get_color()) for line in curves.values()] == shades(2)
        assert labels(right) == ("step", "median distance / row norm", "by number of occurrences")

    def test_rows_of_unknown_counts_are_counted_by_their_drift(self):
        left, right = self.drawn(None, ["all"], [[0.0, 0.0], [10.0, 0.3]])
        assert labels(left) == ("distance from the initial row / row norm", "rows", "rows of W_E")
        assert (total(left.patches), len(left.patches)) == (4, 60)
        assert color(left.patches) == BLUE[:3]
        assert heights(left.patches, [0.0, 0.105, 0.255, 0.3]) == [1, 1, 1, 0]
        assert left.patches[-1].get_height() == 1  # the row that moved most
        (line,) = left.lines
        assert is_at(line, x=0.2)
        assert named(left) == {"weight decay alone": line}
        assert named(right)["all"].get_xydata().tolist() == [[0, 0], [10, 0.3]]
        assert right.get_title() == "median over training"


class TestErrors:
    relative = torch.tensor([0.102, 0.202, math.nan, 0.302, 0.4])
    held_out = torch.tensor([False, True, True, False, True])
    counts = torch.tensor([0, 9, 99, 4, 999])
    history = ([[2.0, 0.5, 0.6, math.nan, 0.7], [4.0, 0.3, 0.4, math.nan, 0.2]],)
    groups = ("0", "1-9", "10-99")

    def drawn(self, counts=counts, groups=groups, history=history[0], relative=relative, held_out=held_out):
        return draw_errors({"relative_error": relative, "held_out": held_out}, counts, list(groups), history).axes

    def test_every_visited_row_is_a_point_at_its_tokens_count_and_its_error(self):
        left, _ = self.drawn()
        shown = named(left)
        assert list(shown) == ["trained", "held out"]
        assert len(left.collections) == 2
        assert points(shown["trained"]) == [pytest.approx(p) for p in ([1, 0.102], [5, 0.302])]
        assert points(shown["held out"]) == [pytest.approx(p) for p in ([10, 0.202], [1000, 0.4])]
        assert [part.get_facecolor()[0].tolist()[:3] for part in shown.values()] == [list(BLUE[:3]), list(RED[:3])]
        assert labels(left) == ("occurrences of the token + 1", "squared error / norm²", "rows after step 4")
        assert left.get_xscale() == "log"
        assert left.get_ylim() == pytest.approx((0, 0.42))

    def test_groups_and_held_out_rows_are_curves_over_the_steps_unless_nothing_is_known_of_them(self):
        _, right = self.drawn()
        curves = named(right)
        assert list(curves) == ["0", "10-99", "all held-out rows"]
        assert len(right.lines) == 3
        assert curves["0"].get_xydata().tolist() == [[2, 0.6], [4, 0.4]]
        assert curves["10-99"].get_xydata().tolist() == [[2, 0.7], [4, 0.2]]
        assert curves["all held-out rows"].get_xydata().tolist() == [[2, 0.5], [4, 0.3]]
        assert [list(curves[name].get_color()) for name in ("0", "10-99")] == shades(3)[::2]
        assert (curves["all held-out rows"].get_color(), curves["all held-out rows"].get_linestyle()) == ("C3", "--")
        assert labels(right)[:2] == ("step", "pooled squared error / norm²")
        assert "by number of occurrences" in right.get_title()
        assert right.get_ylim()[0] == 0

    def test_rows_of_unknown_counts_are_counted_by_their_error(self):
        left, right = self.drawn(None, ["all"], [[2.0, 0.5, 0.6]])
        shown = named(left)
        assert {name: total(bars) for name, bars in shown.items()} == {"trained": 2, "held out": 2}
        assert heights(shown["trained"], [0.102, 0.202, 0.302]) == [1, 0, 1]
        assert heights(shown["held out"], [0.202, 0.302, 0.4]) == [1, 0, 1]
        assert (color(shown["trained"]), color(shown["held out"])) == (BLUE[:3], RED[:3])
        assert labels(left) == ("squared error / norm²", "rows", "rows after step 2")
        assert left.get_xlim() == pytest.approx((0, 0.42))
        assert right.get_title() == "over training"

    def test_rows_above_the_axis_are_counted_in_words(self):
        relative = torch.cat([torch.linspace(0.1, 0.2, 199), torch.tensor([50.0])])
        left, _ = self.drawn(torch.arange(200), ["all"], [[2.0, 0.5, 0.6]], relative, torch.zeros(200).bool())
        top = left.get_ylim()[1]
        assert 0.2 < top < 1
        assert left.get_legend().get_title().get_text().startswith("not shown: 1 above 0.4")

    def test_without_held_out_rows_neither_they_nor_a_legend_of_rows_are_drawn(self):
        left, right = self.drawn(held_out=torch.zeros(5).bool(), history=[[2.0, math.nan, 0.6, 0.7, 0.8]])
        assert len(left.collections) == 1
        assert not legend(left)
        assert list(named(right)) == ["0", "1-9", "10-99"]

    def test_of_a_validation_that_visited_nothing_nothing_is_drawn(self):
        left, right = self.drawn(relative=torch.full((5,), math.nan), history=[[2.0] + [math.nan] * 4])
        assert not left.collections
        assert not right.lines
        assert not legend(right)


class TestGateErrors:
    @staticmethod
    def found(bins, n_seeds=2):
        """Errors by case, of which 01 does not occur, with a mean and a largest error for every case and seed."""
        mean = torch.tensor([[0.1, math.nan, 0.2, 0.3], [0.3, math.nan, 0.4, 0.5]])[:n_seeds]
        return {"bins": bins, "mean": mean, "max": 2 * mean}

    @staticmethod
    def bins(seed=0):
        counts = torch.randint(5, (4, 160), generator=torch.Generator().manual_seed(seed)).double()
        counts[:, :60] = counts[:, 110:] = 0  # none below -0.5 and above 0.75
        counts[1] = 0
        return counts

    def test_the_errors_of_every_case_are_drawn_as_a_density_around_0(self):
        bins = self.bins()
        figure = draw_gate_errors([self.found(bins)])
        assert len(figure.axes) == 4
        for i, (axes, case, shade) in enumerate(zip(figure.axes, ("00", "01", "10", "11"), (7, 0, 2, 3), strict=True)):
            assert axes.get_title() == f"inputs {case}"
            assert axes.get_xlabel() == "output - true value of the gate"
            (line,) = axes.lines
            assert is_at(line, x=0)
            if case == "01":
                assert not axes.patches
                assert written(axes) == ["does not occur"]
                continue
            (stairs,) = axes.patches
            density, edges, _ = stairs.get_data()
            assert edges == pytest.approx(EDGES.numpy())
            assert (density * np.diff(edges)).sum() == pytest.approx(1)
            assert density == pytest.approx((bins[i] / bins[i].sum() * 40).numpy(), rel=1e-4)
            assert stairs.get_facecolor()[:3] == to_rgba(f"C{shade}")[:3]
            assert axes.get_xlim() == pytest.approx((-0.775, 0.775))
        assert figure.axes[0].get_ylabel() == "density"

    def test_the_mean_over_seeds_of_the_mean_and_of_the_largest_error_are_written(self):
        axes = draw_gate_errors([self.found(self.bins())]).axes
        assert [written(one) for one in axes] == [
            ["mean |error| 0.200\nlargest 0.400"],
            ["does not occur"],
            ["mean |error| 0.300\nlargest 0.600"],
            ["mean |error| 0.400\nlargest 0.800"],
        ]

    def test_every_depth_has_a_row_of_panels_with_its_own_errors(self):
        bins = self.bins(), self.bins(1)
        figure = draw_gate_errors([self.found(own) for own in bins])
        assert figure.get_figheight() == pytest.approx(0.8 + 2.4 * 2)
        titles = [f"depth {depth}, inputs {case}" for depth in (1, 2) for case in ("00", "01", "10", "11")]
        assert [axes.get_title() for axes in figure.axes] == titles
        assert [axes.get_xlabel() for axes in figure.axes] == [""] * 4 + ["output - true value of the gate"] * 4
        assert [axes.get_ylabel() for axes in figure.axes] == ["density", "", "", ""] * 2
        for axes, own in ((figure.axes[0], bins[0][0]), (figure.axes[7], bins[1][3])):
            assert axes.patches[0].get_data()[0] == pytest.approx((own / own.sum() * 40).numpy(), rel=1e-4)


SQUARE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


class TestFeatures:
    losses = torch.tensor([0.3, 0.1, 0.2])

    @staticmethod
    def vectors(axes):
        """Ends of the lines from the origin, and the dots, with their colours."""
        lines = [line for line in axes.lines if len(line.get_xydata()) == 2]
        dots = [line for line in axes.lines if len(line.get_xydata()) == 1]
        assert all(line.get_xydata()[0].tolist() == [0, 0] for line in lines)
        ends = [(line.get_xydata()[1].tolist(), list(line.get_color())) for line in lines]
        return ends, [(dot.get_xydata()[0].tolist(), list(dot.get_color())) for dot in dots]

    def test_two_dimensions_are_drawn_as_they_are_from_the_seed_of_least_loss_to_that_of_most(self):
        W = torch.stack([SQUARE, 2 * SQUARE, 0.5 * SQUARE])
        *panels, _ = draw_features(W, self.losses).axes
        titles = ["seed 1, best\nloss 0.1", "seed 2, median\nloss 0.2", "seed 0, worst\nloss 0.3"]
        assert [axes.get_title() for axes in panels] == titles
        for axes, seed in zip(panels, (1, 2, 0), strict=True):
            ends, dots = self.vectors(axes)
            assert ends == dots == list(zip(W[seed].tolist(), shades(4, 0.95), strict=True))
            assert axes.get_xlim() == axes.get_ylim() == pytest.approx((-2.24, 2.24))
            assert axes.get_aspect() == 1

    def test_the_ends_of_features_are_joined_in_the_order_of_their_angle_without_those_of_no_length(self):
        W = torch.cat([SQUARE[[0, 2, 1, 3]], torch.tensor([[0.05, 0.05]])])
        panel, _ = draw_features(W[None], self.losses[:1]).axes
        (ring,) = panel.patches
        assert ring.get_xy()[:-1].tolist() == [[0, -1], [1, 0], [0, 1], [-1, 0]]

    def test_panels_without_a_seed_are_empty(self):
        *panels, _ = draw_features(SQUARE.expand(5, 4, 2), torch.arange(5.0)).axes
        assert [axes.axison for axes in panels] == [True] * 5 + [False] * 3
        assert not any(axes.lines for axes in panels[5:])

    def test_one_dimension_is_a_line_for_every_seed_with_a_dot_for_every_feature(self):
        W = torch.tensor([[[0.5], [-0.25]], [[1.0], [-1.0]], [[0.0], [0.75]]])
        axes, _ = draw_features(W, self.losses).axes
        dots = [line for line in axes.lines if len(line.get_xydata()) == 1]
        expected = [[value, height] for height, seed in enumerate((1, 2, 0)) for value in W[seed, :, 0].tolist()]
        assert [dot.get_xydata()[0].tolist() for dot in dots] == expected
        assert [list(dot.get_color()) for dot in dots] == shades(2, 0.95) * 3
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert ticks == ["seed 1, best\nloss 0.1", "seed 2, median\nloss 0.2", "seed 0, worst\nloss 0.3"]
        assert axes.get_yticks().tolist() == [0, 1, 2]
        assert [y for y in range(3) if any(is_at(line, y=y) for line in axes.lines)] == [0, 1, 2]
        assert any(is_at(line, x=0) for line in axes.lines)
        assert axes.yaxis_inverted()  # the best above
        assert list(named(axes)) == ["feature 0", "feature 1"]
        assert axes.get_xlabel() == "weight of the feature"
        assert axes.get_title() == "features in one dimension"

    def test_of_more_dimensions_the_scalar_products_norms_and_dimensionalities_of_the_best_seed_are_drawn(self):
        best = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
        image_axes, bars, *others = draw_features(torch.stack([torch.ones(3, 3), best]), self.losses[:2]).axes
        (image,) = image_axes.images
        assert image.get_array().tolist() == (best @ best.T).tolist()
        assert labels(image_axes) == ("feature", "feature", "scalar products of features")
        assert (image.norm.vmin, image.norm.vcenter, image.norm.vmax) == (-1, 0, 1)
        assert image.colorbar.ax in others
        assert image.colorbar.extend == "both"  # the first squared norm is larger
        shown = named(bars)
        assert {name: [bar.get_width() for bar in own] for name, own in shown.items()} == {
            "norm": [2, 1, 1],
            "dimensionality": [1, 0.5, 0.5],
        }
        assert (color(shown["norm"]), color(shown["dimensionality"])) == (BLUE[:3], ORANGE[:3])
        middles = [[bar.get_y() + bar.get_height() / 2 for bar in own] for own in shown.values()]
        assert middles == [pytest.approx([-0.2, 0.8, 1.8]), pytest.approx([0.2, 1.2, 2.2])]
        assert labels(bars) == ("norm; dimensionality", "feature", "seed 1, the best: loss 0.1")
        assert bars.get_ylim() == (2.5, -0.5)

    @pytest.mark.parametrize("d", [1, 2, 3])
    def test_the_dimensionalities_of_all_seeds_are_counted_beside_the_known_fractions(self, d):
        one, two = torch.eye(3)[:, :d], torch.cat([torch.eye(d)[:1], -torch.eye(d)[:1], torch.zeros(1, d)])
        axes = draw_features(torch.stack([one, two]), self.losses[:2]).axes
        (last,) = [own for own in axes if own.get_xlabel() == "dimensionality"]
        expected = {1: d, 0.5: 2, 0: 3 - d + 1}
        assert total(last.patches) == 6
        assert dict(zip(expected, heights(last.patches, expected), strict=True)) == expected
        assert color(last.patches) == ORANGE[:3]
        known = {"3/8": 0.375, "2/5": 0.4, "1/2": 0.5, "2/3": 2 / 3, "1": 1.0}
        assert all(is_at(line, x=value) for line, value in zip(last.lines, known.values(), strict=True))
        assert {text.get_text(): text.xy for text in last.texts} == {name: (x, 1) for name, x in known.items()}
        assert last.get_ylabel() == "features of all seeds"
        assert last.get_xlim() == (-0.01, 1.01)
