"""What makes a comparison unequal beside the variants compared: other folds, and other settings of training or data."""

from typing import Any

from audiotag_jax.settings.record import FREE_FIELDS
from audiotag_jax.settings.settings import Settings, flatten, recorded_fields
from audiotag_jax.settings.variants import list_variants
from audiotag_jax.study.plan import searched_fields, variant_settings
from audiotag_jax.study.results import Clips
from audiotag_jax.study.sources import Network, Sources

_COMPARED = ("name", "preset", "seed", "spectral.channels")  # what is compared, or only names other fields
_LISTED = 8  # fields of a note


def notes_on_folds(sources: Sources, held_out: Clips) -> list[str]:
    """Returns a note on networks whose clips were held out in other folds than `held_out` has, which reports show."""
    folds = dict(zip(held_out.ids.tolist(), held_out.folds.tolist(), strict=True))
    others = [name for name, networks in sources.items() if any(_differs(each, folds) for each in networks)]
    if not others:
        return []
    clips = "the clips of " + " and of ".join(others)
    return [f"{clips} were held out in other folds than those whose scores are shown by fold"]


def _differs(network: Network, folds: dict[str, int]) -> bool:
    """Returns whether other clips share a fold; the folds' numbers may differ."""
    pairs = {(fold, folds[clip]) for clip, fold in network.folds.items() if clip in folds}
    return any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1))


def notes_on_settings(sources: Sources, baseline: str) -> list[str]:
    """Returns a note for each source with a run of other settings than the baseline's first, but for the variant.

    Predictions from files have no settings. What a study chose for each variant by the same rule is not unequal.
    """
    first = next((each for each in sources[baseline] if each.settings is not None), None)
    if first is None:
        return []
    notes = []
    for name, networks in sources.items():
        changed: dict[str, str] = {}
        for network in networks:
            changed |= _changes(network, first)
        if changed:
            listed = [f"{field} ({text})" for field, text in changed.items()]
            more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
            notes.append(
                f"{name} differs from {baseline} in more than the variant: {', '.join(listed[:_LISTED])}{more}"
            )
    return notes


def _changes(network: Network, first: Network) -> dict[str, str]:
    """Returns the fields with both values in which a network is not what the first would be as that variant."""
    settings, of_first = network.settings, first.settings
    if settings is None or of_first is None:
        return {}
    if {settings.name, of_first.name} <= {*list_variants()}:
        of_first = variant_settings(of_first, settings.name)
    passed = {*_COMPARED, *FREE_FIELDS}
    if _is_of_study(network) and _is_of_study(first):
        passed |= {f"optimizer.{field}" for field in searched_fields(settings)}
    expected = _fields(of_first)
    return {
        field: f"{value}, there {expected.get(field)}"
        for field, value in _fields(settings).items()
        if field not in passed and value != expected.get(field)
    }


def _is_of_study(network: Network) -> bool:
    return (network.path.parent.parent / "choices.json").exists()


def _fields(settings: Settings) -> dict[str, Any]:
    return flatten(recorded_fields(settings))
