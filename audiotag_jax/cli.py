"""The command line: `audiotag --config=VARIANT[:PRESET] [--workdir=DIR] [--mode=MODE]`, or `python main.py …`."""

import contextlib
import errno
import importlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags
from ml_collections import config_flags

from audiotag_jax import mode_flags, usage
from audiotag_jax.arguments import check_lists_once, reason, with_config_path
from audiotag_jax.runtime.errors import Stopped, UserError
from audiotag_jax.runtime.log_file import log_to_file
from audiotag_jax.runtime.memory import keep_freed_memory
from audiotag_jax.runtime.paths import check_path, check_written_path
from audiotag_jax.runtime.progress import log
from audiotag_jax.runtime.terminal import print_line
from audiotag_jax.runtime.users import name_unknown_users
from audiotag_jax.settings.variants import import_configs

if TYPE_CHECKING:
    from audiotag_jax.settings.settings import Settings

# Mode: the module whose `run` does it, imported on demand.
MODES = {
    "train": "audiotag_jax.training.train",
    "prepare": "audiotag_jax.datasets.prepare",
    "evaluate": "audiotag_jax.training.evaluate",
    "inspect": "audiotag_jax.training.inspect_checkpoint",
    "doctor": "audiotag_jax.doctor.examine",
    "study": "audiotag_jax.study.datasets",
    "compare": "audiotag_jax.study.compare",
    "report": "audiotag_jax.study.run_report",
    "predict": "audiotag_jax.inference.predict",
    "embed": "audiotag_jax.inference.embed",
    "export": "audiotag_jax.inference.export",
}
# Modes whose `run(workdir, …)` needs only the work directory of a trained run; predict and embed do with --tagger too.
OF_A_RUN = ("predict", "embed", "export")
WITHOUT_CONFIG = (*OF_A_RUN, "report", "compare")  # `run(workdir, …)` takes options, not settings
CONTINUED = ("train", "prepare", "study")  # modes of which the same command continues what was interrupted

_HELP = {"--help", "-help", "--helpshort", "-h", "-?"}
_ABSL_HELP = {"--helpfull", "--helpxml"}

_CONFIG = config_flags.DEFINE_config_file("config", None, "VARIANT[:PRESET], or FILE.py[:PRESET]")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "of the run; by default runs/VARIANT-PRESET, of a study runs/study-PRESET"
)
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "what to do")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of the first of several processes, or cluster")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many train together", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)


def run() -> None:
    """Runs the command line of this process: the console command `audiotag`, and `main.py`."""
    try:
        app.run(main, flags_parser=parse_flags)
    except SystemExit as ended:
        if ended.code == 1 and _ABSL_HELP & {*sys.argv}:  # absl ends with 1 after it has printed the help
            sys.exit(0)
        raise


def main(argv: list[str]) -> None:
    """Runs the mode; prints errors that the user can fix as one or two lines, without a traceback."""
    config, mode = _CONFIG.value, _MODE.value
    if config is None and not _WORKDIR.value and mode == "compare":
        workdir = Path("runs", mode)
    elif config is None and not _WORKDIR.value:
        workdir = Path("runs", Path(mode_flags.TAGGER.value).resolve().name)
    else:
        workdir = Path(_WORKDIR.value or f"runs/{mode if mode == 'study' else config.name}-{config.preset}")
    log_to_file(workdir if mode in ("train", "evaluate", "study") else None)  # other modes write nothing there
    try:
        if _WORKDIR.value is not None:
            check_written_path("--workdir", _WORKDIR.value)
        mode_flags.check_paths(argv[1:])
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir {workdir} is a file; name a folder.")
        if mode in ("train", "study"):
            keep_freed_memory()
        settings = _settings()
        name_unknown_users()
        _set_up_jax(settings)
        if mode in (*OF_A_RUN, "report") and settings is not None and (mode != "embed" or mode_flags.AUDIO.value):
            log(f"mode {mode} takes the settings of the run in {workdir}; those of --config are not used")
        module = importlib.import_module(MODES[mode])
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as `start` leaves it, while modules are imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if mode in WITHOUT_CONFIG:
            found = module.run(workdir, **mode_flags.options(mode, argv, settings))
        else:
            found = module.run(settings, workdir)
        program = usage.program_of(sys.argv[0])
        if following := usage.next_commands(mode, program, workdir, sys.argv[1:], can_train=found is not False):
            log(following)
    except UserError as error:
        _stop(str(error), at_once=_is_one_of_several())  # else JAX waits for the other processes
    except Stopped as stopped:
        _stop(f"{stopped} The same command continues.", status=128 + signal.SIGTERM, at_once=True)
    except KeyboardInterrupt:
        then = "continues from what is complete" if mode in CONTINUED else "starts again"
        _stop(f"Interrupted. The same command {then}.", status=130, at_once=True)
    except Exception as error:
        reason = _trouble(error)
        if not reason:
            raise
        then = "it continues from what is complete" if mode in CONTINUED else "it starts again"
        _stop(f"{reason}\nFix that and run the same command: {then}.", at_once=True)


