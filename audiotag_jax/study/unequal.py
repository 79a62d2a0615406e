"""What makes a comparison unequal beside the variants compared: other folds, and other settings of training or data."""

from collections.abc import Sequence
from typing import Any

from audiotag_jax.settings.record import FREE_FIELDS
from audiotag_jax.settings.settings import flatten, recorded_fields
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
    return any(folds.get(clip, fold) != fold for clip, fold in network.folds.items())


def notes_on_settings(sources: Sources, baseline: str) -> list[str]:
    """Returns a note for each source whose runs have other settings than the baseline's, but for the variant.

    Predictions from files have no settings. Learning rates that a study chose by the same rule are not unequal.
    """
    expected = _fields(sources[baseline])
    notes = []
    for name, networks in sources.items():
        fields = _fields(networks)
        changed = [
            f"{field} ({value}, {baseline} {expected[field]})"
            for field, value in fields.items()
            if field in expected and value != expected[field]
        ]
        if changed:
            more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
            notes.append(f"{name} differs in more than the variant: {', '.join(changed[:_LISTED])}{more}")
    return notes


def _fields(networks: Sequence[Network]) -> dict[str, Any]:
    """Returns the fields that should be equal, of the first network that has settings."""
    first = next((each for each in networks if each.settings is not None), None)
    if first is None or first.settings is None:
        return {}
    is_of_study = (first.path.parent.parent / "choices.json").exists()
    return {
        field: value
        for field, value in flatten(recorded_fields(first.settings)).items()
        if field not in _COMPARED and field not in FREE_FIELDS and not (is_of_study and field.startswith("optimizer."))
    }
