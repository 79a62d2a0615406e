"""Charts show what they are given: marks lie where their values are, in colours that can be read."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from audiotag_jax.evaluation import metrics
from audiotag_jax.study import charts, colours, figures, pictures

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ('"<&>\x00', "hires_q8", "mel_db")


def difference(variant, value, p):
    interval = {"value": value, "low": value - 0.02, "high": value + 0.03}
    tests = {"p_bootstrap_holm": p, "p_mcnemar_holm": None, "discordant": None}
    return {"variant": variant, "score": "accuracy", **interval, **tests}


def drawn(drawing):
    """The root of a chart's file; raises where that is not XML."""
    return ElementTree.fromstring(figures.standalone(drawing))


def titled(root, kind):
    """The elements of a class, which have a title."""
    return [each for each in root.iter() if each.get("class") == kind and each.find(f"{SVG}title") is not None]


def points(path):
    """[n, 2] of a path's corners."""
    return np.array([[float(number) for number in pair.split()] for pair in path.get("d")[1:].split("L")])


def test_a_forest_plot_marks_differences_on_one_scale_and_fills_what_is_sure():
    rows = [difference(NAMES[0], -0.01, 0.049), difference(NAMES[1], 0.03, 0.051), difference(NAMES[2], 0.01, None)]
    accuracy = metrics.METRICS[1]
    root = drawn(charts.forest_plot(rows, accuracy, baseline="<b>"))
    marks = titled(root, "mark")
    x = [float(mark.get("transform").removeprefix("translate(").split()[0]) for mark in marks]
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(2.0, abs=2e-3)
    [zero] = titled(root, "zero")
    assert points(zero)[0, 0] == pytest.approx(x[0] + (x[1] - x[0]) / 4, abs=0.11)
    first = points(titled(root, "range")[0])
    assert np.ptp(first[:, 0]) / (x[1] - x[0]) == pytest.approx(0.05 / 0.04, rel=5e-3)
    assert [mark.get("fill") for mark in marks] == ["var(--accent)", "var(--bg)", "var(--bg)"]
    texts = [text.text or text.find(f"{SVG}title").tail for text in root.iter(f"{SVG}text")]
    assert "−0.010 [−0.030, +0.020]" in texts and "difference in accuracy to <b>" in texts
    assert any("\ufffd" in (text or "") for text in texts)  # what XML forbids
    with pytest.raises(ValueError, match="one difference or more"):
        charts.forest_plot([], accuracy, baseline="log_db")


def test_a_forest_for_every_score_that_has_values_each_with_its_own_better_side():
    rows = [difference(NAMES[1], 0.1, 0.01), difference(NAMES[2], 0.1, None) | {"value": None}]
    rows += [rows[0] | {"score": "top3_error"}, rows[1] | {"score": "map_at_3"}]
    forests = charts.forest_plots(rows, baseline="log_db")
    assert list(forests) == ["top3_error", "accuracy"]
    texts = {name: {text.text for text in drawn(each).iter(f"{SVG}text")} for name, each in forests.items()}
    assert texts["top3_error"] >= {"← better", "worse →"} and texts["accuracy"] >= {"← worse", "better →"}
    assert all(len(titled(drawn(each), "mark")) == 1 for each in forests.values())


def test_curves_pass_through_their_points_and_leave_out_what_is_not_finite():
    curves = {"a<": np.array([[0.0, 4.0], [50.0, np.nan], [100.0, 0.0]]), "b": np.array([[0.0, 2.0], [100.0, 1.0]])}
    first, second = (points(line) for line in titled(drawn(charts.learning_curves(curves, baseline="b")), "one"))
    (left, top), (right, bottom) = first
    height = bottom - top
    np.testing.assert_allclose(second[:, 1] - top, [height / 2, 0.75 * height], atol=0.11)
    assert np.ptp(second[:, 0]) == pytest.approx(right - left, abs=0.11)
    with pytest.raises(ValueError, match="finite"):
        charts.learning_curves({"a": np.array([[0.0, np.nan]])}, baseline="a")


def test_a_curve_of_one_step_is_a_dot():
    root = drawn(charts.learning_curves({"a": np.array([[7.0, 1.5]])}, baseline="a"))
    [group] = titled(root, "one")
    assert any("translate(" in each.get("transform", "") for each in group.iter(f"{SVG}path"))


