"""The report: the opening answer follows the numbers, and the page stands alone."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from hand_made import response_check
from pdeinfl import figures
from pdeinfl.analysis.damping_curves import CLASS_LOCKING, COHERENCE_TIME, DampingCurve, damping_path
from pdeinfl.analysis.estimate import Estimate
from pdeinfl.engine import store
from pdeinfl.engine.certificate import DampingPath
from pdeinfl.engine.result import Influence
from pdeinfl.experiment.config import InfluenceConfig
from pdeinfl.html_report import (
    Quantity,
    ReportContent,
    ReportOptions,
    StableRange,
    SurrogateSummary,
    Table,
    build_content,
    render_report,
    wording,
)
from pdeinfl.html_report.number_format import bounds, decimal, interval, significant, steps
from pdeinfl.html_report.run_tables import response_check_table
from pdeinfl.html_report.stability import difference_range, reading_range, stable_range
from pdeinfl.run_contents import PredictionSample, RunContents
from pdeinfl.surrogates import RolloutErrors

NAN, INF = math.nan, math.inf
CLASSES = ("RP", "CRP", "RPUI")
T = 6
KIND = "95 % bootstrap over mini-batches"
OPTIONS = ReportOptions(n_bootstrap=50, n_bootstrap_path=10, dampings_per_decade=1)
VOID = {"img", "meta", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting, collects text and the resources that the page points to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.resources, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.resources += [v for k, v in attributes if k in {"src", "href", "srcset", "data", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def kernel(reach, crossing, shift):
    """H over (class, time): decays over ``reach`` steps in time, a share ``crossing`` reaches other classes."""
    class_ids, times = np.repeat(np.arange(3), T), np.tile(np.arange(1, T + 1), 3)
    lag = np.abs(times[:, None] - times[None, :])
    same = class_ids[:, None] == class_ids[None, :]
    h = np.exp(-lag / reach) * np.where(same, 1.0, crossing)
    noise = np.random.default_rng(shift).normal(0, 0.01, h.shape)
    return h + noise @ noise.T / len(h), class_ids, times


def by_hand(reach=0.7, crossing=0.02, seed=10, mini_batch=0, observables=("smse",), run="UNet"):
    h, class_ids, times = kernel(reach, crossing, 7 * seed + mini_batch)
    values = np.stack([h[None] * (k + 1) for k in range(len(observables))])
    distance = np.abs(times[:, None] - times[None, :]) + 2.0 * (class_ids[:, None] != class_ids[None, :]) + 0.1
    np.fill_diagonal(distance, 0)
    return Influence.from_arrays(values, class_ids, class_ids, times, observables, ("smse",), CLASSES, run, seed, 20,
                                 mini_batch, distance)  # fmt: skip


def with_path(result, relative=1e-3):
    """The same gradients' overlap as an exact path, so that damping can be varied: G with GᵀG = H."""
    n = result.values.shape[2]
    values, vectors = np.linalg.eigh(result.values[0, 0])
    values = np.maximum(values, 0)
    rows = vectors * np.sqrt(values)
    empty = np.empty((n, 0))
    overlap = rows @ rows.T
    path = DampingPath(values, rows, rows, np.empty(0), empty, empty, overlap, overlap[None], overlap[None], exact=True)
    cut = replace(
        result,
        values=result.values[:1],
        error_bound=np.zeros((1, 1, n, n)),
        row_error=np.zeros((1, 1, n)),
        relative_error=np.zeros((1, 1)),
        converged=True,
        response_names=result.response_names[:1],
        gradient_overlap=(rows @ rows.T)[None, None],
        lambda_max=float(values.max()),
        damping=relative * float(values.max()),
        tol=0.02,
        n_jvp=30,
        n_vjp=31,
        ritz_values=values,
        path=path,
        settings={"solver": "krylov", "metric": "sum", "n_parameters": 1234, "n_outputs": 1000, "torch": "2.13.0",
                  "pdeinfl": "0.1.0"},
    )  # fmt: skip
    (at,) = cut.at_damping([cut.damping * (1 + 1e-12)])
    return at


def many(seeds=(10, 35), batches=3, path=False, **kernel_arguments):
    held = [by_hand(seed=s, mini_batch=b, **kernel_arguments) for s in seeds for b in range(batches)]
    return [with_path(r) for r in held] if path else held


def summary_of(time=(2.1, 1.8, 2.5), locking=(0.94, 0.9, 0.97), **more):
    quantities = {
        "coherence_time": Quantity(Estimate(*time, KIND)),
        "class_locking": Quantity(Estimate(*locking, KIND)),
    }
    counts = {"max_lag": 11, "n_converged": 6, "n_influences": 6, "n_seeds": 2, "n_mini_batches": 3}
    return SurrogateSummary(**{"name": "UNet", **quantities, **counts, **more})


