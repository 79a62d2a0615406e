"""The first module of the command `audiotag`: imports the others; an interrupt meanwhile just ends the process."""

import signal
import sys

from audiotag_jax.runtime.terminal import prepare_streams, print_line


def end_at_interrupt() -> None:
    """Lets Ctrl-C end the process at once and without a traceback, until `cli.main` begins."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background, where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run() -> None:
    """Runs the command line of this process."""
    end_at_interrupt()
    prepare_streams()
    from absl import flags

    try:
        from audiotag_jax import cli  # defining its flags reads the files that --flagfile names
    except (flags.Error, UnicodeDecodeError) as error:
        print_line(f"error: --flagfile needs a file of flags: {str(error).split('] ')[-1]}", sys.stderr)
        sys.exit(2)
    cli.run()
