"""Conditions on single fields, written beside the field: `width: Annotated[int, at_least(1)]`."""

import dataclasses
import math
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from audiotag_jax.runtime.errors import UserError

Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition on a value and its wording after "it must be"; for a fixed set of values, its `choices`."""

    holds: Callable[[Any], bool]
    wanted: str
    choices: tuple[str, ...] = ()


# A run may be continued with another value of such a field: it changes where data lies or what is kept, not what is
# computed. Those marked LOCAL may also differ between the processes of one run: where each host finds things.
FREE, LOCAL = "free", "local"


def at_least(least: float) -> Condition:
    """Returns the condition of a finite number of `least` or more."""
    return Condition(lambda value: least <= value < math.inf, f"at least {least}" if least else "0 or more")


def between(low: float, high: float) -> Condition:
    """Returns the condition of a number from `low` to `high`, both included."""
    return Condition(lambda value: low <= value <= high, f"{low:g} to {high:g}")


def one_of(choices: Collection[str]) -> Condition:
    """Returns the condition of being one of the `choices`."""
    return Condition(lambda value: value in choices, "", tuple(choices))


POSITIVE = Condition(lambda value: 0 < value < math.inf, "above 0 and finite")
NOT_NEGATIVE = Condition(lambda value: 0 <= value < math.inf, "0 or more and finite")
BELOW_ONE = Condition(lambda value: 0 <= value < 1, "at least 0 and below 1")
SHARE = Condition(lambda value: 0 <= value <= 1, "a share, 0 to 1")
SEED = Condition(lambda value: 0 <= value < 2**32, "0 to 2^32 - 1")


def check_fields(section: Any, prefix: str) -> None:
    """Raises UserError, naming `config.{prefix}FIELD`, at the first field whose conditions do not hold."""
    for name, hint in typing.get_type_hints(type(section), include_extras=True).items():
        for condition in getattr(hint, "__metadata__", ()):
            value = getattr(section, name)
            if not isinstance(condition, Condition) or condition.holds(value):
                continue
            if condition.choices:
                choices = ", ".join(condition.choices)
                raise UserError(f"config.{prefix}{name} is {value!r}; choose from {choices}.")
            raise UserError(f"config.{prefix}{name} is {value}; it must be {condition.wanted}.")


def read_section(kind: type[Section], name: str, fields: Mapping[str, Any], **derived: Any) -> Section:
    """Builds the dataclass `kind` of the section `name` from recorded `fields` and those `derived` from other sections.

    Lists become tuples. A field that a record lacks takes the dataclass' default: what runs did before there was such a
    field. Raises UserError for a field without one, for an unknown field, and for a value that `kind` refuses.
    """
    own = {field.name: field for field in recorded(kind)}
    missing = [each for each in own.values() if each.name not in fields and each.default is dataclasses.MISSING]
    unknown = [each for each in fields if each not in own]
    for names, what in (([field.name for field in missing], "without"), (unknown, "with the unknown")):
        if names:
            listed = ", ".join(f"{name}.{each}" for each in names[:5])
            raise UserError(f"The configuration is of another version of the code, {what} {listed}.")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        return kind(**values, **derived)
    except (ValueError, TypeError) as error:
        raise UserError(f"config.{name}: {error}") from error


def recorded(kind: type) -> list[dataclasses.Field]:
    """Returns the fields of a section that a configuration gives, without those derived from other sections."""
    return [field for field in dataclasses.fields(kind) if not field.metadata.get("derived")]


def marked(kind: type, mark: str) -> set[str]:
    """Returns the names of the fields of a section that are marked `mark`, FREE or LOCAL."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name for name, hint in hints.items() if mark in getattr(hint, "__metadata__", ())}