def run_of(results, **more):
    return RunContents("Does it travel?", "Two surrogates.", results, **more)


def read(content, folder):
    text = render_report(content, folder).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize(
    ("time", "locking", "said", "meant"),
    [
        ((3.2, 2.8, 3.6), (0.95, 0.9, 0.99), "3.2 steps in time but another class feels at most a tenth", "by itself"),
        ((3.2, 2.8, 3.6), (0.7, 0.6, 0.8), "less than half of what its own class does (class locking 0.70)", "itself"),
        ((3.2, 2.8, 3.6), (0.2, 0.1, 0.3), "and another class feels more than half of", "one time-stepping rule"),
        ((0.8, 0.7, 0.9), (0.95, 0.9, 0.99), "stays at the time where it was put", "memorisation looks like"),
        ((0.8, 0.7, 0.9), (0.05, 0.0, 0.1), "feels at least nine tenths of what", "hardly its neighbours in time"),
        ((1.1, 0.9, 1.3), (0.95, 0.9, 0.99), "not clearly more than the step", "undecided; another class feels less"),
        (
            (3.2, 2.8, 3.6),
            (0.5, 0.3, 0.7),
            "more than half of what its own class does is undecided",
            "helps its neighbours in time; whether",
        ),
        ((INF, 9.0, INF), (1.2, 1.1, 1.3), "still coherent at the longest lag examined (11 steps", "by itself"),
        ((INF, 0.9, INF), (0.95, 0.9, 0.99), "undecided (coherence time more than 11 steps)", "time is undecided"),
        ((3.2, 2.8, 3.6), (1.2, 1.1, 1.3), "works against the other classes (class locking 1.20)", "by itself"),
        ((NAN, NAN, NAN), (NAN, NAN, NAN), "could not be determined", "undecided"),
    ],
)
def test_the_sentences_follow_the_numbers(time, locking, said, meant):
    summary = summary_of(time, locking)
    assert said in wording.headline(summary)
    assert meant in wording.meaning(summary)


def test_advice_follows_from_what_is_undecided():
    straddles = wording.meaning(summary_of((1.1, 0.9, 1.3)))
    assert straddles.endswith("More seeds or mini-batches would narrow the intervals.")
    undefined = Estimate(NAN, interval="no interval: the number is undefined")
    one_class = wording.meaning(summary_of(class_locking=Quantity(undefined)))
    assert one_class.endswith("No interval of the class locking: the number is undefined.")
    assert "narrow" not in one_class


def test_no_verdict_where_the_untrained_network_reads_the_same_or_nothing_was_learned():
    def quantity(*trained_and_untrained):
        trained, untrained = (Estimate(v, low, high, KIND) for v, low, high in trained_and_untrained)
        return Quantity(trained, untrained)

    time, locking = quantity((2.1, 1.8, 2.5), (2.0, 1.5, 2.2)), quantity((0.9, 0.8, 1.0), (0.85, 0.7, 0.95))
    same = wording.meaning(summary_of(coherence_time=time, class_locking=locking))
    assert "neither number can be told apart from the untrained network's" in same
    assert "looks like" not in same
    moved = summary_of(coherence_time=time, class_locking=quantity((0.9, 0.8, 1.0), (0.3, 0.2, 0.4)))
    assert "looks like" in wording.meaning(moved)
    poor = wording.meaning(replace(moved, one_step_error=0.9, untrained_error=1.0))
    assert "not below half of the untrained network's" in poor
    assert "looks like" not in poor
    good = replace(moved, one_step_error=0.1, untrained_error=1.0)
    assert "looks like" in wording.meaning(good)
    assert wording.error_text(good) == "SMSE 0.1 on the mini-batches examined; the untrained network's is 1"
    copied = replace(good, persistence_error=0.08)
    assert wording.error_text(copied).endswith("the untrained network's is 1; copying the input's is 0.08")
    assert "not below that of copying the input" in wording.meaning(copied)
    assert "looks like" in wording.meaning(replace(good, persistence_error=0.12))
    assert wording.error_text(moved) == ""


def test_the_one_step_error_is_that_of_the_results(tmp_path):
    trained = [replace(r, losses=np.full(18, 0.1 * (k + 1))) for k, r in enumerate(many())]
    control = replace(by_hand(), epoch=0, losses=np.full(18, 4.0))
    built = build_content(run_of({"UNet": trained}, controls={"UNet": [control]}), OPTIONS)
    assert built.summaries[0].one_step_error == pytest.approx(0.35)
    assert built.summaries[0].untrained_error == 4.0
    assert "SMSE 0.35 on the mini-batches examined; the untrained network's is 4" in read(built, tmp_path)[1].text


