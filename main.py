"""Tags sounds: `python main.py --config=configs/VARIANT.py[:PRESET] [--workdir=DIR] [--mode=MODE]`."""

import importlib
import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from audiotag_jax.errors import UserError

# Mode: the module whose `run(config, workdir)` does it, imported on demand.
MODES = {
    "train": "audiotag_jax.train",
    "prepare": "audiotag_jax.prepare",
    "evaluate": "audiotag_jax.evaluate",
}

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/VARIANT.py[:PRESET]")
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run is kept; by default runs/VARIANT-PRESET")
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "what to do")


def main(argv: list[str]) -> None:
    """Runs the mode; prints what a person can mend in a line or two, without a traceback."""
    logging.set_verbosity(logging.ERROR)
    config = _CONFIG.value
    workdir = Path(_WORKDIR.value or f"runs/{config.name}-{config.preset}")
    try:
        importlib.import_module(MODES[_MODE.value]).run(config, workdir)
    except UserError as error:
        _stop(str(error))
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        _stop(f"{error.strerror}: {error.filename or workdir}\nCheck that the folder can be written and has room.")
    except KeyboardInterrupt:
        _stop("Interrupted. The same command continues from the last checkpoint.", status=130)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line for each thing that can be wrong on the command line."""
    try:
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f"Unknown argument {rest[1]!r}; options begin with --.")
        if flags.FLAGS["config"].value is None:
            raise UserError("--config is missing.")
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        variants = sorted(path.stem for path in Path(__file__).with_name("configs").glob("*.py"))
        variants.remove("default")
        _stop(f"{' '.join(reason)[:400]}\n--config=configs/VARIANT.py[:PRESET], VARIANT one of {', '.join(variants)}")
    return rest


def _stop(message: str, status: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(status) if status == 130 else sys.exit(status)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
