"""Progress lines without a terminal."""

from audiotag_jax.runtime import progress


def test_speed_leaves_out_the_first_item_which_compiles(monkeypatch, capsys):
    clock = iter((0, 60, 65, 75))  # the start, and the end of each item
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False)
    assert list(progress.progress("abc", 3, "training", "steps")) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == ["training: 1 of 3 steps", "training: 3 of 3 steps, 0.133 a second"]
