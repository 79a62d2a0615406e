"""What the protocol's rules conclude from the figures of the study (`study_report.py`), as sentences."""

from collections.abc import Mapping

from audiotag_jax.evaluation.intervals import LEVEL
from audiotag_jax.study.across import CONTRAST
from audiotag_jax.study.across_report import differs, heterogeneity, is_equivalent
from audiotag_jax.study.charts import signed
from audiotag_jax.study.naming import p_text
from benchmarks.study_sections import BASELINE, HIGH, HIRES, MARGIN, exceeding

CONTROL, CONFIRMING = "mix_linear_mel_log", "esc50"
NOT_CONFIRMED = f"not confirmed by the small network on {CONFIRMING}"


def summary(found: Mapping[str, Mapping], windows: Mapping[str, Mapping], tuned: str | None = None) -> list[str]:
    """Returns what the protocol's rules conclude ("What would change our mind").

    `found` is the dict of `across` by family, `windows` that of the shorter windows by data set, `tuned` the variant
    that the protocol's rule takes for fine-tuning.
    """
    probes = found["probes"]
    text = [
        *_primary(found, windows),
        *_usual(probes),
        *_small(found),
        *_fine_tuned(found, tuned),
        _kind_of_sound(probes),
    ]
    limits = sorted(each["detectable"][1] for each in probes["pooled"])
    text.append(
        f"The power after the correction is 80 % for a true difference of {limits[0]:.3f} to {limits[-1]:.3f}, "
        "depending on the variant."
    )
    text += heterogeneity(probes)
    if probes.get("left_out"):
        text.append(f"Not finished, and left out of what is pooled: {', '.join(probes['left_out'])}.")
    return text


def _primary(found: Mapping[str, Mapping], windows: Mapping[str, Mapping]) -> list[str]:
    probes = found["probes"]
    pooled = {each["variant"]: each for each in probes["pooled"]}
    names = ", ".join(pooled[HIGH[0]]["datasets"])
    equivalent = [name for name in HIGH if is_equivalent(pooled[name])]
    real = [name for name in HIGH if differs(pooled[name]) and name not in equivalent]
    better = [name for name in real if pooled[name]["fixed"]["value"] > 0]
    worse = [name for name in real if name not in better]
    text = []
    small, control = _small_differences(found), _not_shown_by_resolution(pooled, windows)
    confirmed = [name for name in better if name in small and small[name]["value"] > 0]
    for some, reason in (
        (confirmed, control),
        ([name for name in better if name not in confirmed], control or NOT_CONFIRMED),
    ):
        if some:
            begin = f"Better with probes, but {reason}" if reason else "High resolution helps"
            text.append(f"{begin}: {_named(some, probes)}, on the average of {names}.")
    if worse:
        text.append(f"High resolution hurts probes: {_named(worse, probes)}, on the average of {names}.")
    if {*HIRES} <= {*equivalent}:
        text.append(f"It does not matter: {', '.join(HIRES)} are equivalent to {BASELINE} within {MARGIN:g}.")
    elif equivalent:
        text.append(f"Equivalent to {BASELINE} within {MARGIN:g}: {_named(equivalent, probes)}.")
    if not text:
        text.append(f"Open: no high-resolution variant is shown to be better, worse or equivalent, on {names}.")
    for dataset, each in windows.items():
        best, above = exceeding(probes["datasets"][dataset], each)
        if above:
            names = ", ".join(f"`{name}`" for name in above)
            text.append(f"With shorter windows, {names} exceed the best high-resolution variant, {best}, on {dataset}.")
    return text


def _not_shown_by_resolution(pooled: Mapping[str, Mapping], windows: Mapping[str, Mapping]) -> str:
    """Returns which control gains, too; empty if none does."""
    if differs(pooled[CONTROL]) and pooled[CONTROL]["fixed"]["value"] > 0:
        return f"so is {CONTROL}"
    gains = [
        f"{d['variant']} on {dataset}"
        for dataset, each in windows.items()
        for d in each["differences"]
        if d["value"] > 0 and d["p_bootstrap_holm"] < LEVEL
    ]
    return f"so is {', '.join(gains)}" if gains else ""


def _usual(probes: Mapping) -> list[str]:
    real = [each for each in probes["pooled"] if differs(each) and not is_equivalent(each)]
    usual = [each["variant"] for each in real if each["variant"] not in HIGH]
    return [f"Usual variants distinguished from {BASELINE}: {_named(usual, probes)}."] if usual else []


def _small_differences(found: Mapping[str, Mapping]) -> dict[str, Mapping]:
    datasets = found.get("small", {}).get("datasets", {})
    return {d["variant"]: d for d in datasets.get(CONFIRMING, {}).get("differences", ())}


def _small(found: Mapping[str, Mapping]) -> list[str]:
    small = [d for name, d in _small_differences(found).items() if name in HIGH]
    return [f"The small network from random weights on {CONFIRMING}: {_tested(small)}"] if small else []


def _fine_tuned(found: Mapping[str, Mapping], tuned: str | None) -> list[str]:
    return [
        f"Fine-tuned on {dataset}: {_tested([difference])}"
        for dataset, each in found.get("finetuned", {}).get("datasets", {}).items()
        for difference in each["differences"]
        if difference["variant"] == tuned
    ]


def _tested(differences: list[Mapping]) -> str:
    values = ", ".join(f"{each['variant']} ({signed(each['value'], 3)})" for each in differences)
    real = ", ".join(each["variant"] for each in differences if each["p_bootstrap_holm"] < LEVEL)
    return f"{values}; distinguished from {BASELINE}: {real or 'none'}."


def _kind_of_sound(probes: Mapping) -> str:
    [contrast] = [each for each in probes["interactions"] if each["contrast"] == CONTRAST]
    depends = "depends" if contrast["p"] < LEVEL and contrast["slope"] < 0 else "is not shown to depend"
    refuted = contrast["p"] < LEVEL and contrast["slope"] > 0
    return (
        f"The best q {depends} on the kind of sound as expected (small for clicks, large for steady sounds): slope "
        f"{signed(contrast['slope'], 3)}, {contrast['num_classes']} classes, p {p_text(contrast['p'])}"
        + ("; the expectation is refuted." if refuted else ".")
    )


def _named(names: list[str], probes: Mapping) -> str:
    """Lists variants with their mean difference and the data sets in which they are distinguished by themselves."""
    pooled = {each["variant"]: each for each in probes["pooled"]}
    texts = []
    for name in names:
        within = [
            dataset
            for dataset in pooled[name]["datasets"]
            for d in probes["datasets"][dataset]["differences"]
            if d["variant"] == name and d["p_bootstrap_holm"] < LEVEL
        ]
        where = f"significant within {', '.join(within) or 'none of them'}"
        texts.append(f"{name} ({signed(pooled[name]['fixed']['value'], 3)}; {where})")
    return ", ".join(texts)