@pytest.mark.parametrize(("radius", "shown"), [(0.25, "0.25"), (512.0, "≥ 512")])
def test_a_trust_radius_at_the_end_of_the_ladder_is_a_lower_bound(radius, shown):
    steps_tried = np.array([512.0, 256.0, 1.0, 0.5])
    check = response_check(
        np.ones(3), np.ones(3), steps_tried, steps_tried[:, None] ** 2, 2.0, radius, ("smse",)
    )
    table = response_check_table({"UNet": check})
    assert table.rows[0][-1] == shown
    assert "own smse" in table.note
    right = figures.response_check({"UNet": check}).axes[1]
    text = right.get_legend().get_texts()[0].get_text()
    assert text.endswith("≥ 512" if radius == 512 else "0.25")
    assert any(np.ptp(np.asarray(line.get_xdata(), dtype=float)) == 0 for line in right.lines) == (radius != 512)


def test_without_an_interval_the_reason_is_given():
    estimate = Estimate(2.04, interval="no interval: only 2 mini-batches")
    summary = summary_of(coherence_time=Quantity(estimate))
    assert wording.value_text(summary.coherence_time, summary, True) == "2.0 steps; no interval: only 2 mini-batches"
    assert "travels about 2.0 steps" in wording.headline(summary)


def test_untrained_control_is_told_apart_only_by_disjoint_intervals():
    def text(control, stable=None):
        quantity = Quantity(Estimate(2.1, 1.8, 2.5), control, None, stable)
        return wording.untrained_text(quantity, summary_of(coherence_time=quantity), True)

    assert "No untrained control" in text(None)
    assert text(Estimate(5, 4, 6)).startswith("Training shortened the coherence time: the untrained network has 5.0")
    assert "Training lengthened" in text(Estimate(1, 0.9, 1.1))
    assert "cannot be told apart" in text(Estimate(2.6, 2.4, 2.8))
    assert "cannot be judged" in text(Estimate(5, interval="no interval: one mini-batch"))
    assert "keeps its sign over 3.0 decades" in text(Estimate(5, 4, 6), StableRange(1e-4, 1e-1))
    assert "does not keep its sign" in text(Estimate(5, 4, 6), StableRange(1e-4, 1e-3))
    locked = Quantity(Estimate(0.9, 0.8, 1.0), Estimate(0.2, 0.1, 0.3))
    assert "Training raised the class locking" in wording.untrained_text(locked, summary_of(), False)


def test_stability_sentence_asks_for_two_decades():
    assert "not tested: no path" in wording.stability_text("time", None, "no path")
    assert "is stable against damping: it holds over 2.0 decades" in wording.stability_text(
        "time", StableRange(1e-4, 1e-2), ""
    )
    assert "only 1.0 decades" in wording.stability_text("time", StableRange(1e-4, 1e-3), "")
    assert "did not converge" in wording.stability_text("time", StableRange(NAN, NAN, "it did not converge"), "")


def test_comparison_needs_disjoint_intervals():
    a, b = summary_of(), summary_of((5, 4, 6), (0.93, 0.9, 0.96), name="ViT")
    time, locking = wording.comparison([a, b])
    assert time == "ViT's training signal travels farther in time than UNet's."
    assert "cannot be told apart" in locking
    blind = replace(b, coherence_time=Quantity(Estimate(5)))
    assert "cannot be ranked" in wording.comparison([a, blind])[0]
    assert wording.comparison([a]) == []


def test_evidence_counts_unconverged_matrices():
    assert "all 6 influence matrices met" in wording.evidence_text(summary_of())
    assert "only 4 of 6 influence matrices" in wording.evidence_text(summary_of(n_converged=4))
    assert "with 3 mini-batches each" in wording.evidence_text(summary_of())
    assert "with up to 3 mini-batches each" in wording.evidence_text(summary_of(even=False))
    unequal = build_content(run_of({"UNet": many()[:-1]}), OPTIONS)
    assert (unequal.summaries[0].n_mini_batches, unequal.summaries[0].even) == (3, False)


