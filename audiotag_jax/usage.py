"""What the command line prints about itself."""

import importlib
import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags

from audiotag_jax.settings.variants import configs_dir, list_variants

MODE_LINES = {
    "train": "prepares, trains and evaluates every fold that is not finished (the default)",
    "prepare": "makes the data sets that training reads, and nothing else",
    "evaluate": "computes the predictions and scores of a trained run again",
    "inspect": "prints what the checkpoints of a run contain",
    "doctor": "audits a folder of recordings: unreadable, silent, clipped, identical ones",
    "study": "trains variants under one budget and compares them",
    "compare": "compares runs, and predictions made elsewhere, on the clips they share",
    "report": "writes a page of one run: scores, curves, classes, mistakes, doubtful labels",
    "predict": "tags recordings with a trained run",
    "embed": "writes a vector for each window of recordings, or each clip of a data set",
    "export": "writes a trained run as one file: StableHLO and, where possible, ONNX",
}


def program_of(script: str) -> str:
    """Returns the command as a user types it, from the path of the script."""
    return "python main.py" if Path(script).name == "main.py" else "audiotag"


def introduction(program: str) -> str:
    """Describes the program, with three commands to paste."""
    lines = (
        ("try it on synthetic sounds, for a minute or three", "--config=log_db:demo"),
        ("train on a folder with one subfolder a label", "--config=log_db:folder --config.dataset.path=sounds"),
        ("tag recordings with the trained network", "--mode=predict --workdir=runs/log_db-demo --audio=data/demo"),
    )
    width = max(len(command) for _, command in lines)
    commands = "\n".join(f"  {program} {command:{width}}  # {what}" for what, command in lines)
    return (
        "audiotag_jax tags sounds: it trains networks on spectrograms of recordings, compares them, and names what\n"
        f"other recordings contain.\n\n{commands}\n\n{program} --help lists presets, modes and options."
    )


def full_help(program: str, modes: Iterable[str], options: Iterable[flags.Flag]) -> str:
    """Returns what `--help` prints: usage, modes, presets and variants, and the options of this project."""
    importlib.import_module("configs")  # by `variants.import_configs`
    default = importlib.import_module("configs.default")
    presets = {name: default.PRESET_LINES.get(name, "") for name in default.PRESETS}
    first_lines = {flag.name: str(flag.help).splitlines()[0].strip("; ") for flag in options}
    named = [(f"--{name}", re.sub(r"^<.*>: ", "", text)) for name, text in sorted(first_lines.items())]
    parts = [
        f"{program} --config=VARIANT[:PRESET] [--workdir=DIR] [--mode=MODE] [--config.FIELD=VALUE …]",
        _table("MODE", [(mode, MODE_LINES.get(mode, "")) for mode in modes]),
        _table("PRESET: data, network and budget", list(presets.items())),
        "VARIANT: spectrograms\n" + textwrap.fill(", ".join(list_variants()), 100, **_indent(2)),
        _table("options", named),
        f"Every FIELD is listed with its unit and default in {configs_dir() / 'default.py'};\n"
        "set one by --config.FIELD=VALUE, such as --config.train.num_epochs=5.",
    ]
    return "\n\n".join(parts)


def next_commands(mode: str, program: str, workdir: Path, arguments: Sequence[str], *, can_train: bool = True) -> str:
    """Returns commands to try after `program` was called with these `arguments`; "" if nothing follows.

    `can_train`: what doctor found of the data.
    """
    if mode == "doctor" and not can_train:
        return f"next: put that right, and look again: {program} {shlex.join(arguments)}"
    run = f"--workdir={shlex.quote(str(workdir))}"
    commands = [f"{program} --mode=report {run}"] if mode == "train" else []
    if mode in ("train", "report"):
        commands.append(f"{program} --mode=predict {run} --audio=FILE_OR_FOLDER")
    if mode == "doctor":
        commands.append(f"{program} {shlex.join(_without_mode(arguments))}")
    return "next: " + "\n      ".join(commands) if commands else ""


def _without_mode(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without --mode and its value, which may be an argument of its own."""
    rest = list(arguments)
    for place, each in enumerate(arguments):
        name, _, value = each.partition("=")
        if name in ("--mode", "-mode"):
            del rest[place : place + (1 if value else 2)]
            break
    return rest


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    width = 2 + max(len(name) for name, _ in rows)
    wrap = [textwrap.fill(f"{name:{width}}{text}", 100, **_indent(2, 2 + width)) for name, text in rows]
    return "\n".join([title, *wrap])


def _indent(first: int, rest: int | None = None) -> dict:
    return {"initial_indent": " " * first, "subsequent_indent": " " * (first if rest is None else rest)}
