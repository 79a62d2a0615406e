"""Library logs go to a file of an existing work directory, and never to the terminal."""

import logging
import warnings

import pytest

from audiotag_jax.runtime.log_file import FILE_NAME, log_to_file


@pytest.fixture(autouse=True)
def root():
    handlers = logging.getLogger().handlers[:]
    logging.captureWarnings(False)  # a test before may have left it on, while pytest has taken the warnings back
    yield
    logging.getLogger().handlers[:] = handlers
    logging.captureWarnings(False)


def test_warnings_are_buffered_until_the_directory_exists(tmp_path, capsys):
    log_to_file(tmp_path / "run")
    logging.getLogger("orbax").warning("a step was slow")
    logging.getLogger("orbax").info("not kept")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    logging.getLogger("jax").error("no such device")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("of Python's own", UserWarning, stacklevel=1)
    lines = (tmp_path / "run" / FILE_NAME).read_text().splitlines()
    assert "WARNING orbax: a step was slow" in lines[0]
    assert "ERROR jax: no such device" in lines[1]
    assert "of Python's own" in lines[2]
    assert capsys.readouterr() == ("", "")


def test_an_unwritable_log_file_is_no_error(tmp_path, capsys):
    log_to_file(None)
    logging.getLogger("jax").error("gone")
    (tmp_path / FILE_NAME).mkdir()  # no file can be written there
    log_to_file(tmp_path)
    logging.getLogger("jax").error("gone")
    assert capsys.readouterr() == ("", "")