def test_stable_range_is_contiguous_and_converged():
    dampings = np.geomspace(1e-6, 1, 7)
    signs = np.array([1, 1, 1, 1, 1, -1, 1])
    converged = np.array([True, False, True, True, True, True, True])
    found = stable_range(dampings, signs, converged, 1e-3)
    assert (found.low, found.high) == (pytest.approx(1e-4), pytest.approx(1e-2))
    assert found.decades == pytest.approx(2)
    assert found.is_stable
    assert "did not converge" in stable_range(dampings, signs, ~converged, 1e-3).reason
    assert "undecided" in stable_range(dampings, 0 * signs, converged, 1e-3).reason
    assert "unknown" in stable_range(dampings, signs, converged, NAN).reason
    assert not stable_range(dampings, signs, converged, NAN).is_stable


def curve(values, converged=1.0, reference=1.0, spread=NAN):
    values = np.asarray(values, dtype=float)
    low, high = values - spread, values + spread
    dampings = np.geomspace(1e-4, 1, len(values))
    return DampingCurve(
        dampings, values, low, high, np.full(len(values), converged), (1, NAN, NAN), (1, NAN, NAN), 11.0, reference
    )


def test_reading_and_difference_ranges():
    trained, control = curve([0.5, 2, 3, INF, INF]), curve([0.5, 1, 4, 5, INF])
    assert reading_range(trained, 1e-2).decades == pytest.approx(3)
    assert difference_range(trained, control, 1e-3).decades == 0
    assert difference_range(trained, control, 1).reason, "infinite on both sides is no difference"
    assert difference_range(trained, control, 1e-1).decades == 0
    assert reading_range(curve([2] * 5, converged=0.5), 1e-2).reason


def test_a_reading_holds_only_where_its_whole_interval_does():
    trained = curve([2, 2, 3, 1.5, 3], spread=0.8)  # at 1e-1 the interval is [0.7, 2.3]
    assert reading_range(trained, 1e-2).decades == pytest.approx(2)
    assert "undecided" in reading_range(trained, 1e-1).reason
    assert difference_range(trained, curve([0, 0, 0, 0, 1.9], spread=0.5), 1e-3).decades == pytest.approx(3)
    unbounded = replace(trained, values=np.full(5, INF), low=np.array([0.5, 2, 2, 2, 2]), high=np.full(5, INF))
    assert reading_range(unbounded, 1e-2).low == pytest.approx(1e-3)


def test_number_formats():
    assert decimal(-0.004) == "0.00"
    assert decimal(-1.5, 1) == "−1.5"
    assert (decimal(NAN), decimal(INF)) == ("—", "∞")
    assert steps(1.0, 11) == "1.0 step"
    assert steps(INF, 11) == "more than 11 steps"
    assert interval(Estimate(9, 8, INF), 1, 11) == "[8.0, > 11]"
    assert interval(Estimate(9)) == ""
    assert significant(0.001) == "10⁻³"
    assert significant(123456.0) == "1.23·10⁵"
    assert significant(-0.05) == "−0.05"
    assert significant(0) == "0"


def content(**more):
    table = Table("Settings", ("", "UNet"), (("a & b <c>", "λ_max"),))
    return ReportContent("A < B", "Intro.", (summary_of(),), tables=(table,), command="pdeinfl demo", **more)


def test_page_is_well_formed_escaped_and_self_contained(tmp_path):
    text, page = read(content(notes=("A note.",)), tmp_path)
    assert "A < B" in page.text
    assert "a & b <c>" in page.text
    assert page.tags.count("h1") == 1
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(r.startswith("data:") for r in page.resources)
    for found in ("2.1 steps, [1.8, 2.5]", "0.94, [0.90, 0.97]", KIND, "pdeinfl demo", "arXiv:2509.00024", "A note."):
        assert found in page.text
    assert text.index("The answer") < text.index("How to read this") < text.index("How to cite")
    assert "@import" not in text
    assert "http" not in text


def test_answer_of_a_built_report_changes_with_the_influence(tmp_path):
    locked = build_content(run_of({"UNet": many()}), OPTIONS)
    shared = build_content(run_of({"UNet": many(reach=3.0, crossing=0.9)}), OPTIONS)
    assert locked.summaries[0].class_locking.trained.value > 0.9
    assert shared.summaries[0].class_locking.trained.value < 0.2
    answers = [read(c, tmp_path / str(k))[1].text.split("How to read this")[0] for k, c in enumerate((locked, shared))]
    assert "at most a tenth of what the example itself does" in answers[0]
    assert "more than half" not in answers[0]
    assert "more than half of what the example itself does" in answers[1]
    assert "at most a tenth" not in answers[1]


