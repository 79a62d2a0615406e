"""The tables of a report on several data sets, as text that is neither Markdown nor HTML."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study.charts import signed
from audiotag_jax.study.markdown import interval
from audiotag_jax.study.naming import p_text

METHODS = (
    "Each data set is a study of its own: differences are paired by clip, their intervals and standard errors are "
    "those of the bootstrap over recordings ({num_resamples:,} resamples). *Equivalent*: two one-sided tests exclude "
    "differences of {margin:g} or more either way. All p values are corrected by Holm's method over the variants."
)
POOLED = (
    "*These data sets* is their mean with equal weights, which extends to no other data set. *Random effects* takes "
    "the data sets as a sample of those there might be: τ, the standard deviation of true differences between data "
    "sets, by Paule and Mandel, the interval by Hartung and Knapp, never narrower than without heterogeneity; with a "
    "few data sets little can be shown so. *I²*: the share of the scatter that is more than chance, with the p value "
    "of Cochran's Q, not corrected. *Prediction*: 95 % limits of the true difference in another data set of such a "
    "kind; with three data sets they are all but unbounded."
)
KINDS = (
    "The kind is that of the class, from two descriptors of its clips' sounds averaged over the class: the harmonic "
    "share of the energy and the spectral flatness within octaves. No label of a clip and no network enters. Figures "
    "of several data sets are means with equal weights over those that have classes of the kind. Intervals are those "
    "of the bootstrap over recordings and not corrected; the test of whether a difference depends on the kind is the "
    "slope below: of the classes' differences on their harmonic shares (0 for clicks, near 1 for steady sounds), data "
    "set by data set around its own mean, by permuting the shares among the classes of a data set."
)


class Table(NamedTuple):
    """Cells as text, neither Markdown nor HTML."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """Paragraphs (str), bullets (list of str) and tables below a title."""

    title: str
    blocks: Sequence[str | list[str] | Table]


def sections(found: Mapping, about: Mapping[str, Sequence[tuple[str, str]]]) -> list[Section]:
    """Returns all tables of the report by section, and last how to read them."""
    baseline = found["baseline"]
    listed = [Section("Data sets", [_datasets(found, about)]), Section(found["score"].title(), [_accuracy(found)])]
    if pooled := is_pooled(found):
        listed.append(Section(f"Differences to {baseline}, pooled", [_pooled(found)]))
    for name, each in found["datasets"].items():
        if each["differences"]:
            listed.append(Section(f"Differences to {baseline} in {name}", [_differences(each)]))
    if found["kinds"]:
        listed.append(Section("By kind of sound", _kinds(found)))
    methods = METHODS.format(num_resamples=found["num_resamples"], margin=found["margin"])
    return [*listed, Section("How to read the figures", [methods, *([POOLED] if pooled else [])])]


def is_pooled(found: Mapping) -> bool:
    """Returns whether several data sets are pooled: the mean of one is its own difference."""
    return bool(found["pooled"]) and len(found["pooled"][0]["datasets"]) > 1


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
    header = ("variant", "these data sets", *tested, "random effects", *tested, "τ", "I² (p of Q)", "prediction")
    rows = []
    for each in found["pooled"]:
        limits = each["prediction"]
        prediction = "–" if limits is None else f"{signed(limits[0], 3)} to {signed(limits[1], 3)}"
        of_random, of_fixed = (
            [interval(each[key], "+"), p_text(each[key]["p_holm"]), _equivalent(each[key])]
            for key in ("random", "fixed")
        )
        spread = [f"{each['tau2'] ** 0.5:.3f}", f"{100 * each['i2']:.0f} % ({p_text(each['p_q'])})", prediction]
        rows.append([each["variant"], *of_fixed, *of_random, *spread])
    return Table(header, rows)


def _differences(each: Mapping) -> Table:
    header = ("variant", "difference", "p", "equivalent (p)", "found half of the time", "in four of five")
    rows = [
        [
            d["variant"],
            interval(d, "+"),
            p_text(d["p_bootstrap_holm"]),
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
    names = dict.fromkeys(name for each in kinds.values() for d in each["differences"] for name in d["datasets"])
    by_dataset = []
    for contrast in contrasts if len(names) > 1 else ():
        for name in names:
            cells = []
            for each in kinds.values():
                own = [
                    d["datasets"][name]
                    for d in each["differences"]
                    if d["contrast"] == contrast and name in d["datasets"]
                ]
                cells.append(interval(own[0], "+") if own else "–")
            by_dataset.append([contrast, name, *cells])
    tests = [
        [e["contrast"], signed(e["slope"], 3), signed(e["correlation"], 2), p_text(e.get("p_holm", e["p"]))]
        for e in found["interactions"]
    ]
    return [
        Table(("difference", *heads), rows),
        KINDS,
        *([Table(("difference", "data set", *kinds), by_dataset)] if by_dataset else []),
        Table(("difference", "slope on the harmonic share", "correlation over classes", "p"), tests),
        [f"{kind}: {', '.join(each['classes'])}" for kind, each in kinds.items()],
    ]


def _equivalent(each: Mapping) -> str:
    p = each["p_equivalence_holm"]
    return f"{'yes' if p < LEVEL else 'no'} ({p_text(p)})"
