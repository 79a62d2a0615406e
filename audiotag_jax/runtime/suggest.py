"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns a question that names the choice which is spelt most like `name`; "" if none is close.

    Of choices with dots, the last part is compared.
    """
    last_parts = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(name, last_parts, n=1)
    return f"did you mean {last_parts[close[0]]}?" if close else ""