def full_run():
    history = SimpleNamespace(epoch=np.arange(3), train_loss=np.array([np.nan, 2, 1.0]), val_loss=np.array([3, 2, 1.5]))
    state = np.random.default_rng(0).normal(1, 0.1, (4, 4, 8, 8))
    names = ("density", "momentum_x", "momentum_y", "energy")
    both = {"UNet": state[0], "ViT": state[1]}
    rolled = {"UNet": state, "ViT": state + 0.1}
    sample = PredictionSample("CRP, trajectory 4", 2, names, state[2], both, state, rolled, np.arange(4) / 20)
    eps = np.geomspace(1e-3, 1e-1, 4)
    check = response_check(np.ones(3), np.full(3, 1.02), eps, eps[:, None] ** 2, 1.98, 0.25)
    return run_of(
        {"UNet": many(path=True), "ViT": many(path=True, reach=2.0, crossing=0.6)},
        controls={"UNet": many(path=True, reach=6.0, crossing=0.9)},
        histories={"UNet": [history, history], "ViT": []},
        samples=(sample,),
        checks={"UNet": check},
        settings={"wall time": "4.2 min"},
        command="pdeinfl demo --out runs/demo",
    )


def test_full_report_holds_every_figure_table_and_number(tmp_path):
    built = build_content(full_run(), OPTIONS)
    _, page = read(built, tmp_path)
    stems = [built.main_figure.stem, *(f.stem for f in built.figures)]
    assert stems == ["summary", "two_time", "lag_profile", "class_transfer", "distance_decay", "damping_path",
                     "eigenvalues", "optimisation", "predictions", "rollout", "response_check"]  # fmt: skip
    for stem in stems:
        for suffix in (".png", ".pdf"):
            assert (tmp_path / "figures" / (stem + suffix)).stat().st_size > 1000
    assert sum(r.startswith("data:image/png;base64,") for r in page.resources) == len(stems)
    for summary in built.summaries:
        time, locking = summary.coherence_time.trained, summary.class_locking.trained
        assert time.has_interval
        assert locking.has_interval
        assert f"{steps(time.value, summary.max_lag)}, {interval(time, 1, summary.max_lag)}" in page.text
        assert f"{decimal(locking.value)}, {interval(locking)}" in page.text
        assert summary.max_lag == T - 1
        assert (summary.n_seeds, summary.n_mini_batches, summary.n_converged) == (2, 3, 6)
    assert re.search(r"The \w+ reading is stable against damping", page.text)
    assert "untrained network has" in page.text
    assert "No untrained control was computed" in page.text, "the ViT has none"
    for found in ("wall time", "4.2 min", "30 + 31", "torch 2.13.0", "6 of 6", "1.98", "Every mini-batch"):
        assert found in page.text
    assert "details" in page.tags


def rollouts_of(results):
    rng = np.random.default_rng(0)
    ids = np.arange(3)
    return {store.Key.of(r): RolloutErrors(ids, ids, rng.uniform(1, 2, (3, T)).cumsum(1)) for r in results}


def test_dynamics_need_three_epochs_and_the_pair(tmp_path):
    def at(epoch):
        return [replace(r, epoch=epoch) for r in many()]

    def drawn(controls, between):
        run = run_of({"UNet": many()}, controls={"UNet": controls}, between={"UNet": between})
        return {f.stem: f for f in build_content(run, OPTIONS).figures}

    assert "training_dynamics" not in drawn(at(0), [])
    assert "training_dynamics" not in drawn(at(0), [replace(r, response_names=("mass",)) for r in at(5)])
    assert "training_dynamics" not in drawn([], at(5))
    figure = drawn(at(0), at(5)[:4])["training_dynamics"]
    np.testing.assert_array_equal(figure.figure.axes[0].lines[0].get_xdata(), [0, 5, 20])
    assert "4 to 6 influence matrices of each surrogate at each epoch" in figure.caption
    assert "0 of 16 influence matrices met the tolerance" in figure.caption, "made by hand, they have no bound"
    assert "response smse, perturbation smse" in figure.caption
    assert ", 6 influence matrices of each" in drawn(at(0), [*at(5), *at(7)])["training_dynamics"].caption


def test_rollout_link_shows_pooled_and_class_correlations_at_three_horizons(tmp_path):
    results = {"UNet": many(), "ViT": many()}
    results["ViT"] = [replace(r, run="ViT") for r in results["ViT"]]
    run = run_of(results, rollout_errors=rollouts_of([*results["UNet"], *results["ViT"]]))
    built = build_content(run, OPTIONS)
    (figure,) = [f for f in built.figures if f.stem == "rollout_link"]
    assert len([axes for axes in figure.figure.axes if axes.lines]) == 2
    assert "summed over 3 steps" in figure.caption
    (table,) = [t for t in built.tables if t.title == "Rollout link"]
    assert table.header == ("", "points", "horizon 1 step", "horizon 3 steps", "horizon 6 steps")
    assert [row[:2] for row in table.rows[:4]] == [
        ("UNet, all classes", "18"), ("UNet, RP", "6"), ("UNet, CRP", "6"), ("UNet, RPUI", "6")]  # fmt: skip
    assert len(table.rows) == 8
    assert re.fullmatch(r"−?\d\.\d\d \[−?\d\.\d\d, −?\d\.\d\d\]", table.rows[0][2])
    assert "bootstrap over mini-batches only" in table.note
    _, page = read(built, tmp_path)
    assert table.rows[0][2] in page.text
    assert [t.title for t in built.tables][:2] == ["Summary numbers", "Rollout link"]


