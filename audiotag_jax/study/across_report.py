"""`across.html`, `.md` and `.svg`: what several data sets show together, as sentences, a forest plot and tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from markupsafe import escape as escape_html

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study import colours, html
from audiotag_jax.study import forest as forest_plots
from audiotag_jax.study.across import CONTRAST
from audiotag_jax.study.across_chart import forest
from audiotag_jax.study.across_tables import Table, is_pooled, sections
from audiotag_jax.study.charts import signed
from audiotag_jax.study.figures import standalone
from audiotag_jax.study.markdown import escape, table
from audiotag_jax.study.naming import p_text
from audiotag_jax.study.report import write_text

TITLE = "Studies over data sets"


def write(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]], workdir: Path) -> None:
    """Writes the report of the dict of `across`, with pairs of what and how of each data set."""
    plot = forest(found)
    if plot is not None:
        write_text(workdir / "across.svg", standalone(plot))
    write_text(workdir / "across.md", report(found, about, plot="across.svg" if plot is not None else ""))
    write_text(workdir / "across.html", page(found, about, plot))


def report(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]], *, plot: str = "") -> str:
    """Returns the report as Markdown, with the image at the path `plot`, if any."""
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
    """Returns the report as an HTML page of one file."""
    emphasized = [
        section._replace(blocks=[_emphasized(block) if isinstance(block, str) else block for block in section.blocks])
        for section in sections(found, about)
    ]
    forests = _forests(found)
    return html.template("across.html.jinja").render(
        theme_css=colours.theme_css(),
        title=TITLE,
        sentences=sentences(found),
        first=forests[0] if forests else None,
        others=forests[1:],
        plot=plot,
        caption=_caption(found),
        sections=emphasized,
        leading_number=leading_number,
    )


def _forests(found: Mapping) -> list[dict]:
    """Returns plots for the macro `forest`: the means over data sets, if any, then each data set, on one scale."""
    by_dataset = {name: each["differences"] for name, each in found["datasets"].items() if each["differences"]}
    pooled = found["pooled"] if is_pooled(found) else []
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
    """Returns the number that a cell begins with, to sort by: 0.001 of "< 0.001", NaN of an empty one, None of text."""
    found = re.match(r"(?:< )?([+−]?)([\d,]*\.?\d+)", cell)
    if found is None:
        return float("nan") if cell == "–" else None
    return float(found[2].replace(",", "")) * (-1 if found[1] == "−" else 1)


def _emphasized(text: str) -> Markup:
    return Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", str(escape_html(text))))  # noqa: S704


def _caption(found: Mapping) -> str:
    return f"Differences in {found['score']} to {found['baseline']}, by data set" + " and pooled" * is_pooled(found)


def sentences(found: Mapping) -> list[str]:
    """Returns what the figures support, in sentences: differences, equivalence, what stays open, kinds of sound."""
    text = _pooled_sentences(found) if found["pooled"] else []
    if not text and any(each["pooled"] for each in found["datasets"].values()):
        text = ["No other variant is finished on all data sets."]
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
    where = f"On the average of {names}" if is_pooled(found) else f"In {names}"
    text = [
        f"{where}, better than {baseline}: {_listed(ways['better'])}; "
        f"worse: {_listed(ways['worse'])}; equivalent within {found['margin']:g}: {_listed(ways['equivalent'])}; "
        f"open: {_listed(ways['open'])}.",
        f"A true difference of {span} would be found in four of five such studies after the correction.",
    ]
    return [*text, *heterogeneity(found)]


def heterogeneity(found: Mapping) -> list[str]:
    """Returns what can be concluded beyond these data sets, and how much these differ; empty of a single one."""
    if not is_pooled(found):
        return []
    general = [each for each in found["pooled"] if each["random"]["p_holm"] < LEVEL]
    largest = max(found["pooled"], key=lambda each: each["tau2"])
    return [
        f"For other data sets of such kinds (random effects) a difference is shown for: {_listed(general, 'random')}.",
        f"The true differences vary most between data sets for {largest['variant']}: a standard deviation of "
        f"{largest['tau2'] ** 0.5:.3f} (I² {100 * largest['i2']:.0f} %).",
    ]


def differs(each: Mapping) -> bool:
    """Returns whether the mean over these data sets is distinguished from 0, after correction."""
    return each["fixed"]["p_holm"] < LEVEL


def is_equivalent(each: Mapping) -> bool:
    """Returns whether a mean over these data sets as large as the margin is excluded, after correction."""
    return each["fixed"]["p_equivalence_holm"] < LEVEL


def _listed(some: Sequence[Mapping], key: str = "fixed") -> str:
    return ", ".join(f"{each['variant']} ({signed(each[key]['value'], 3)})" for each in some) or "none"


def _interaction_sentence(each: Mapping) -> str:
    depends = each["p"] < LEVEL
    way = "as expected, better for clicks" if each["slope"] < 0 else "against expectation, better for steady sounds"
    result = f"a small q is, {way}" if depends else "it is not shown that the best q depends on the kind of sound"
    return (
        f"Small q against large q: {result} (slope {signed(each['slope'], 3)} from clicks to steady sounds, "
        f"{each['num_classes']} classes, p {p_text(each['p'])})."
    )
