"""Charts tell what they were given: marks lie where their values are, in colours that can be read."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from audiotag_jax.study import plots, svg

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ('"<&>\x00', "hires_q8", "mel_db")


def difference(variant, value, p):
    interval = {"value": value, "low": value - 0.02, "high": value + 0.03}
    tests = {"p_bootstrap_holm": p, "p_mcnemar_holm": None, "discordant": None}
    return {"variant": variant, "score": "accuracy", **interval, **tests}


def drawn(drawing):
    """The root of a chart's file; raises where that is not XML."""
    return ElementTree.fromstring(svg.standalone(drawing))


def test_a_forest_plot_marks_differences_on_one_scale_and_fills_what_is_sure():
    rows = [difference(NAMES[0], -0.01, 0.049), difference(NAMES[1], 0.03, 0.051), difference(NAMES[2], 0.01, None)]
    root = drawn(plots.forest_plot(rows, score="accuracy", baseline="<b>", lower_is_better=False))
    marks = root.findall(f".//{SVG}circle")
    x = [float(mark.get("cx")) for mark in marks]
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(2.0, abs=1e-3)
    zero = next(path for path in root.iter(f"{SVG}path") if path.get("class") == "zero").get("d")
    assert float(zero[1:].split()[0]) == pytest.approx(x[0] + (x[1] - x[0]) / 4, abs=0.06)
    assert ["hollow" in mark.get("class") for mark in marks] == [False, True, True]
    assert "−0.010 [−0.030, +0.020]" in [text.text for text in root.iter(f"{SVG}text")]
    with pytest.raises(ValueError, match="one difference or more"):
        plots.forest_plot([], score="accuracy", baseline="log_db", lower_is_better=False)


def test_a_forest_for_every_score_that_has_values_each_with_its_own_better_side():
    rows = [difference(NAMES[1], 0.1, 0.01), difference(NAMES[2], 0.1, None) | {"value": None}]
    rows += [rows[0] | {"score": "top3_error"}, rows[1] | {"score": "map_at_3"}]
    forests = plots.forest_plots(rows, baseline="log_db")
    assert list(forests) == ["top3_error", "accuracy"]
    sides = {score: [text.text for text in drawn(each).iter(f"{SVG}text")][:2] for score, each in forests.items()}
    assert sides == {"top3_error": ["← better", "worse →"], "accuracy": ["← worse", "better →"]}
    assert all(len(drawn(each).findall(f".//{SVG}circle")) == 1 for each in forests.values())


def test_curves_pass_through_their_points_and_leave_out_what_is_not_finite():
    curves = {"a<": np.array([[0.0, 4.0], [50.0, np.nan], [100.0, 0.0]]), "b": np.array([[0.0, 2.0], [100.0, 1.0]])}
    root = drawn(plots.learning_curves(curves, baseline="b"))
    lines = [path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "one"]
    points = [[tuple(map(float, point.split())) for point in line[1:].split("L")] for line in lines]
    height, width = points[0][1][1], points[0][1][0]
    assert points == [[(0.0, 0.0), (width, height)], [(0.0, height / 2), (width, 0.75 * height)]]
    with pytest.raises(ValueError, match="finite"):
        plots.learning_curves({"a": np.array([[0.0, np.nan]])}, baseline="a")


def test_a_curve_of_one_step_is_a_dot():
    root = drawn(plots.learning_curves({"a": np.array([[7.0, 1.5]])}, baseline="a"))
    [line] = [each.get("d") for each in root.iter(f"{SVG}path") if each.get("class") == "one"]
    assert line.endswith("h0")
    [style] = [each.text for each in root.iter(f"{SVG}style")]
    assert "stroke-linecap:round" in style


def test_long_curves_are_averaged():
    steps = np.arange(12_000.0)
    root = drawn(plots.learning_curves({"a": np.stack([steps, steps % 2], axis=1)}, baseline="a"))
    line = next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "one")
    assert line.count("L") == 119 and len({point.split()[1] for point in line[1:].split("L")}) == 1


@pytest.mark.parametrize("num_classes", [3, 41])
def test_a_confusion_matrix_draws_a_cell_for_every_share(num_classes):
    names = [f"{NAMES[0]}{k}" for k in range(num_classes)]
    shares = np.eye(num_classes)
    shares[0, :2] = 0.75, 0.25
    shares[1] = np.nan  # a class without clips
    root = drawn(plots.confusion_plot(shares, np.full(num_classes, 4), names, variant="x<y"))
    cells = [cell for cell in root.iter(f"{SVG}rect") if cell.get("class")]
    assert len(cells) == num_classes
    titles = [cell.find(f"{SVG}title").text for cell in cells]
    assert f"{names[0]} → {names[1]}: 25\u00a0% of 4".replace("\x00", "\ufffd") in titles
    assert len({cell.get("x") for cell in cells}) == num_classes
    assert cells[0].get("class") == "l9" and cells[1].get("class") == "l5"  # the square roots of 0.75 and 0.25


def test_every_text_has_the_contrast_that_wcag_asks_for():
    assert svg.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert svg.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # published for this well-known pair
    for name in ("light", "dark"):
        colours = svg.theme(name)
        pairs = [(colours[key], colours["bg"]) for key in ("fg", "muted", "accent")]
        pairs += [(colours[f"t{i}"], colours[f"l{i}"]) for i in range(svg.NUM_LEVELS)]
        assert min(svg.contrast(*pair) for pair in pairs) >= 4.5, name


def test_ticks_are_round_and_few():
    assert svg.round_ticks(0.0, 5.0, 6) == [0, 1, 2, 3, 4, 5]
    assert svg.round_ticks(-0.013, 0.036, 7) == [-0.01, 0.0, 0.01, 0.02, 0.03]
    assert svg.round_ticks(0.0, 11025.0, 7) == [0, 2000, 4000, 6000, 8000, 10000]
    assert svg.round_ticks(3.0, 3.0, 4) == [3.0]


def test_numbers_are_written_as_people_read_them():
    assert [plots.signed(x, 2) for x in (0.126, -0.5, -0.001, None)] == ["+0.13", "−0.50", "0.00", "–"]
    assert [plots.percent(x) for x in (0.125, 1.0, float("nan"))] == ["12.5\u00a0%", "100\u00a0%", "–"]
    assert [svg.number(x) for x in (2.0, 0.126, -3.5, 100)] == ["2", "0.13", "-3.5", "100"]
