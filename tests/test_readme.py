"""Every command and snippet of the README and of docs/ runs, in the order of its page, shrunk, on small data.

Commands of the project run in this process, one after another: networks of equal settings are compiled once. Snippets
run in a process of their own on one device, as a reader's would; this process has eight.
"""

import csv
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from fresh_flags import fresh_flags

from audiotag_jax import cli
from audiotag_jax.training.checkpoints import read_arrays

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MAX_LINES = 150
# Pages that others follow: the walks tests/test_docs.py, the API's examples tests/test_package.py.
ELSEWHERE = ("add_a_data_source.md", "add_a_model.md", "add_a_variant.md", "api.md")
# Commands and Python snippets of each page, so that none is lost silently.
EXPECTED = {
    "README.md": (4, 0),
    "docs/comparing.md": (2, 0),
    "docs/own_data.md": (5, 1),
    "docs/reassignment.md": (0, 1),
    "docs/results.md": (1, 0),
    "docs/running.md": (6, 1),
    "docs/scaling.md": (0, 0),
    "docs/training.md": (3, 0),
    "docs/using_a_run.md": (5, 6),
}
# Lines of bash blocks that do not run here, and why.
NOT_RUN = {
    r"python3 -m venv ": "continuous integration runs both lines; what the first ends with runs here",
    r"source \.venv/bin/activate": "changes the reader's shell only",
    r"pip install ": "needs a network",
    r"python main\.py .*--coordinator=": "two processes: tests/runtime/test_processes.py",
    r"python benchmarks/show_variants\.py ": "tests/test_benchmarks.py",
    r"python main\.py .*--tagger=yamnet": "needs a network: tests/inference/test_published.py",
    r"(python -m venv )?\.venv-onnx": "its own environment: tests/inference/test_export_onnx.py",
}
INSTALL_AND_RUN = [
    ".venv/bin/python main.py --config=configs/log_db.py:demo",
    ".venv/bin/python -m pytest -q",
]
# What a command of each mode prints when it has done its work.
PRINTED = {
    "train": "held out",
    "evaluate": "held out",
    "prepare": "dataset:",
    "inspect": ": parameters\n",
    "doctor": "doctor.md",
    "study": "report.html",
    "compare": "report.html",
    "report": "suspects.csv",
    "predict": "predictions.csv",
    "embed": "embeddings.npz",
    "export": "tagger.stablehlo",
}
# Equal for all, as are the numbers of clips and classes of the data below: what is compiled then differs by channels,
# augmentation, and where spectrograms are computed.
SHRINK = [
    "--config.train.num_epochs=1",
    "--config.train.batch_size=256",
    "--config.model.name=small",
    "--config.model.width=4",
    "--config.optimizer.learning_rate_low=3e-3",
    "--config.optimizer.learning_rate_high=1e-2",
    "--config.spectral.num_frames=32",
    "--config.spectral.num_bins=32",
    "--config.dataset.duration_s=0.5",
]
LISTS = ("--config.train.folds=", "--config.study.variants=")  # an error if given twice
NUM_CLASSES, NUM_TRAIN, NUM_TEST = 10, 300, 60  # as in the demo
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> dict[str, str]:
    """By path, the text of all pages that run here."""
    docs = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in ELSEWHERE)
    paths = [README, *docs]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


PAGES = pages()


def steps_of(text: str) -> list[tuple[str, str]]:
    """The (language, text) of the page in order: each line of a bash block, each Python block."""
    steps = []
    for language, block in BLOCK.findall(text):
        steps += [(language, block)] if language == "python" else [(language, line) for line in block.splitlines()]
    return steps


def is_run(line: str) -> bool:
    return not any(re.match(pattern, line) for pattern in NOT_RUN)


def write_sounds(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(2000), 8000)


