"""What ends a training before its last step: SIGTERM, or numbers that are no longer finite."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np

from audiotag_jax.runtime.errors import Diverged
from audiotag_jax.training.checkpoints import Manager


@contextlib.contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM was received since; the signal has no other effect meanwhile.

    Only the main thread may handle signals: in any other, the function always returns False.
    """
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class DivergenceMonitor:
    """Checks every step's `health` (see `steps.train_step`) and explains why a training diverged."""

    def __init__(self, manager: Manager, fold: int):
        self._manager, self._fold = manager, fold
        self._losses: list[
            tuple[int, float]
        ] = []  # of logged steps: they distinguish a slow divergence from a sudden one
        self._rate = math.nan

    def remember(self, step: int, values: dict[str, float]) -> None:
        """Records a logged step's loss and learning rate."""
        self._losses.append((step, float(values["loss"])))
        self._rate = float(values["learning_rate_head"])

    def check(self, step: int, metrics: dict[str, jax.Array]) -> bool:
        """Returns whether any process received SIGTERM; raises Diverged if a number of the step is NaN or infinite."""
        finite, inputs_finite, stopping = np.asarray(metrics["health"])
        if not finite:
            raise Diverged(self._explain(step, jax.device_get(metrics), inputs_finite))
        return bool(stopping)

    def _explain(self, step: int, metrics: dict, inputs_finite: bool) -> str:
        latest = self._manager.latest_step()
        saved = "none was saved yet" if latest is None else str(self._manager.directory / str(latest))
        bad = [name for name, value in metrics.items() if name != "health" and not np.isfinite(value)]
        return (
            f"The training of fold {self._fold} diverged: NaN or infinite at step {step}: {', '.join(bad)}; last good "
            f"checkpoint: {saved}.\n{self._cause(metrics, inputs_finite)}"
        )

    def _cause(self, metrics, inputs_finite):
        if not inputs_finite:
            return "Suspected: the inputs of this batch were not finite; remove the prepared dataset and prepare anew."
        rate = f"the learning rate (head: {self._rate:.3g})" if math.isfinite(self._rate) else "the learning rate"
        advice = "train with lower learning rates (config.optimizer), in another --workdir."
        if np.isfinite(metrics["loss"]):
            return f"Suspected: {rate}, or config.model.dtype, too coarse for the gradient; {advice}"
        if len(self._losses) > 1 and self._losses[-1][1] > 1.5 * min(loss for _, loss in self._losses):
            (_, low), (last_step, last) = min(self._losses, key=lambda pair: pair[1]), self._losses[-1]
            return f"Suspected: {rate}; the loss had risen from {low:.3g} to {last:.3g} by step {last_step}; {advice}"
        return f"Suspected: {rate}, from one step to the next; {advice}"
