"""`across.html`, `.md` and `.svg`: what several data sets show together, as sentences, a forest plot and tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from markupsafe import escape as escape_html

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study import colours, html
from audiotag_jax.study import forest as forest_plots
from audiotag_jax.study.across import CONTRAST
from audiotag_jax.study.across_chart import forest
from audiotag_jax.study.charts import signed
from audiotag_jax.study.figures import standalone
from audiotag_jax.study.markdown import escape, interval, table
from audiotag_jax.study.naming import p_text
from audiotag_jax.study.report import write_text

TITLE = "Studies over data sets"
METHODS = (
    "Each data set is a study of its own: differences are paired by clip, their intervals and standard errors are "
    "those of the bootstrap over recordings ({num_resamples:,} resamples). *These data sets* is their mean with equal "
    "weights, which extends to no other data set. *Random effects* takes the data sets as a sample of those there "
    "might be: τ, the standard deviation of true differences between data sets, by Paule and Mandel, the interval by "
    "Hartung and Knapp, never narrower than without heterogeneity; with a few data sets little can be shown so. "
    "*Equivalent*: two one-sided tests exclude differences of {margin:g} or more either way. All p values are "
    "corrected by Holm's method over the variants. *Prediction*: 95 % limits of the true difference in another data "
    "set of such a kind; with three data sets they are all but unbounded."
)
KINDS = (
    "The kind is that of the class, from two descriptors of its clips' sounds averaged over the class: the harmonic "
    "share of the energy and the spectral flatness within octaves. No label of a clip and no network enters. Intervals "
    "are not corrected; the test of whether a difference depends on the kind is the slope below: of the classes' "
    "differences on their harmonic shares (0 for clicks, near 1 for steady sounds), data set by data set around its "
    "own mean, by permuting the shares among the classes of a data set."
)


class Table(NamedTuple):
    """Cells as text, neither Markdown nor HTML."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """Paragraphs (str), bullets (list of str) and tables below a title."""

    title: str
    blocks: Sequence[str | list[str] | Table]


def write(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]], workdir: Path) -> None:
    """Writes the report of the dict of `across`, with pairs of what and how of each data set."""
    plot = forest(found)
    if plot is not None:
        write_text(workdir / "across.svg", standalone(plot))
    write_text(workdir / "across.md", report(found, about, plot="across.svg" if plot is not None else ""))
    write_text(workdir / "across.html", page(found, about, plot))


def report(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]], *, plot: str = "") -> str:
    """The Markdown text."""
    lines = [f"# {TITLE}", "", *(f"- {sentence}" for sentence in sentences(found)), ""]
    if plot:
        lines += [f"![{_caption(found)}]({plot})", ""]
    for section in sections(found, about):
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            if isinstance(block, Table):
                lines += table(map(escape, block.header), [[escape(cell) for cell in row] for row in block.rows])
            else:
                lines += [block, ""] if isinstance(block, str) else [*(f"- {escape(each)}" for each in block), ""]
    return "\n".join(lines).rstrip() + "\n"


def page(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]], plot: Markup | None) -> str:
    """The same as a page of one file."""
    emphasized = [
        section._replace(blocks=[_emphasized(block) if isinstance(block, str) else block for block in section.blocks])
        for section in sections(found, about)
    ]
    first, *others = _forests(found) or [None]
    return html.template("across.html.jinja").render(
        theme_css=colours.theme_css(),
        title=TITLE,
        sentences=sentences(found),
        first=first,
        others=others,
        plot=plot,
        caption=_caption(found),
        sections=emphasized,
        leading_number=leading_number,
    )


def _forests(found: Mapping) -> list[dict]:
    """What the macro `forest` draws: the means over data sets if there are any, then each data set, on one scale."""
    by_dataset = {name: each["differences"] for name, each in found["datasets"].items() if each["differences"]}
    pooled = [each for each in found["pooled"] if len(each["datasets"]) > 1]
    shown = [*(d for each in by_dataset.values() for d in each), *(each["fixed"] for each in pooled)]
    if not shown:
        return []
    title, limits = f"difference in {found['score']} to {found['baseline']}", forest_plots.limits_of(shown)
    plots = []
    if pooled:
        rows = [(each["variant"], each["fixed"], differs(each)) for each in pooled]
        plots.append(forest_plots.plot(rows, f"{title}, mean of {', '.join(pooled[0]['datasets'])}", limits))
    for name, differences in by_dataset.items():
        rows = [(each["variant"], each, each["p_bootstrap_holm"] < LEVEL) for each in differences]
        plots.append(forest_plots.plot(rows, f"{title} in {name}", limits))
    return plots


def leading_number(cell: str) -> float | None:
    """The number that a cell begins with, to sort by; NaN of an empty one, None of text."""
    found = re.match(r"([+−]?)([\d,]*\.?\d+)", cell)
    if found is None:
        return float("nan") if cell == "–" else None
    return float(found[2].replace(",", "")) * (-1 if found[1] == "−" else 1)


def _emphasized(text: str) -> Markup:
    return Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", str(escape_html(text))))  # noqa: S704


def _caption(found: Mapping) -> str:
    return f"Differences in {found['score']} to {found['baseline']}, by data set and pooled"


def sections(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]]) -> list[Section]:
    """All tables of the report, and what they mean."""
    baseline = found["baseline"]
    listed = [Section("Data sets", [_datasets(found, about)]), Section(found["score"].title(), [_accuracy(found)])]
    if found["pooled"]:
        listed.append(Section(f"Differences to {baseline}, pooled", [_pooled(found)]))
    for name, each in found["datasets"].items():
        if each["differences"]:
            listed.append(Section(f"Differences to {baseline} in {name}", [_differences(each)]))
    if found["kinds"]:
        listed.append(Section("By kind of sound", _kinds(found)))
    methods = METHODS.format(num_resamples=found["num_resamples"], margin=found["margin"])
    return [*listed, Section("How to read the figures", [methods])]


def sentences(found: Mapping) -> list[str]:
    """What the figures support, in sentences: differences, equivalence, what stays open, and the kinds of sound."""
    text = _pooled_sentences(found) if found["pooled"] else ["No other variant is finished on all data sets."]
    for name, each in found["datasets"].items():
        real = [d for d in each["differences"] if d["p_bootstrap_holm"] < LEVEL]
        amounts = ", ".join(f"{d['variant']} ({signed(d['value'], 3)})" for d in real)
        text.append(f"In {name}: {amounts or 'no variant'} can be distinguished from {found['baseline']}.")
    text += [_interaction_sentence(each) for each in found["interactions"] if each["contrast"] == CONTRAST]
    if found.get("left_out"):
        text.append(f"Not finished, and left out of what is pooled: {', '.join(found['left_out'])}.")
    return text


def _pooled_sentences(found: Mapping) -> list[str]:
    pooled, baseline = found["pooled"], found["baseline"]
    names = ", ".join(pooled[0]["datasets"])
    ways: dict[str, list[Mapping]] = {"better": [], "worse": [], "equivalent": [], "open": []}
    for each in pooled:
        way = "better" if each["fixed"]["value"] > 0 else "worse"
        if is_equivalent(each):
            ways["equivalent"].append(each)
        elif differs(each):
            ways[way].append(each)
        else:
            ways["open"].append(each)
    limits = sorted({f"{each['detectable'][1]:.3f}" for each in pooled})
    span = limits[0] if len(limits) == 1 else f"{limits[0]} to {limits[-1]}, depending on the variant,"
    text = [
        f"On the average of {names}, better than {baseline}: {_listed(ways['better'])}; "
        f"worse: {_listed(ways['worse'])}; equivalent within {found['margin']:g}: {_listed(ways['equivalent'])}; "
        f"open: {_listed(ways['open'])}.",
        f"A true difference of {span} would be found in four of five such studies after the correction.",
    ]
    if len(pooled[0]["datasets"]) > 1:
        general = [each for each in pooled if each["random"]["p_holm"] < LEVEL]
        largest = max(pooled, key=lambda each: each["tau2"])
        text += [
            "For other data sets of such kinds (random effects) a difference is shown for: "
            f"{_listed(general, 'random')}.",
            f"The true differences vary most between data sets for {largest['variant']}: a standard deviation of "
            f"{largest['tau2'] ** 0.5:.3f} (I² {100 * largest['i2']:.0f} %).",
        ]
    return text


def differs(each: Mapping) -> bool:
    """Whether the mean over these data sets is distinguished from 0, after correction."""
    return each["fixed"]["p_holm"] < LEVEL


def is_equivalent(each: Mapping) -> bool:
    """Whether a mean over these data sets as large as the margin is excluded, after correction."""
    return each["fixed"]["p_equivalence_holm"] < LEVEL


def _listed(some: Sequence[Mapping], key: str = "fixed") -> str:
    return ", ".join(f"{each['variant']} ({signed(each[key]['value'], 3)})" for each in some) or "none"


def _interaction_sentence(each: Mapping) -> str:
    depends = each["p"] < LEVEL
    way = "as expected, better for clicks" if each["slope"] < 0 else "against expectation, better for steady sounds"
    result = f"a small q is, {way}" if depends else "it is not shown that the best q depends on the kind of sound"
    return (
        f"Small q against large q: {result} (slope {signed(each['slope'], 3)} from clicks to steady sounds, "
        f"{each['num_classes']} classes, p {_p(each['p'])})."
    )


def _datasets(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]]) -> Table:
    header = ("data set", "clips", "classes", "recordings", "folds", "pooled", "how")
    rows = []
    for name, each in found["datasets"].items():
        how = "; ".join(f"{what}: {value}" for what, value in about.get(name, ()) if what not in ("data", "folds"))
        sizes = (f"{each[key]:,}" for key in ("num_clips", "num_classes", "num_recordings", "num_folds"))
        rows.append([name, *sizes, "yes" if each["pooled"] else "no", how])
    return Table(header, rows)


def _accuracy(found: Mapping) -> Table:
    datasets = found["datasets"]
    names = dict.fromkeys(name for each in datasets.values() for name in each["variants"])
    rows = [
        [
            name,
            *(interval(each["variants"][name]) if name in each["variants"] else "–" for each in datasets.values()),
        ]
        for name in names
    ]
    return Table(("variant", *datasets), rows)


def _pooled(found: Mapping) -> Table:
    tested = ("p", "equivalent (p)")
    header = ("variant", "these data sets", *tested, "random effects", *tested, "τ", "I²", "prediction")
    rows = []
    for each in found["pooled"]:
        limits = each["prediction"]
        prediction = "–" if limits is None else f"{signed(limits[0], 3)} to {signed(limits[1], 3)}"
        of_random, of_fixed = (
            [interval(each[key], "+"), _p(each[key]["p_holm"]), _equivalent(each[key])] for key in ("random", "fixed")
        )
        spread = [f"{each['tau2'] ** 0.5:.3f}", f"{100 * each['i2']:.0f} %", prediction]
        rows.append([each["variant"], *of_fixed, *of_random, *spread])
    return Table(header, rows)


def _differences(each: Mapping) -> Table:
    header = ("variant", "difference", "p", "equivalent (p)", "found half of the time", "in four of five")
    rows = [
        [
            d["variant"],
            interval(d, "+"),
            _p(d["p_bootstrap_holm"]),
            _equivalent(d),
            *(f"{size:.3f}" for size in d["detectable"]),
        ]
        for d in each["differences"]
    ]
    return Table(header, rows)


def _kinds(found: Mapping) -> list[str | list[str] | Table]:
    kinds = {kind: each for kind, each in found["kinds"].items() if each["classes"]}
    contrasts = dict.fromkeys(d["contrast"] for each in kinds.values() for d in each["differences"])
    rows = []
    for contrast in contrasts:
        cells = []
        for each in kinds.values():
            own = [d for d in each["differences"] if d["contrast"] == contrast]
            cells.append(interval(own[0], "+") if own else "–")
        rows.append([contrast, *cells])
    heads = [f"{kind} ({len(each['classes'])} classes)" for kind, each in kinds.items()]
    tests = [
        [e["contrast"], signed(e["slope"], 3), signed(e["correlation"], 2), _p(e.get("p_holm", e["p"]))]
        for e in found["interactions"]
    ]
    return [
        Table(("difference", *heads), rows),
        KINDS,
        Table(("difference", "slope on the harmonic share", "correlation over classes", "p"), tests),
        [f"{kind}: {', '.join(each['classes'])}" for kind, each in kinds.items()],
    ]


def _equivalent(each: Mapping) -> str:
    p = each["p_equivalence_holm"]
    return f"{'yes' if p < LEVEL else 'no'} ({_p(p)})"


def _p(p: float) -> str:
    return p_text(p)