def write_table(path: Path, columns: str, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The project, small data in the layouts that the pages describe, and what the install line's demo makes."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("main.py", "configs", "audiotag_jax"):
        (folder / name).symlink_to(ROOT / name)
    clips = [(f"{n}.wav", f"label{n % NUM_CLASSES}") for n in range(NUM_TRAIN)]
    names, tests = [name for name, _ in clips], [f"test{n}.wav" for n in range(NUM_TEST)]
    write_sounds(folder / "data/fsdkaggle2018/audio_train", names)
    write_sounds(folder / "data/fsdkaggle2018/audio_test", tests)
    train = [(*clip, n // NUM_CLASSES % 2) for n, clip in enumerate(clips)]
    write_table(folder / "data/fsdkaggle2018/train.csv", "fname,label,manually_verified", train)
    sample = [(name, "label0") for name in tests]
    write_table(folder / "data/fsdkaggle2018/sample_submission.csv", "fname,label", sample)
    write_sounds(folder / "data/ESC-50/audio", names)
    esc = [(name, n % 5 + 1, int(label[5:]), label, True, n, "A") for n, (name, label) in enumerate(clips)]
    write_table(folder / "data/ESC-50/meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", esc)
    write_sounds(folder / "sounds", [f"{label}/{name}" for name, label in clips])
    seconds = np.arange(4000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * seconds)
    soundfile.write(folder / "tone.wav", np.stack([tone, -tone], axis=1), 16000)
    noise = 0.1 * np.random.default_rng(1).standard_normal((5 * 16000, 2))
    noise[3 * 16000 :] = 0
    soundfile.write(folder / "stream.wav", noise, 16000)
    return folder


@pytest.fixture
def run(clone, monkeypatch, capsys):
    """A function that runs a command line in this process, in the clone."""
    monkeypatch.chdir(clone)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)  # for the life of a process; this one does other work
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # the program puts its own there

    def run_line(line: str) -> None:
        monkeypatch.setattr(sys, "argv", arguments(line))  # where ml_collections looks for the fields that are set
        run_main(line, capsys)

    yield run_line
    logging.captureWarnings(False)


def run_main(line: str, capsys) -> None:
    mode = (re.search(r"--mode=(\w+)", line) or ["", "train"])[1]
    with fresh_flags():
        cli.main(cli.parse_flags(sys.argv))
    assert PRINTED[mode] in capsys.readouterr().out, line


def arguments(line: str) -> list[str]:
    """The line as `sys.argv`, shrunk."""
    program, *words = shlex.split(line.removeprefix("python "))
    shrink = SHRINK if any(word.startswith("--config=") for word in words) else []
    shrink = [flag for flag in shrink if "waveform.py" not in line or "model.name" not in flag]
    if "--mode=study" in words:
        shrink = [*shrink, "--config.study.variants=('mel_db',)"]
    elif shrink:
        shrink = [*shrink, "--config.train.folds=(0,)"]
    given = {word.partition("=")[0] for word in words}
    twice = {flag for flag in shrink if flag.startswith(LISTS) and flag.partition("=")[0] in given}
    return [program, *words, *(flag for flag in shrink if flag not in twice)]  # the later of two numbers counts


# For a snippet with this word: what replaces what, a line after it, and a check of what that prints.
def check_orbax(printed: str, clone: Path) -> None:
    count, *values = printed.split()
    assert count == "1" and jax.device_count() == 8
    _, state, _ = read_arrays(clone / "runs/log_db-demo/fold_0/checkpoints")
    np.testing.assert_array_equal(np.array(values, np.float32), state["params"]["body"]["conv1"]["kernel"].flat)


def check_reassignment(printed: str, clone: Path) -> None:
    *shape, hz = printed.split()
    assert shape == [str(-(-4000 // 197)), "224"]
    assert abs(np.log2(float(hz) / 1000)) <= 0.51 / 26.2


def check_tfds(printed: str, clone: Path) -> None:
    assert re.fullmatch(r"300 \(32, 32, 1\) audio/\d+\.wav\n", printed)


def check_export(printed: str, clone: Path) -> None:
    shape, total = printed.rsplit(maxsplit=1)
    assert shape == "(1, 10)" and float(total) == pytest.approx(1, abs=1e-5)


def check_vectors(printed: str, clone: Path) -> None:
    count, size = map(int, printed.split())
    assert count == len(list((clone / "data/demo/demo_v2_seed0/audio").iterdir())) and size == 32


def check_function(printed: str, clone: Path) -> None:
    count, total = printed.split()
    assert count == "10" and float(total) == pytest.approx(1, abs=1e-5)


def check_events(printed: str, clone: Path) -> None:
    """Ten classes: with a threshold of 0.05 one at least is heard in three seconds of noise, none in silence."""
    count, last_s = printed.split()[-2:]
    assert int(count) > 0 and float(last_s) <= 3.5


def check_stream(printed: str, clone: Path) -> None:
    """Three seconds of noise and two of silence, tagged every second once a clip's length is there."""
    lines = printed.splitlines()
    assert [line.split(":")[0] for line in lines] == ["0.5 s", "1.5 s", "2.5 s", "3.5 s", "4.5 s"]
    assert all(line.split(": ")[1] != "silent" for line in lines[:3])
    assert all(line.split(": ")[1] == "silent" for line in lines[3:])


SNIPPETS = {
    "tagger(*soundfile": (("", ""), "print(len(tags), sum(tags.values()))", check_function),
    "tagger.events(": (
        ("on_threshold=0.3", "on_threshold=0.05"),
        "print(len(events), max(event[2] for event in events))",
        check_events,
    ),
    "find_events(": (
        ("on_threshold=0.3", "on_threshold=0.05"),
        "print(len(events), max(event[2] for event in events))",
        check_events,
    ),
    "tag_stream": (("", ""), "", check_stream),
    "embeddings.npz": (("", ""), "print(*vectors.shape)", check_vectors),
    "orbax": (
        ("", ""),
        "print(jax.device_count(), *state['params']['body']['conv1']['kernel'].ravel().tolist())",
        check_orbax,
    ),
    "high_resolution_spectrogram": (
        ("data/demo/demo_v2_seed0/audio/0000.wav", "tone.wav"),
        "print(*energies.shape, frequencies_hz[np.argmax(energies[5:-5].sum(axis=0))])",
        check_reassignment,
    ),
    "tensorflow_datasets": (
        ("", ""),
        "print(len(clips), clips[0]['image'].shape, clips[0]['id'].decode())",
        check_tfds,
    ),
    "export.deserialize": (("", ""), "print(probabilities.shape, probabilities.sum())", check_export),
}


def run_snippet(snippet: str, clone: Path) -> None:
    [((old, new), line, check)] = [each for word, each in SNIPPETS.items() if word in snippet]
    assert old in snippet
    command = [sys.executable, "-c", f"{snippet.replace(old, new) if old else snippet}\n{line}"]
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    check(done.stdout, clone)


def test_every_page_has_its_commands_and_snippets():
    found = {}
    for page, text in PAGES.items():
        steps = steps_of(text)
        commands = [line for language, line in steps if language == "bash" and is_run(line)]
        assert all(line.startswith(("python main.py ", "audiotag ")) for line in commands), commands
        found[page] = (len(commands), sum(language == "python" for language, _ in steps))
    assert found == EXPECTED


def test_every_exception_is_needed():
    lines = [line for text in PAGES.values() for language, line in steps_of(text) if language == "bash"]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, line) for line in lines), pattern


def test_the_install_lines():
    text = PAGES["README.md"]
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition(" && ")[2] for line in lines] == INSTALL_AND_RUN
    [activate] = [n for n, (_, line) in enumerate(steps_of(text)) if line == "source .venv/bin/activate"]
    assert activate == len(lines)  # before every other command


def test_the_readme_is_short():
    assert PAGES["README.md"].count("\n") <= MAX_LINES


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_from_top_to_bottom(page, clone, run):
    if not (clone / "runs/log_db-demo/summary.json").exists():
        run(INSTALL_AND_RUN[0].removeprefix(".venv/bin/"))
    for language, text in steps_of(PAGES[page]):
        if language == "python":
            run_snippet(text, clone)
        elif is_run(text):
            run(text)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target
