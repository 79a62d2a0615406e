"""The system's word to end, and what is said of a training that broke."""

import os
import signal
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from audiotag_jax.runtime.errors import UserError
from audiotag_jax.training.interruption import DivergenceMonitor, sigterm_flag


def test_the_signal_is_only_noted():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_flag() as told:
        assert not told()
        os.kill(os.getpid(), signal.SIGTERM)
        assert told()
        assert told()  # it stays said
    assert signal.getsignal(signal.SIGTERM) is before
    with sigterm_flag() as told:
        assert not told()  # said to another


def test_an_error_gives_the_signal_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError), sigterm_flag():
        raise UserError("wrong")
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_is_handled():
    """Python would raise ValueError there."""
    seen = []

    def look():
        with sigterm_flag() as told:
            seen.extend([signal.getsignal(signal.SIGTERM), told()])

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before, False]


def step_metrics(loss=1.0, gradient_norm=1.0, inputs_finite=1, stop=0):
    finite = np.isfinite(loss + gradient_norm)
    health = np.array([finite, inputs_finite, stop], np.float32)
    return {"loss": np.float32(loss), "gradient_norm": np.float32(gradient_norm), "health": health}


def make_monitor(latest=None, losses=(), rate=1e-2):
    """The monitor of fold 3, which has seen every tenth step's loss."""
    monitor = DivergenceMonitor(
        types.SimpleNamespace(latest_step=lambda: latest, directory=Path("run/fold_3/checkpoints")), 3
    )
    for number, loss in enumerate(losses, start=1):
        monitor.remember(10 * number, {"loss": np.float32(loss), "learning_rate_head": rate})
    return monitor


def test_a_good_step_says_who_wants_to_stop():
    monitor = make_monitor()
    assert monitor.check(1, step_metrics()) is False
    assert monitor.check(2, step_metrics(stop=1)) is True
    assert monitor.check(3, step_metrics(stop=2)) is True


@pytest.mark.parametrize(
    ("monitor", "metrics", "said"),
    [
        (
            make_monitor(),
            {"loss": np.nan, "inputs_finite": 0},
            r": loss; .*none was saved yet\..*\n.*inputs .* prepare ",
        ),
        (
            make_monitor(40),
            {"loss": np.inf},
            r": loss; last good checkpoint: run/fold_3/checkpoints/40\..*\n.*one step ",
        ),
        (make_monitor(), {"gradient_norm": np.inf}, r": gradient_norm; .*\n.*config\.model\.dtype, too coarse"),
        (make_monitor(), {"loss": np.nan, "gradient_norm": np.nan}, r": gradient_norm, loss;"),
        (
            make_monitor(0, (2.0, 1.0, 1.6)),
            {"loss": np.nan},
            r".*\n.*head: 0\.01\); .*risen from 1 to 1\.6 by step 30",
        ),
        (make_monitor(0, (2.0, 1.0, 1.4)), {"loss": np.nan}, r".*\n.*\(head: 0\.01\), from one step to"),
        (make_monitor(0, (2.0,)), {"loss": np.nan}, r".*\n.*, from one step .*lower learning rates"),
    ],
)
def test_a_broken_step_names_numbers_checkpoint_and_suspect(monitor, metrics, said):
    with pytest.raises(UserError, match=rf"fold 3 diverged: NaN or infinite at step 41{said}") as raised:
        monitor.check(41, step_metrics(**metrics))
    assert str(raised.value).count("\n") == 1
    assert "health" not in str(raised.value)