def test_long_curves_are_averaged():
    steps = np.arange(12_000.0)
    root = drawn(charts.learning_curves({"a": np.stack([steps, steps % 2], axis=1)}, baseline="a"))
    [line] = titled(root, "one")
    assert len(points(line)) <= 120 and np.ptp(points(line)[:, 1]) == 0


@pytest.mark.parametrize("num_classes", [3, 41])
def test_a_confusion_matrix_draws_a_cell_for_every_share(num_classes):
    names = [f"{NAMES[0]}{k}" for k in range(num_classes)]
    shares = np.eye(num_classes)
    shares[0, :2] = 0.75, 0.25
    shares[1] = np.nan  # a class without clips
    root = drawn(charts.confusion_plot(shares, np.full(num_classes, 4), names, variant="x<y"))
    cells = titled(root, "cell")
    assert len(cells) == num_classes
    titles = [cell.find(f"{SVG}title").text for cell in cells]
    assert f"{names[0]} → {names[1]}: 25\u00a0% of 4".replace("\x00", "\ufffd").replace("\xa0", " ") in titles
    assert len({points_of_cell(cell) for cell in cells}) == num_classes
    assert [cell.get("fill") for cell in cells[:2]] == ["var(--l9)", "var(--l5)"]  # the square roots of 0.75 and 0.25


def points_of_cell(cell):
    """The left edge of a cell."""
    return cell.get("d")[1:].split()[0]


def test_the_same_figures_give_the_same_drawing_without_ids_or_inline_style():
    rows = [difference(NAMES[1], 0.1, 0.01)]
    one, two = (str(charts.forest_plots(rows, baseline="log_db")["accuracy"]) for _ in range(2))
    assert one == two and " id=" not in one and "style=" not in one and "#" not in one
    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert charts.forest_plots(rows, baseline="log_db")["accuracy"] == one


def test_texts_have_their_size_and_weight_in_the_pages_font():
    texts = list(drawn(charts.forest_plots([difference("a", 0.1, 0.01)], baseline="b")["accuracy"]).iter(f"{SVG}text"))
    attributes = {"x", "y", "fill", "font-size", "font-weight", "text-anchor"}
    assert all(each.get("font-size") in ("10px", "11px", "12px") and each.attrib.keys() <= attributes for each in texts)
    assert [each.text for each in texts if each.get("font-weight") == "700"] == ["+0.100 [+0.080, +0.130]"]


def test_every_text_has_the_contrast_that_wcag_asks_for():
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert colours.contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.005
    )  # published for this well-known pair
    for name in ("light", "dark"):
        theme = colours.theme(name)
        pairs = [(theme[key], theme["bg"]) for key in ("fg", "muted", "accent")]
        pairs += [(theme[f"t{i}"], theme[f"l{i}"]) for i in range(colours.NUM_LEVELS)]
        assert min(colours.contrast(*pair) for pair in pairs) >= 4.5, name


def test_ticks_are_round_and_few():
    assert pictures.round_ticks(0.0, 5.0, 6) == [0, 1, 2, 3, 4, 5]
    assert pictures.round_ticks(-0.013, 0.036, 7) == [-0.01, 0.0, 0.01, 0.02, 0.03]
    assert pictures.round_ticks(0.0, 11025.0, 7) == [0, 2000, 4000, 6000, 8000, 10000]
    assert pictures.round_ticks(3.0, 3.0, 4) == [3.0]


def test_numbers_are_written_as_people_read_them():
    assert [charts.signed(x, 2) for x in (0.126, -0.5, -0.001, None)] == ["+0.13", "−0.50", "0.00", "–"]
    assert [charts.percent(x) for x in (0.125, 1.0, float("nan"))] == ["12.5\u00a0%", "100\u00a0%", "–"]


def test_a_confusion_matrix_of_many_classes_draws_the_most_frequent_cells(monkeypatch):
    monkeypatch.setattr(charts, "_MOST_CELLS", 30)
    shares = np.random.default_rng(0).dirichlet(np.ones(20), 20)
    names = [f"class {k}" for k in range(20)]
    cells = titled(drawn(charts.confusion_plot(shares, np.full(20, 1000), names, variant="x")), "cell")
    of_cells = [float(re.search(r": ([\d.]+)", cell.find(f"{SVG}title").text)[1]) for cell in cells]
    assert len(of_cells) == 30
    assert sorted(of_cells)[::-1] == pytest.approx(100 * np.sort(shares, axis=None)[::-1][:30], abs=0.051)
