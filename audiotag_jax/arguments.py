"""Command lines before they are parsed, and what is wrong with them in one line."""

import contextlib
import re
import runpy
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.suggest import did_you_mean
from audiotag_jax.settings.variants import list_variants, variant_file

_WANTED = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list, such as (0, 1)"}
_MOST = 400  # characters of a library's message


def with_config_path(argv: list[str]) -> list[str]:
    """Returns the arguments with the path of the variant's file in place of a bare name: `--config=NAME[:PRESET]`.

    Raises UserError, listing the choices, on a name without `/` and `.py` that is neither a variant nor a file.
    """
    argv = list(argv)
    for number, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if argument == "--":
            break
        if flag not in ("--config", "-config"):
            continue
        if equals:
            argv[number] = f"{flag}={_config_path(value)}"
        elif number + 1 < len(argv):
            argv[number + 1] = _config_path(argv[number + 1])
    return argv


def _config_path(value: str) -> str:
    name, colon, preset = value.partition(":")
    is_path = not name or "/" in name or name.endswith(".py")
    if is_path or (name not in list_variants() and Path(name).exists()):
        return value
    return f"{variant_file(name)}{colon}{preset}"


def check_lists_once(config: ConfigDict, argv: Sequence[str]) -> None:
    """Raises UserError on a field of several values that is given twice, since absl joins them."""
    given = Counter(argument.lstrip("-").partition("=")[0] for argument in argv if argument.startswith("-"))
    for field, times in given.items():
        names = field.split(".")
        if times > 1 and names[0] == "config" and names[1:]:
            value = config
            for name in names[1:]:
                value = value[name]
            if isinstance(value, tuple):
                raise UserError(f"--{field} is given {times} times, and its values would be joined; give it once.")


def reason(error: Exception, argv: list[str]) -> str:
    """Reduces the messages of absl and ml_collections to one line, or two where a variant is wrong."""
    given = re.search(r"^--?config[=\n](.+)$", "\n".join(argv), re.MULTILINE)
    path, *preset = given[1].split(":", 1) if given else [""]
    if isinstance(error, OSError):
        listed = ", ".join(list_variants())
        return f"There is no configuration file {path!r}.\nGive --config=VARIANT[:PRESET], VARIANT one of {listed}."
    with contextlib.suppress(Exception):  # an error in the file itself keeps its own message
        config = runpy.run_path(path)["get_config"](*preset)
        if isinstance(error, (KeyError, AttributeError)):
            return _unknown_field(config, argv)
        if value := re.match(r"flag --config\.([\w.]+)=", str(error)):
            return _wrong_value(config, value[1], argv)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\w+Error: ", "", lines[-1])[:_MOST]


def _unknown_field(config: ConfigDict, argv: list[str]) -> str:
    """Describes the first name on the command line that is not a field; raises LookupError if all are fields."""
    for argument in argv[1:]:
        field = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        node, path = config, "config"
        for name in field[1].split(".") if field else ():
            if not isinstance(node, ConfigDict):
                return f"{path} is a value; it has no field {name!r}."
            if name not in node:
                close = did_you_mean(name, (*_fields(config), *_fields(node, f"{path}.")))
                return f"{path} has no field {name!r}; {close or 'choose from ' + ', '.join(node) + '.'}"
            node, path = node[name], f"{path}.{name}"
    raise LookupError


def _fields(config: ConfigDict, prefix: str = "config.") -> Iterator[str]:
    """Yields the names of all fields, in all sections, and of the sections."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")


def _wrong_value(config: ConfigDict, field: str, argv: list[str]) -> str:
    """Describes a value of another type than its field has."""
    given = next(each.partition("=")[2] for each in argv if re.match(rf"--?config\.{re.escape(field)}=", each))
    value = config
    for name in field.split("."):
        value = value[name]
    if isinstance(value, ConfigDict):
        first = next(iter(value))
        return f"config.{field} is a section; set one of its fields, such as --config.{field}.{first}={value[first]}."
    return f"config.{field} is {given!r}; it must be {_WANTED[type(value)]}."
