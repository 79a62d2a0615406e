"""The page is well formed, escapes every name, loads nothing, and is the same every time."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.study import html
from audiotag_jax.study.media import Media
from audiotag_jax.study.report import describe_network
from audiotag_jax.study.results import Clips, Results, VariantLogits
from audiotag_jax.study.statistics import study_scores
from configs import log_db

HOSTILE = ('</script><script>alert("1")</script>', "\"><img src=x onerror='alert(2)'>", "a & b --> ]]> \x00\x1b")
VARIANTS = ("log_db", "mix", "</option></select><i>&amp;", "waveform")
SCORES = ("top3_error", "accuracy", "map_at_3")
VOID = {"meta", "img", "br", "input", "link", "hr"}
NUM_CLIPS = 9


def results(*, test=False):
    rng = np.random.default_rng(0)
    ids = np.array([f"{i}<b onclick=x>'\".wav" for i in range(NUM_CLIPS)])
    clips = Clips(ids, np.arange(NUM_CLIPS) % 3, np.arange(NUM_CLIPS) > 2, np.zeros(NUM_CLIPS, int))
    variants = []
    for name in VARIANTS:
        logits = rng.normal(size=(2, NUM_CLIPS, 3)).astype(np.float32)
        variants.append(VariantLogits(name, (0, 1), logits, logits[:, None] if test else None))
    return Results(HOSTILE, clips, clips if test else None, tuple(variants))


def scores(part="held out", clips=("all", "verified")):
    score = {"value": 0.25, "low": 0.125, "high": 0.5}
    rows, differences = [], []
    for kind in clips:
        for i, name in enumerate(VARIANTS):
            each = {key: score | {"value": 0.25 + 0.01 * i} for key in SCORES}
            row = {"name": name, "kind": "single", "variants": [name], "seeds": [0, 1], "part": part, "clips": kind}
            row |= {
                "num_clips": NUM_CLIPS,
                "num_recordings": NUM_CLIPS - 1,
                "scores": each,
                "by_seed": {key: [0.25, 0.375] for key in SCORES},
                "by_fold": {},
            }
            rows.append(row | {"spread_over_seeds": dict.fromkeys(SCORES, 0.0625)})
        rows.append(rows[0] | {"name": "all of <them>", "kind": "variants", "by_seed": {}, "spread_over_seeds": None})
        for name in VARIANTS[1:]:
            for key in SCORES:
                difference = {"variant": name, "baseline": VARIANTS[0], "part": part, "clips": kind, "score": key}
                difference |= {"value": -0.0625, "low": -0.125, "high": 0.25, "standard_error": 0.1}
                difference |= {"p_bootstrap": 0.01}
                difference |= {"p_bootstrap_holm": 0.03, "p_mcnemar": None, "p_mcnemar_holm": None, "discordant": None}
                differences.append(difference)
    shared = {"baseline": VARIANTS[0], "classes": list(HOSTILE), "num_resamples": 100}
    return shared | {"rows": rows, "differences": differences}


def media(ids):
    rng = np.random.default_rng(1)
    mel, log = np.linspace(0.0, 4000.0, 16) ** 1.01, np.geomspace(40.0, 4000.0, 16)
    images = {
        name: {clip: rng.random((12, 16, channels)).astype(np.float16) for clip in ids}
        for name, channels in zip(VARIANTS[:3], (1, 3, 1), strict=True)
    }
    axes = {VARIANTS[0]: log, VARIANTS[1]: np.stack([mel, mel, log]), VARIANTS[2]: mel}
    return Media(8000, 0.5, {clip: rng.normal(size=4000).astype(np.float32) / 8 for clip in ids}, images, axes)


def page(given=None, table=None):
    about = [("data <b>", HOSTILE[0])]
    curves = {name: np.array([[10.0, 2.0], [20.0, 1.0]]) for name in VARIANTS}
    return html.page(given or results(), table or scores(), about, curves, media, title=HOSTILE[1])


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text; raises where tags do not close as they opened."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text, self.inside = [], [], "", {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text += data
        self.inside[self.open[-1] if self.open else ""] = self.inside.get(self.open[-1] if self.open else "", "") + data

    def of(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def parsed():
    return Page(page())


@pytest.mark.parametrize("test", [False, True])
def test_real_scores_of_several_seeds_have_all_their_rows(test):
    given = results(test=test)
    table = study_scores(given, "log_db", dict.fromkeys(given.held_out.ids.tolist(), "Public"), num_resamples=50)
    assert {row["kind"] for row in table["rows"]} >= {"single", "seeds", "variants"}
    text = Page(page(given, table)).text
    assert all(" ".join(row["name"].split()) in " ".join(text.split()) for row in table["rows"])
    for score, name in (("top3_error", "Top-3 error"), ("accuracy", "Accuracy"), ("map_at_3", "MAP@3")):
        row = table["rows"][0]
        values = ", ".join(f"{value:.3f}" for value in row["by_seed"][score])
        assert f"{name} by seed" in text and f"{values} ({row['spread_over_seeds'][score]:.3f})" in text


def test_the_page_is_well_formed_and_every_reference_within_it_resolves(parsed):
    ids = parsed.of("id")
    assert len(ids) == len(set(ids))
    references = parsed.of("for") + parsed.of("aria-labelledby")
    references += [address[1:] for address in parsed.of("href") if address.startswith("#")]
    assert len(references) > 15 and set(references) <= set(ids)
    assert {"scores", "differences", "curves", "confusion", "classes", "clips", "mistakes", "about"} <= set(ids)


def test_pictures_and_players_are_described(parsed):
    drawings = [attributes for tag, attributes in parsed.elements if tag in ("svg", "audio", "img")]
    assert len([each for each in drawings if each.get("role") == "img"]) > 10
    assert all(each.get("aria-label") or each.get("alt") for each in drawings)
    scrolling = [attributes for _, attributes in parsed.elements if "scroll" in attributes.get("class", "").split()]
    assert all(each.get("tabindex") == "0" and each.get("aria-label") for each in scrolling)


def test_names_from_users_are_text_and_nothing_else(parsed):
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 1 and "img" not in tags and "i" not in tags and tags.count("select") == 2
    assert not any(name.startswith("on") or name == "style" for _, attributes in parsed.elements for name in attributes)
    for name in (*HOSTILE[:2], VARIANTS[2], "0<b onclick=x>'\".wav", "data <b>"):
        assert name in parsed.text, name
    assert set(VARIANTS) <= set(parsed.of("value"))  # the choosers' options, as scripts read them
    assert set(VARIANTS) == set(parsed.of("data-variant"))


def test_nothing_is_loaded_and_nothing_but_the_pages_own_script_and_style_may_run(parsed):
    text = page()
    assert re.findall(r"[a-z]+://[^\s\"'<]*", text.replace("http://www.w3.org/2000/svg", "")) == []
    addresses = parsed.of("src") + parsed.of("href")
    assert all(re.match("data:(image/png|audio/(mpeg|wav));base64,|#", address) for address in addresses)
    policy = next(each["content"] for _, each in parsed.elements if "http-equiv" in each)
    assert policy.startswith("default-src 'none'")
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.inside[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_same_inputs_give_the_same_file_even_with_names_that_are_not_unicode(tmp_path):
    given = results()
    given.held_out.ids[0] = "\udcff.wav"
    for name in ("a.html", "b.html"):
        html.write_html(tmp_path / name, given, scores(), [], {}, media, title="one")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "?.wav" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_tables_hold_the_scores_and_the_differences(parsed):
    assert "0.250 [0.125, 0.500]" in parsed.text and "0.250, 0.375 (0.062)" in parsed.text
    assert "−0.062 [−0.125, +0.250]" in parsed.text
    assert "Held-out clips of the cross-validation, verified clips: 9" in parsed.text


def test_scored_test_clips_are_looked_at_where_there_are_any():
    asked = []

    def recorded(ids):
        asked.extend(ids)
        return media(ids)

    given = results(test=True)
    given.test.labels[:4] = -1
    text = html.page(given, scores("test", ("all",)), [], {}, recorded, title="one")
    assert set(asked) <= set(given.test.ids[4:].tolist()) and "Test set, all clips" in Page(text).text


def test_the_chosen_score_and_its_plot_come_first_and_every_other_has_its_heading():
    table = scores() | {"score": "accuracy"}
    parsed = Page(page(table=table))
    before, _, after = parsed.text.partition("Each value with its")
    assert "Accuracy is highest for" in before and "difference in accuracy to log_db" in before
    assert "MAP@3 is highest" not in before and "verified" not in before
    for name in ("Top-3 error", "MAP@3"):
        assert f"{name}: Held-out clips, all {NUM_CLIPS}" in after
    for name in ("Top-3 error", "Accuracy", "MAP@3"):
        assert f"{name}: Held-out clips, the {NUM_CLIPS} verified ones" in after


def test_marks_lie_on_one_scale_where_their_values_are():
    """In percent of the width: the point between its limits in proportion, and 0 at one place in all plots."""
    parsed = Page(page())
    points = [float(each["cx"][:-1]) for tag, each in parsed.elements if tag == "circle"]
    lines = [each for tag, each in parsed.elements if tag == "line"]
    limits = [(float(each["x1"][:-1]), float(each["x2"][:-1])) for each in lines if each["class"] == "limits"]
    zeros = {each["x1"] for each in lines if each["class"] == "zero"}
    assert len(points) == len(limits) == 6 * len(VARIANTS[1:]) and len(zeros) == 1
    for point, (low, high) in zip(points, limits, strict=True):
        assert (point - low) / (high - low) == pytest.approx(0.0625 / 0.375, abs=1e-3) and 0 < low < high < 100
    [zero] = zeros
    assert (float(zero[:-1]) - limits[0][0]) / (limits[0][1] - limits[0][0]) == pytest.approx(0.125 / 0.375, abs=1e-3)


def test_without_sounds_and_images_the_page_states_so():
    without = html.page(results(), scores(), [], {}, lambda ids: Media(0, 0.0, {}, {}, {}), title="one")
    parsed = Page(without)
    assert "no images, no audio players" in parsed.text and not parsed.of("src") and "<audio" not in without
    assert without.count("<article") > 1 and html.NO_MEDIA not in Page(page()).text


def test_one_variant_alone_has_a_page_too():
    given, table = results(), scores()
    table |= {"differences": [], "rows": [row for row in table["rows"] if row["name"] == VARIANTS[0]]}
    alone = Results(given.classes, given.held_out, None, given.variants[:1])
    assert "nothing to compare" in Page(page(alone, table)).text


def test_the_page_stays_within_its_bounds(monkeypatch):
    whole = page()
    monkeypatch.setattr(html, "MAX_BYTES", 1)
    monkeypatch.setattr(html, "MAX_COMPARED_BYTES", 1)
    least = page()
    assert whole.count("<article") > 3 and least.count("<article") == 1
    assert whole.count("<audio") - whole.count("<article") == 3 and least.count("<audio") == 2


def test_a_page_names_no_folders_of_weights():
    model = dataclasses.replace(parse_settings(log_db.get_config("esc50_probe")).model, pretrained="/home/me/lite0.pth")
    assert describe_network(model)[0] == ("network", "efficientnet_lite0, from lite0.pth")
