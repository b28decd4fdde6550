"""Figures: what the artists hold, not what the pixels show; every figure saves as PNG and PDF."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import pdeinfl as pi
from hand_made import response_check
from pdeinfl import figures
from pdeinfl.analysis.damping_curves import DampingCurve
from pdeinfl.figures import inputs, style

N = 12
TIMES = np.arange(1, 5)
LAGS = np.arange(-3, 4)
CLASSES = ("RP", "CRP", "RPUI")


def spread(values, **more):
    values = np.asarray(values, dtype=float)
    return SimpleNamespace(median=values, lower=values - 0.5, upper=values + 0.5, **more)


def two_time(scale=1.0):
    values = scale * (np.arange(16.0).reshape(4, 4) / 16 + 2 * np.eye(4))
    return spread(values, times=TIMES, style="pooled", n_examples=N)


def lag_profile(ci=True):
    intra = spread(3 * np.exp(-np.abs(LAGS) / 1.5))
    if ci:
        intra.ci_low, intra.ci_high = intra.median - 0.1, intra.median + 0.2
    return SimpleNamespace(lags=LAGS, intra=intra, inter=spread(0.1 * np.ones(7)), style="pooled", n_examples=N)


def class_transfer(names=CLASSES):
    k = len(names)
    return spread(np.eye(k) + np.arange(k * k).reshape(k, k) / 10, class_names=names, style="paper", n_examples=N)


def distance_decay():
    return spread([2.0, 1.0, 0.1], bin_centers=np.array([1e-3, 1e-2, 1e-1]), style="pooled")


def influence(lambda_max=100.0, n_ritz=5):
    ritz = lambda_max * 0.5 ** np.arange(n_ritz)
    return SimpleNamespace(lambda_max=lambda_max, damping=0.1, ritz_values=ritz)


def history(n=4):
    epoch = np.arange(n)
    train = np.r_[np.nan, 0.5 ** epoch[1:]]
    return SimpleNamespace(epoch=epoch, train_loss=train, val_loss=0.6**epoch)


def damping_curve(values, converged=None, ceiling=None):
    values = np.asarray(values, dtype=float)
    dampings = np.geomspace(1e-6, 1, len(values))
    converged = np.ones(len(values)) if converged is None else np.asarray(converged, dtype=float)
    nan = np.full(len(values), np.nan)
    limit = (values[-1], np.nan, np.nan)
    return DampingCurve(dampings, values, nan, nan, converged, (0.9, np.nan, np.nan), limit, ceiling, 1.0)


def check(order=2.0):
    steps = np.geomspace(1e-3, 1e-1, 5)
    predicted = np.linspace(-1, 1, 9)
    errors = steps[:, None] ** order * [1.0, 2.0]
    return response_check(predicted, predicted * 1.01, steps, errors, order, 0.05)


def images(figure):
    return [image for axes in figure.axes for image in axes.images]


def texts(figure):
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        labels = (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label)
        found += [t.get_text() for t in (*axes.texts, *labels)] + [axes.get_title(loc="left")]
    return found


def gids(figure):
    return [line.get_gid() for axes in figure.axes for line in axes.lines]


STATE = np.random.default_rng(0).normal(1, 0.2, (2, 6, 8))
TRAJECTORY = np.random.default_rng(1).normal(1, 0.2, (5, 6, 8))
DYNAMICS = SimpleNamespace(epochs=np.arange(3), on_diagonal=spread([1, 2, 3.0]), off_diagonal=spread([0.1, -0.2, 0.0]))
DYNAMICS_ABOVE_0 = SimpleNamespace(epochs=np.arange(3), on_diagonal=spread([2, 3, 4]), off_diagonal=spread([1, 2, 3]))


def rollout_link(scale=1.0, n_left_out=0):
    rng = np.random.default_rng(0)
    of_class = correlation_of(-0.4, 6)
    return SimpleNamespace(ratio=rng.uniform(0.5, 2, 18), error=scale * rng.uniform(0.1, 3, 18),
                           class_ids=np.arange(18) % 3, class_names=CLASSES, pooled=correlation_of(0.25, 18),
                           by_class=(of_class, of_class, correlation_of(np.nan, 0)), n_left_out=n_left_out)  # fmt: skip


def correlation_of(value, n):
    return SimpleNamespace(value=value, low=value - 0.1, high=value + 0.1, n=n)


EVERY = {
    "two_time": lambda: figures.two_time({"UNet": two_time(), "ViT": two_time(2)}),
    "lag_profile": lambda: figures.lag_profile({"UNet": {"smse": lag_profile(), "mass": lag_profile(False)}}),
    "class_transfer": lambda: figures.class_transfer({"UNet": class_transfer(), "ViT": class_transfer()}),
    "distance_decay": lambda: figures.distance_decay({"UNet": distance_decay(), "ViT": distance_decay()}),
    "eigenvalues": lambda: figures.eigenvalues({"UNet": [influence(), influence(50)], "ViT": [influence(9)]}),
    "optimisation_curve": lambda: figures.optimisation_curve({"UNet": [history(), history(3)]}),
    "damping_path": lambda: figures.damping_path({"UNet": {"coherence time": damping_curve([1, 2, np.inf], None, 3)}}),
    "predictions": lambda: figures.predictions(STATE, {"ViT": STATE + 0.1}, ("velocity_x", "velocity_y")),
    "rollout": lambda: figures.rollout(TRAJECTORY, {"ViT": TRAJECTORY + 0.1}, n_shown=3),
    "channel_resolved": lambda: figures.channel_resolved(np.ones((2, 2, 3, 3)), ("u", "v"), np.array([0, 1, 0])),
    "response_check": lambda: figures.response_check({"UNet": check()}),
    "rollout_link": lambda: figures.rollout_link({"UNet": rollout_link(), "ViT": rollout_link(100, 2)}, 6),
    "training_dynamics": lambda: figures.training_dynamics({"UNet": DYNAMICS}),
    "thumbnails": lambda: figures.thumbnails({"BB": TRAJECTORY[:, None]}, ("velocity_x",), (0, 1, 2, 3, 4)),
    "summary": lambda: figures.summary({"ViT": two_time()}, {"ViT": lag_profile()}, {"ViT": class_transfer()}),
}


@pytest.mark.parametrize("name", EVERY)
def test_figure_saves_as_png_and_pdf_and_leaves_settings_alone(name, tmp_path):
    before = dict(mpl.rcParams)
    figure = EVERY[name]()
    assert isinstance(figure, Figure)
    png, pdf = figures.save(figure, tmp_path / "sub" / f"{name}.v1")
    assert png.name == f"{name}.v1.png"
    assert pdf.name == f"{name}.v1.pdf"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert dict(mpl.rcParams) == before


def test_every_public_function_is_drawn_above():
    functions = {n for n in figures.__all__ if callable(getattr(figures, n)) and n[0].islower()} - {"save"}
    assert functions == set(EVERY)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    pairs = [figures.save(EVERY["two_time"](), tmp_path / str(k)) for k in range(2)]
    for a, b in zip(*pairs, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_two_time_rows_respond_upward_and_columns_perturb_to_the_right():
    aggregation = two_time()
    figure = figures.two_time(aggregation)
    (image,) = images(figure)[:1]
    np.testing.assert_array_equal(image.get_array(), aggregation.median)
    assert image.origin == "lower"
    left, right, bottom, top = image.get_extent()
    assert left < right
    assert bottom < top
    axes = image.axes
    assert "perturbation" in axes.get_xlabel()
    assert "response" in axes.get_ylabel()
    assert axes.get_xticklabels()[0].get_text() == "1"
    assert axes.get_yticklabels()[-1].get_text() == "4"


def test_maps_share_one_range_that_reaches_sqrt_n():
    figure = figures.two_time({"UNet": {"smse": two_time(), "mass": two_time(0.5)}, "ViT": {"smse": two_time(-1)}})
    shown = images(figure)
    assert len({(i.norm.vmin, i.norm.vmax) for i in shown}) == 1
    assert shown[0].norm.vmax == pytest.approx(np.sqrt(N))
    assert shown[0].norm.vmin == -shown[0].norm.vmax
    assert "sqrt_n" in gids(figure)
    assert any("3.5" in t for t in texts(figure))
    panels = [axes for axes in figure.axes if axes.images and "·" in axes.get_title(loc="left")]
    assert len(panels) == 3, "the ViT has no mass map, so its panel is left out"


def test_values_beyond_sqrt_n_stretch_the_range():
    figure = figures.two_time(two_time(10))
    assert images(figure)[0].norm.vmax == pytest.approx(two_time(10).median.max())


def test_nan_rows_are_masked_and_drawn_grey():
    aggregation = two_time()
    aggregation.median[1] = np.nan
    figure = figures.two_time(aggregation)
    image = images(figure)[0]
    assert np.ma.getmaskarray(image.get_array())[1].all() or np.isnan(np.asarray(image.get_array())[1]).all()
    assert mpl.colors.to_hex(image.cmap(np.nan)) == style.PALE
    matrix = class_transfer()
    matrix.median[0, 1] = np.nan
    assert "—" in texts(figures.class_transfer(matrix))


def test_everything_nan_still_draws(tmp_path):
    aggregation = two_time(np.nan)
    figures.save(figures.two_time(aggregation), tmp_path / "nan")


def test_class_matrix_writes_row_k_at_height_k():
    aggregation = class_transfer()
    figure = figures.class_transfer(aggregation)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), aggregation.median)
    written = {t.get_position(): t.get_text() for t in axes.texts}
    at = {(round(x), round(y)): text for (x, y), text in written.items() if "…" not in text}
    for row in range(3):
        for column in range(3):
            assert at[column + 1, row + 1] == style.number(aggregation.median[row, column])
    assert [t.get_text() for t in axes.get_yticklabels()] == list(CLASSES)


def test_class_colours_are_distinct_and_fixed_by_name():
    assert style.class_colours(("CRP", "RP"))["RP"] == style.class_colours(CLASSES)["RP"]
    mixed = style.class_colours(("RP", "mine", "yours"))
    assert len(set(mixed.values())) == 3


def test_luminance_ends():
    assert style.luminance("white") == pytest.approx(1)
    assert style.luminance("black") == 0


def test_class_names_are_readable_on_white():
    for colour in style.class_colours(tuple("abcdef"), for_text=True).values():
        assert 1.05 / (style.luminance(colour) + 0.05) >= 4.5


def test_numbers_in_cells_contrast_with_their_colour():
    norm, _, _ = style.signed_range([np.array([-1.0, 1.0])])
    for value in np.linspace(-1, 1, 41):
        back = style.luminance(style.diverging()(norm(value)))
        ink = style.luminance(style.inked(value, norm, style.diverging()))
        assert (max(back, ink) + 0.05) / (min(back, ink) + 0.05) >= 3.5


def test_lag_profile_draws_intra_inter_levels_and_intervals():
    figure = figures.lag_profile({"UNet": lag_profile(), "ViT": lag_profile(False)})
    upper, lower = figure.axes[:2]
    curves = [line for line in upper.lines if line.get_label() in {"UNet", "ViT"}]
    assert len(curves) == 2
    np.testing.assert_array_equal(curves[0].get_xdata(), LAGS)
    np.testing.assert_array_equal(curves[0].get_ydata(), lag_profile().intra.median)
    levels = [line.get_ydata()[0] for line in upper.lines if line.get_gid() == "sqrt_n"]
    assert levels == [pytest.approx(np.sqrt(N))]
    assert any(line.get_ydata()[0] == 1.0 and line.get_linestyle() == ":" for line in upper.lines)
    assert len(upper.containers) == 1, "only the profile with intervals has error bars"
    assert "other class" in lower.get_ylabel()
    assert not figures.lag_profile(lag_profile(), interval=False).axes[0].containers


def test_sqrt_n_line_needs_n():
    profile = lag_profile()
    del profile.n_examples
    assert "sqrt_n" not in gids(figures.lag_profile(profile))
    assert "sqrt_n" in gids(figures.lag_profile(profile, n_examples=48))


def test_distance_decay_puts_surrogates_on_one_log_axis():
    figure = EVERY["distance_decay"]()
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["UNet", "ViT"]


def test_eigenvalues_box_holds_lambda_max_plus_damping():
    figure = figures.eigenvalues({"UNet": [influence(10), influence(20), influence(30)]})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    np.testing.assert_allclose(np.sort(dots[0].get_ydata()), [10.1, 20.1, 30.1])
    assert len(figures.eigenvalues([influence(10, n_ritz=0)]).axes) == 1
    with pytest.raises(ValueError, match="lambda_max"):
        figures.eigenvalues([influence(np.nan, n_ritz=0)])


def test_optimisation_curve_keeps_common_epochs_and_skips_nan():
    figure = EVERY["optimisation_curve"]()
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    validation, training = axes.lines
    np.testing.assert_array_equal(validation.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(training.get_xdata(), [1, 2])
    np.testing.assert_allclose(validation.get_ydata(), 0.6 ** np.arange(3))


def test_damping_path_shows_limits_marks_control_and_unconverged():
    curve = damping_curve([1, 1.5, 2, np.inf], converged=[0.5, 1, 1, 1], ceiling=3.0)
    control = damping_curve([2, 2, 2, 2])
    figure = figures.damping_path({"UNet": {"q": curve}}, {"UNet": {"q": control}}, 1e-3, {"UNet": 1e-12})
    axes = figure.axes[0]
    by_gid = {line.get_gid(): line for line in axes.lines if line.get_gid()}
    np.testing.assert_allclose(by_gid["trained"].get_ydata(), [1, 1.5, 2, 3])
    np.testing.assert_allclose(by_gid["trained"].get_xdata(), [-6, -4, -2, 0])
    assert mpl.colors.to_hex(by_gid["control"].get_color()) == style.GREY
    labels = [t.get_text() for t in axes.get_xticklabels()]
    assert (labels[0], labels[-1]) == ("0", "∞")
    triangles = [line for line in axes.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert {float(y) for line in triangles for y in line.get_ydata()} == {3.0}
    assert [p.get_hatch() for p in axes.patches].count("////") == 1
    assert any("this run" in t for t in texts(figure))
    assert any("← paper" in t for t in texts(figure)), "a λ below the axis is an arrow at its edge"


def test_damping_path_shows_an_open_ended_control_around_the_curve():
    curve, control = (damping_curve(v, ceiling=3.0) for v in ([1, 1, 2, 3], [2, 2, 2, np.inf]))
    both = damping_curve([1, 1, 2, np.inf], ceiling=3.0)

    def sizes(figure):
        lines = [line for line in figure.axes[0].lines if line.get_marker() == "^" and len(line.get_xdata())]
        return sorted({line.get_markersize() for line in lines})

    figure = figures.damping_path({"UNet": {"q": curve}}, {"UNet": {"q": control}})
    assert sizes(figure) == [7]
    assert any("> max lag" in t.get_text() for t in figure.legends[0].get_texts())
    assert sizes(figures.damping_path({"UNet": {"q": both}}, {"UNet": {"q": control}})) == [4, 7]


def test_damping_path_hatches_where_either_is_unconverged():
    curve = damping_curve([1, 1, 1, 1], converged=[0.5, 1, 1, 1])
    control = damping_curve([2, 2, 2, 2], converged=[0.5, 0.5, 1, 1])
    figure = figures.damping_path({"UNet": {"q": curve}}, {"UNet": {"q": control}})
    assert [p.get_hatch() for p in figure.axes[0].patches].count("////") == 2
    figure = figures.damping_path({"UNet": {"q": damping_curve([1, 1])}}, {"UNet": {"q": control}})
    assert any(t.get_text() == "not converged" for t in figure.legends[0].get_texts())


def test_damping_path_leaves_out_a_limit_that_is_not_known():
    curve = damping_curve([1, 1, 1, 1])
    unknown = replace(curve, at_zero=(np.nan, np.nan, np.nan))
    whole, part = (figures.damping_path({"UNet": {"q": c}}) for c in (curve, unknown))
    assert [next(t.get_text() for t in f.axes[0].get_xticklabels()) for f in (whole, part)] == ["0", "$10^{-6}$"]
    assert [any("H diagonal" in t for t in texts(f)) for f in (whole, part)] == [True, False]
    dots = [line for line in part.axes[0].lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [1]


def test_damping_path_takes_the_curves_of_one_surrogate_as_they_are_made():
    curves, control = {"q": damping_curve([1, 2])}, {"q": damping_curve([2, 3])}
    bare = figures.damping_path(curves, control)
    named = figures.damping_path({"": curves}, {"": control})
    assert [len(axes.lines) for axes in bare.axes] == [len(axes.lines) for axes in named.axes]


def test_damping_path_refuses_a_single_point():
    with pytest.raises(ValueError, match="two dampings"):
        figures.damping_path({"UNet": {"q": damping_curve([1.0])}})


def test_fields_have_x_to_the_right_and_y_upward():
    figure = figures.predictions(STATE, {"UNet": STATE, "ViT": STATE * 2}, ("velocity_x", "velocity_y"))
    image = images(figure)[0]
    np.testing.assert_array_equal(image.get_array(), STATE[0].T)
    assert image.origin == "lower"
    difference = figure.axes[4].images[0]
    np.testing.assert_allclose(difference.get_array(), STATE[0].T)
    assert difference.norm.vmin == -difference.norm.vmax


def test_predictions_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(C, X, Y\) alike"):
        figures.predictions(STATE, STATE[:1], ("u", "v"))
    with pytest.raises(ValueError, match="must name 2 channels"):
        figures.predictions(STATE, STATE, ("u",))
    with pytest.raises(ValueError, match=r"\(T, X, Y\) alike"):
        figures.rollout(TRAJECTORY, TRAJECTORY[1:])
    with pytest.raises(ValueError, match=r"\(time, 2, x, y\)"):
        figures.thumbnails({"RP": TRAJECTORY[:, None]}, ("u", "v"))


def test_rollout_error_is_relative_rms():
    figure = figures.rollout(TRAJECTORY, {"ViT": TRAJECTORY * 1.1})
    line = figure.axes[-1].lines[0]
    np.testing.assert_allclose(line.get_ydata(), 0.1, rtol=1e-5)


def test_channel_blocks_put_the_first_channel_lower_left_and_sort_by_class():
    blocks = np.arange(2 * 2 * 3 * 3, dtype=float).reshape(2, 2, 3, 3)
    figure = figures.channel_resolved(blocks, ("density", "energy"), np.array([1, 0, 1]), ("RP", "CRP"))
    lower_left = figure.axes[2].images[0].get_array()
    order = [1, 0, 2]
    np.testing.assert_array_equal(lower_left, blocks[0, 0][np.ix_(order, order)])
    assert figure.axes[2].get_xlabel() == figure.axes[2].get_ylabel() == "density"
    with pytest.raises(ValueError, match="must have shape"):
        figures.channel_resolved(blocks, ("density",))


def test_response_check_scales_each_observable_by_its_own_largest():
    predicted = np.array([1.0, -2.0, 0.5]) * np.array([[[1.0], [1e-6]]])
    steps = np.geomspace(1e-3, 1e-1, 5)
    uneven = response_check(predicted, 1.5 * predicted, steps, steps[:, None] ** 2, 2.0, 0.1, ("smse", "mass"))
    (points,) = [line for line in figures.response_check(uneven).axes[0].lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(points.get_xdata(), [0.5, -1, 0.25] * 2)
    np.testing.assert_allclose(points.get_ydata(), [0.75, -1.5, 0.375] * 2)


def test_response_check_has_a_slope_two_guide():
    figure = figures.response_check(check())
    (guide,) = [line for line in figure.axes[1].lines if line.get_gid() == "guide"]
    x, y = guide.get_data()
    assert np.log(y[1] / y[0]) / np.log(x[1] / x[0]) == pytest.approx(2)
    assert any("2.00" in t.get_text() for t in figure.axes[1].get_legend().get_texts())


def test_rollout_link_draws_every_class_that_has_points_and_says_its_correlation():
    link = rollout_link()
    figure = figures.rollout_link(link, 1)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert len(axes.lines) == 2
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), link.ratio[1::3])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), link.error[1::3])
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2
    said = [t.get_text() for t in axes.get_legend().get_texts()]
    assert said == [f"{name}: r = −0.40 [−0.50, −0.30], n = 6" for name in ("RP", "CRP")]
    assert axes.get_title(loc="left") == "all classes: r = 0.25 [0.15, 0.35], n = 18"
    assert "over 1 step (" in axes.get_ylabel()
    assert "left out" in EVERY["rollout_link"]()._supxlabel.get_text()


def test_training_dynamics_is_linear_around_0_only_where_it_reaches_0():
    assert [axes.get_yscale() for axes in figures.training_dynamics(DYNAMICS).axes] == ["log", "symlog"]
    assert [axes.get_yscale() for axes in figures.training_dynamics(DYNAMICS_ABOVE_0).axes] == ["log", "log"]


def test_summary_asks_for_the_same_surrogates():
    with pytest.raises(ValueError, match="same surrogates"):
        figures.summary({"UNet": two_time()}, {"ViT": lag_profile()}, {"UNet": class_transfer()})


def test_style_is_named_on_the_figure():
    assert any("pooled" in figure._supxlabel.get_text() for figure in [EVERY["two_time"]()])
    assert "paper" in EVERY["class_transfer"]()._supxlabel.get_text()


def test_empty_inputs_are_refused():
    with pytest.raises(ValueError, match="at least one surrogate"):
        figures.two_time({})
    with pytest.raises(ValueError, match="at least one observable"):
        figures.two_time({"UNet": {}})
    assert inputs.title("smse:momentum_x") == r"SMSE, momentum $x$"


def test_nothing_sticks_out_of_the_figure():
    for name, draw in EVERY.items():
        figure = draw()
        with style.context():
            figure.canvas.draw()
            box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        slack = 0.03
        assert box.x0 > -slack, name
        assert box.y0 > -slack, name
        assert box.x1 < width + slack, name
        assert box.y1 < height + slack, name


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_what_the_solves_leave_is_drawn_without_stretching_the_axis():
    plain = damping_curve([0.9, 0.8, 0.7])
    bounded = replace(plain, bound_low=np.array([-np.inf, 0.7, 0.65]), bound_high=np.array([np.inf, 0.9, 0.75]))
    without, drawn = (figures.damping_path({"UNet": {"class locking": c}}) for c in (plain, bounded))
    assert "error of the solves, at most" in legend_of(drawn)
    assert "error of the solves, at most" not in legend_of(without)
    assert drawn.axes[0].get_ylim() == without.axes[0].get_ylim()
    assert len(drawn.axes[0].lines) == len(without.axes[0].lines) + 2


def test_legend_and_note_name_only_what_is_drawn():
    bare = replace(damping_curve([0.9, 0.8, 0.7]), reference=None)
    figure = figures.damping_path({"UNet": {"class locking": bare}})
    assert legend_of(figure) == ["trained"]
    assert not any("intervals" in text for text in texts(figure))
    banded = replace(damping_curve([0.9, 0.8, 0.7]), low=np.full(3, 0.5), high=np.ones(3))
    figure = figures.damping_path({"UNet": {"class locking": banded}})
    assert legend_of(figure) == ["trained", "where the reading changes"]
    assert any("intervals" in text for text in texts(figure))


def test_results_in_place_of_an_aggregation_are_refused():
    result = pi.Influence.from_arrays(np.eye(2), [0, 0], [0, 0], [1, 2])
    for given, said in ((result, "an Influence"), ([result], "a list"), ({"UNet": result}, "an Influence")):
        with pytest.raises(ValueError, match=f"`data` must be an aggregation, such as .*; got {said}"):
            figures.lag_profile(given)
