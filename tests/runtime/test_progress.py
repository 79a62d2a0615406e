"""Progress lines without a terminal."""

import io
import time

from audiotag_jax.runtime import progress


def test_speed_leaves_out_the_first_item_which_compiles(monkeypatch, capsys):
    clock = iter((0, 60, 65, 75))  # the start, and the end of each item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False)
    assert list(progress.progress("abc", 3, "training", "steps")) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == ["training: 1 of 3 steps", "training: 3 of 3 steps, 0.133 a second"]


def test_a_status_stands_behind_the_counts(monkeypatch, capsys):
    losses = iter(("", "loss 2.000"))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False)
    assert list(progress.progress("ab", 2, "training", "steps", every_s=0.0, status=lambda: next(losses))) == ["a", "b"]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "training: 1 of 2 steps"
    assert second.startswith("training: 2 of 2 steps, ") and second.endswith(" a second, loss 2.000")


def test_a_bar_shows_the_status(monkeypatch):
    """Asked for at intervals, not at every item."""
    screen, asked = io.StringIO(), []
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress, "_STATUS_EVERY_S", 1e-9)
    shown = progress.progress(range(3), 3, "training", "steps", status=lambda: asked.append(0) or f"loss {len(asked)}")
    assert [time.sleep(0.12) or item for item in shown] == [0, 1, 2]  # a bar is drawn ten times a second
    assert "loss 1" in screen.getvalue()
    assert len(asked) == 3
    monkeypatch.setattr(progress, "_STATUS_EVERY_S", 60)
    assert list(progress.progress(range(9), 9, "training", "steps", status=lambda: asked.append(0) or "")) == [
        *range(9)
    ]
    assert len(asked) == 4