def _settings() -> "Settings | None":
    """Returns the settings of --config, of mode evaluate else those of the run; None where neither is given."""
    from audiotag_jax.settings.record import settings_of_trained_folds  # it loads JAX, which --help does not need
    from audiotag_jax.settings.settings import parse_settings

    if _CONFIG.value is None and _MODE.value == "evaluate" and _WORKDIR.value:
        return settings_of_trained_folds(Path(_WORKDIR.value))
    return parse_settings(_CONFIG.value.to_dict()) if _CONFIG.value is not None else None


def _set_up_jax(settings: "Settings | None") -> None:
    from audiotag_jax.runtime import compilation, processes, progress

    joins = _MODE.value in ("train", "evaluate")
    if not joins and (_COORDINATOR.value or _NUM_PROCESSES.value is not None or _PROCESS_ID.value is not None):
        where = "\nPreparing on several machines: see docs/scaling.md." if _MODE.value == "prepare" else ""
        raise UserError(
            f"Mode {_MODE.value} runs in one process: leave out --coordinator and the flags with it.{where}"
        )
    if joins and processes.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value):
        processes.check_equal_devices()
        if not processes.is_main_process():
            progress.disable_log()
    compiles = _MODE.value in ("train", "evaluate", "study")
    if compiles and settings is not None and settings.training.compilation_cache:
        compilation.enable_compilation_cache(Path(settings.dataset.prepared_dir) / "compiled")


def _is_one_of_several() -> bool:
    return bool(_COORDINATOR.value or os.environ.get("JAX_COORDINATOR_ADDRESS"))


def _trouble(error: Exception) -> str:
    """Describes an error of disk or memory in one line; "" if the error is of another kind.

    Not all of them are OSError: writers of records and of checkpoints wrap the system's message in their own errors.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        if _MODE.value in ("train", "evaluate", "study"):
            fields = "lower config.train.batch_size or config.model.width, or set config.dataset.input=stream"
            return f"Out of memory: {fields}."
        return "Out of memory: end other programs that use the device, or set JAX_PLATFORMS=cpu."
    full = os.strerror(errno.ENOSPC)
    return f"{full}." if full in str(error) else ""


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line with absl; an error ends the program with one line that names it and the choices."""
    import_configs()
    if len(argv) == 1 or _HELP & {*argv[1:]}:
        program = usage.program_of(argv[0])
        by_module = flags.FLAGS.flags_by_module_dict()
        own = [*by_module[__name__], *by_module[mode_flags.__name__]]
        print_line(usage.introduction(program) if len(argv) == 1 else usage.full_help(program, MODES, own), sys.stdout)
        sys.exit(0)
    try:
        argv = with_config_path(argv)
        if any(argument in ("--flagfile=", "-flagfile=") for argument in argv):
            check_path("--flagfile", "")
        rest = flags.FLAGS(argv)
        _check_together(rest)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.name  # raises now if the file could not be read
            check_lists_once(_CONFIG.value, argv)
    except UserError as error:
        _stop(str(error))
    except Exception as error:
        _stop(reason(error, argv))
    return rest


def _check_together(rest: list[str]) -> None:
    """Raises UserError on flags that do not go together, and on missing ones."""
    mode = _MODE.value
    takes_files = mode in ("predict", "embed")
    if rest[1:] and not takes_files:  # --audio *.wav
        raise UserError(f"Unknown argument {rest[1]!r}; options begin with --. (Quote a path with spaces.)")
    named = "--workdir" if _WORKDIR.value else "--config" if _CONFIG.value is not None else ""
    if mode_flags.TAGGER.value and named and takes_files:
        raise UserError(
            f"--tagger and {named} both name a network: leave one out.\n"
            "Where the files go is set by --out; by default it is runs/TAGGER."
        )
    of_a_run = mode in (*OF_A_RUN, "evaluate", "inspect", "report")
    if _CONFIG.value is not None or mode == "compare":
        return
    if (_WORKDIR.value and of_a_run) or (mode_flags.TAGGER.value and takes_files):
        return
    if of_a_run:
        found = sorted(Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        such_as = f", such as --workdir={shlex.quote(str(found[-1].parent))}" if found else ""
        raise UserError(f"--workdir is missing: mode {mode} needs the folder of a trained run{such_as}.")
    repeat = "; a run is continued with the flags that it began with" if _WORKDIR.value else ""
    raise UserError(
        f"--config is missing{repeat}.\n"
        "Give --config=VARIANT[:PRESET], such as --config=log_db:demo; --help lists both."
    )


def _stop(message: str, status: int = 2, *, at_once: bool = False) -> None:
    """Prints the message and ends the program; `at_once` does not wait for other threads."""
    print_line(f"error: {message}", sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if at_once:
        os._exit(status)
    sys.exit(status)
