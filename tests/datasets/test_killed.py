"""Preparing that is killed by SIGKILL, again and again, ends with the records of one that is left alone."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from test_builders import datasets, make_source
from test_recomputation import as_bytes, changed, prepare

from audiotag_jax.datasets.index import FILE_NAME

# Calls of a process, of which a random one is its last: twice each while decoding (28 calls), computing (17), copying
# clips (26) and copying images (17). The first of two completes what came before.
CALLS = ((1, 26), (1, 24), (29, 42), (1, 15), (19, 40), (1, 23), (28, 41), (1, 15))
# Processes are forked from one that has loaded the modules; each kills itself at the n-th of these calls.
CHILDREN = """
import os, signal, sys
from pathlib import Path

folder, *moments, root, tests = sys.argv[1:]
sys.path[:0] = [root, tests, str(Path(tests).parent)]
import test_builders as own
import test_recomputation
from audiotag_jax.datasets import builders, contents, copies, images, index, waveforms
from audiotag_jax.runtime import files


def count(module, name):
    call = getattr(module, name)

    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    setattr(module, name, counted)


for module, names in {
    builders: ("write_index",),
    waveforms: ("decode_clip", "record_source", "clip_example"),
    images: ("compute_images", "record_source", "image_example"),
    contents: ("write_json",),
    files.os: ("fsync",),
}.items():
    for name in names:
        count(module, name)
for moment in moments:
    child = os.fork()
    if child == 0:
        left = int(moment)
        source = own.list_source(Path(folder) / "sounds")
        for each in (source, test_recomputation.changed(source, label="b")):
            test_recomputation.prepare(each, Path(folder) / "prepared")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_while_preparing_and_copying(tmp_path):
    source, rng = make_source(tmp_path / "sounds"), random.Random(0)
    sources = (source, changed(source, label="b"))
    moments = [rng.randint(*calls) for calls in CALLS]
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    tests = Path(__file__).parent
    command = [sys.executable, script, tmp_path, *map(str, moments), tests.parents[1], tests]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )
    statuses = [int(line) for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert statuses == [-signal.SIGKILL] * len(CALLS), done.stderr
    for each in sources:
        for directory, expected in zip(
            prepare(each, tmp_path / "prepared"), prepare(each, tmp_path / "alone"), strict=True
        ):
            assert as_bytes(directory) == as_bytes(expected)
            assert (directory / FILE_NAME).read_bytes() == (expected / FILE_NAME).read_bytes()
    assert len(datasets(tmp_path / "prepared")) == 4
    assert not list((tmp_path / "prepared").rglob("incomplete*"))