def test_rollout_link_leaves_out_a_surrogate_without_all_its_errors():
    results = {"UNet": many(), "ViT": [replace(r, run="ViT") for r in many()]}
    errors = rollouts_of([*results["UNet"], *results["ViT"][1:]])
    built = build_content(run_of(results, rollout_errors=errors), OPTIONS)
    (table,) = [t for t in built.tables if t.title == "Rollout link"]
    assert {row[0].split(",")[0] for row in table.rows} == {"UNet"}
    one = build_content(run_of({"UNet": results["UNet"][:1]}, rollout_errors=errors), OPTIONS)
    (table,) = [t for t in one.tables if t.title == "Rollout link"]
    assert [row[1] for row in table.rows] == ["3", "1", "1", "1"]
    assert table.rows[1][2] == "—"
    assert "Intervals: none (it needs at least 3 mini-batches per seed; got 1)." in table.note


def test_damping_curves_reach_both_limits():
    built = build_content(full_run(), OPTIONS)
    (figure,) = [f.figure for f in built.figures if f.stem == "damping_path"]
    lower_left = next(axes for axes in figure.axes if axes.get_ylabel() == "class locking")
    points = [line for line in lower_left.lines if line.get_marker() == "o" and len(line.get_xdata()) == 2]
    diagonal = [float(line.get_ydata()[0]) for line in points]
    np.testing.assert_allclose(diagonal, 1.0, atol=1e-12)
    overlap = {round(float(line.get_ydata()[1]), 2) for line in points}
    assert len(overlap) == 2, "trained and untrained differ in their gradient overlap"


def test_single_mini_batch_and_missing_observables_and_no_path(tmp_path):
    results = {
        "UNet": [by_hand(observables=("smse", "mass"))],
        "ViT": [by_hand(observables=("smse",), run="ViT")],
    }
    built = build_content(run_of(results), OPTIONS)
    _, page = read(built, tmp_path)
    assert "no interval:" in page.text
    assert "was not tested" in page.text
    assert "without a damping path" in page.text
    assert "damping_path" not in {f.stem for f in built.figures}
    maps = next(f.figure for f in built.figures if f.stem == "two_time")
    assert sum(bool(axes.images) and "·" in axes.get_title(loc="left") for axes in maps.axes) == 3


def test_rows_without_variation_do_not_break_the_report(tmp_path):
    results = many()
    for r in results:
        r.values[..., 0, :] = 0.0
    _, page = read(build_content(run_of({"UNet": results}), OPTIONS), tmp_path)
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_one_class_has_no_locking(tmp_path):
    h, _, times = kernel(1.0, 0.5, 0)
    one = Influence.from_arrays(h[:T, :T], np.zeros(T, int), np.zeros(T, int), times[:T], class_names=("BB",))
    _, page = read(build_content(run_of({"ViT": [one]}), OPTIONS), tmp_path)
    assert "could not be determined" in page.text


def test_empty_runs_are_refused():
    with pytest.raises(ValueError, match="at least one surrogate"):
        build_content(run_of({}))
    with pytest.raises(ValueError, match="at least one influence"):
        build_content(run_of({"UNet": []}))


def settings(results, **more):
    return [replace(r, settings={**r.settings, **more}) for r in results]


def test_without_full_row_rank_there_is_no_limit_towards_zero(tmp_path):
    for more in ({"n_outputs": 1235}, {"n_parameters": 0}):
        built = build_content(run_of({"UNet": settings(many(path=True), **more)}), OPTIONS)
        drawn = next(f for f in built.figures if f.stem == "damping_path")
        labels = [t.get_text() for axes in drawn.figure.axes for t in axes.get_xticklabels()]
        assert "0" not in labels
        assert "∞" in labels
        assert drawn.caption.startswith("No limit towards 0 is drawn")
    mixed = {"UNet": many(path=True), "ViT": settings(many(path=True), n_outputs=1235)}
    drawn = next(f for f in build_content(run_of(mixed), OPTIONS).figures if f.stem == "damping_path")
    assert drawn.caption.startswith("Towards 0, where that limit is drawn, the influence matrix is diagonal")


