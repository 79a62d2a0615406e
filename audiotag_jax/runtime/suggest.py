"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable

_CLOSE, _MOST = 0.6, 4  # ratio of letters in common, as in difflib.get_close_matches, and choices that are named


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns a question that names the choices which are spelt most like `name`, equally so; "" if none is close.

    Of choices with dots, the last part is compared.
    """
    last_parts = {choice.rpartition(".")[2]: choice for choice in choices}
    ratios = {part: difflib.SequenceMatcher(None, part, name).ratio() for part in last_parts}
    highest = max(ratios.values(), default=0.0)
    best = [part for part in last_parts if ratios[part] == highest >= _CLOSE][:_MOST]
    if not best:
        return ""
    *others, last = (last_parts[part] for part in best)
    return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