def limits(results, options=OPTIONS):
    found = damping_path(results, [1e-3, 1e-2], options.response, n_bootstrap=0, lambda_max=results[0].lambda_max)
    return [found[name].at_zero[0] for name in (COHERENCE_TIME, CLASS_LOCKING)], found[CLASS_LOCKING].converged


def test_two_observables_have_no_limit_towards_zero():
    same = many(path=True)
    assert np.isfinite(limits(same)[0]).all()
    crossed = [replace(r, response_names=("mass",)) for r in same]
    assert np.isnan(limits(crossed, replace(OPTIONS, response="mass"))[0]).all()
    assert np.isnan(limits(settings(same, metric_batch_sha256="another"))[0]).all()


def test_a_contradicting_audit_is_not_converged_anywhere(tmp_path):
    results = many(path=True)
    audit = SimpleNamespace(agrees=False, rows=np.arange(2), rounding=1e-6)
    results[0] = replace(results[0], audit=audit)
    built = build_content(run_of({"UNet": results}), OPTIONS)
    assert built.summaries[0].n_converged == 5
    np.testing.assert_allclose(limits(results)[1], 5 / 6)
    assert "no: the audit disagrees" in read(built, tmp_path)[1].text
    results[0] = replace(results[0], audit=SimpleNamespace(agrees=True, rows=np.arange(2), rounding=1e-6))
    assert limits(results)[1].min() == 1


def test_a_small_observable_that_is_all_wrong_is_seen():
    predicted = np.ones((2, 2, 3)) * np.array([1.0, 1e-6])[:, None]
    measured = predicted * np.array([1.01, 2.0])[:, None]
    check = response_check(predicted, measured, np.ones(4), np.ones((4, 2)), 2.0, 0.5, ("smse", "mass"))
    row = response_check_table({"UNet": check}).rows[0]
    assert row[1:4] == ("12", "0", "1 (mass)")
    lost = replace(check, measured=np.where(predicted < 1, np.nan, measured))
    assert response_check_table({"UNet": lost}).rows[0][3] == "— (mass)"


def pairs(response, perturbation, **more):
    h, class_ids, times = kernel(2.0, 0.5, 1)
    values = np.broadcast_to(h, (len(response), len(perturbation), *h.shape))
    return Influence.from_arrays(values, class_ids, class_ids, times, response, perturbation, CLASSES, **more)


def test_controls_of_a_configured_run_answer_and_others_are_left_out(tmp_path):
    response, perturbation = ("smse", "mass", "energy"), ("mass",)
    configured = InfluenceConfig(response=response, perturbation=perturbation).control_response(())
    results = {"UNet": [pairs(response, perturbation)]}
    for control, compared in ((configured, True), (perturbation, False)):
        built = build_content(run_of(results, controls={"UNet": [pairs(control, perturbation)]}), OPTIONS)
        assert (built.summaries[0].class_locking.untrained is not None) == compared
        left_out = "control of UNet is left out of the comparison: it does not hold the response smse to the pert"
        assert (left_out in read(built, tmp_path)[1].text) != compared


@pytest.mark.parametrize(("names", "n_bins"), [(("velocity_x", "velocity_y"), 15), (("density", "energy"), 19)])
def test_bins_of_the_equation_and_lags_of_the_style(names, n_bins):
    built = build_content(run_of({"UNet": many()}, channel_names=names), OPTIONS)
    axes = next(f for f in built.figures if f.stem == "distance_decay").figure.axes[0]
    assert max(len(line.get_xdata()) for line in axes.lines) == n_bins
    paper = build_content(run_of({"UNet": many()}, channel_names=names), replace(OPTIONS, style="paper"))
    axes = next(f for f in paper.figures if f.stem == "distance_decay").figure.axes[0]
    assert max(len(line.get_xdata()) for line in axes.lines) == 15
    axes = next(f for f in paper.figures if f.stem == "lag_profile").figure.axes[0]
    assert max(line.get_xdata()[-1] for line in axes.lines if line.get_xdata()[0] < 0) <= 8
    aggregated = next(t for t in paper.tables if t.title == "Settings").rows
    assert any(f"lags to {T - 1}" == cell.rsplit(", ", 1)[-1] for row in aggregated for cell in row)


def test_channel_blocks_only_where_they_cover_all_channels():
    shares = ("smse:u", "smse:v")
    results = {"UNet": [pairs(shares, shares)]}
    options = replace(OPTIONS, response="smse:u", perturbation="smse:u")
    whole, part = (build_content(run_of(results, channel_names=c), options) for c in (("u", "v"), ("u", "v", "w")))
    (drawn,) = (f for f in whole.figures if f.stem == "channel_resolved_UNet")
    assert "the sum of all blocks is H over its mean self-influence" in drawn.caption
    assert not [f for f in part.figures if f.stem.startswith("channel_resolved")]


def test_what_the_solves_leave_open_counts_like_an_interval():
    known = Estimate(0.9, 0.85, 0.95, bound_low=0.8, bound_high=1.0)
    assert known.side(0.5) == 1
    assert not known.is_blurred(0.5)
    open_one = Estimate(0.9, 0.85, 0.95, bound_low=0.4, bound_high=1.0)
    assert open_one.span == pytest.approx((0.35, 1.05))
    assert open_one.side(0.5) == 0
    assert open_one.is_blurred(0.5)
    assert Estimate(0.9, bound_low=0.6, bound_high=1.0).side(0.5) == 1, "without an interval the bounds stand alone"
    assert known.apart(Estimate(0.7, 0.65, 0.74)) == 1
    assert known.apart(Estimate(0.7, 0.65, 0.75, bound_low=0.6, bound_high=0.82)) == 0
    assert Estimate(0.9).side(0.5) == 1
    assert (bounds(known), bounds(Estimate(0.9))) == ("0.80 … 1.00", "")
    assert bounds(Estimate(INF, bound_low=INF, bound_high=INF), 1, 11) == "> 11"
    assert bounds(Estimate(3, bound_low=2.51, bound_high=INF), 1, 11) == "2.5 … > 11"


def test_a_reading_that_the_solves_leave_open_asks_for_a_smaller_tolerance():
    summary = summary_of(class_locking=Quantity(Estimate(0.9, 0.85, 0.95, KIND, bound_low=0.3, bound_high=1.2)))
    assert "is undecided (class locking 0.90)" in wording.headline(summary)
    assert "smaller `tol`" in wording.meaning(summary)
    assert "More seeds" not in wording.meaning(summary)
    assert "within the error of the solves 0.30 … 1.20" in wording.value_text(summary.class_locking, summary, False)
    narrow = replace(summary.class_locking, trained=Estimate(0.5, 0.3, 0.7, KIND, bound_low=0.45, bound_high=0.49))
    assert "More seeds" in wording.meaning(replace(summary, class_locking=narrow))


def test_a_reading_is_stable_only_where_the_solves_leave_it():
    sure = curve([2] * 5)
    assert reading_range(sure, 1e-2).decades == pytest.approx(4)
    blurred = replace(sure, bound_low=np.array([0.5, 1.5, 1.5, 1.5, 1.5]), bound_high=np.full(5, 3.0))
    assert reading_range(blurred, 1e-2).decades == pytest.approx(3)


def test_the_summary_of_solved_matrices_shows_what_the_solves_leave(tmp_path):
    results = {"UNet": [with_error(r, 1e-2) for r in many(path=True)]}
    content = build_content(run_of(results), ReportOptions(n_bootstrap=100, n_bootstrap_path=20))
    locking = content.summaries[0].class_locking.trained
    assert locking.bound_low < locking.value < locking.bound_high
    cells = {row[0]: row[1] for row in content.tables[0].rows}
    assert f"({bounds(locking)})" in cells["class locking"]
    text, _ = read(content, tmp_path)
    assert f"within the error of the solves {bounds(locking)}" in text


def with_error(result, share):
    bound = share * np.abs(result.values)
    return replace(result, error_bound=bound, row_error=np.linalg.norm(bound, axis=-1))


def test_a_difference_that_the_solves_may_have_made_is_no_difference():
    trained = Estimate(0.9, 0.85, 0.95, KIND, bound_low=0.88, bound_high=0.92)
    control = Estimate(0.3, 0.2, 0.4, KIND, bound_low=-1.0, bound_high=0.9)
    summary = summary_of(class_locking=Quantity(trained, control))
    said = wording.untrained_text(summary.class_locking, summary, False)
    assert "differs from the untrained network's (0.30 [0.20, 0.40]), but the error of the solves" in said
    assert "`control_tol`" in said
    sharp = replace(summary.class_locking, untrained=replace(control, bound_low=0.25, bound_high=0.35))
    assert wording.untrained_text(sharp, summary, False).startswith("Training raised the class locking")
    other = replace(summary, name="ViT", class_locking=Quantity(control))
    assert "UNet and ViT cannot be told apart by class locking: the error of the solves" in wording.comparison(
        [summary, other]
    )[-1]
