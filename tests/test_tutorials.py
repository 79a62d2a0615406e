"""Every notebook of the tutorials runs from a clean state, and its committed outputs still agree with the code.

How agreement is judged, cell by cell: the printed text (standard output and plain-text results) must be the same but
for blanks and numbers; a number with decimals may differ by 1 % or by one unit of its last printed digit, a whole
number by 1 %. Pictures and sounds must be there in the same number, whatever they show. A cell tagged "varies", whose
numbers depend on a training and so on the kind of processor, is compared for presence alone; its assertions must hold
all the same. Nothing may be written to standard error.
"""

import json
import math
import os
import re
from pathlib import Path

import pytest
import soundfile

from tutorials import link_sounds

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("[0-9][0-9]_*.ipynb"))
MAX_BYTES = 1_000_000
VARIES = "varies"
CELL_TIMEOUT_S = 600
OWN_STATE = {"tutorials", "data", "prepared", "runs"}  # of the checkout; a clean state has none of them
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|usr|opt|var|mnt|private|Users)/\w|[A-Z]:\\\\?Users")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def printed(cell: dict) -> str:
    """Standard output and plain-text results, in order; not the names of pictures and sounds."""
    parts = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            parts.append(joined(output["text"]))
        elif not media(output) and "text/plain" in output.get("data", {}):
            parts.append(joined(output["data"]["text/plain"]) + "\n")
    return "".join(parts)


def media(output: dict) -> list[str]:
    """The kinds of picture or sound that an output holds."""
    data = output.get("data", {})
    sound = ["sound"] if "<audio" in joined(data.get("text/html", "")) else []
    return sound + [kind for kind in data if kind.startswith("image/")]


def disagreement(old: dict, new: dict) -> str:
    """How the outputs of two runs of a cell disagree, as the module's docstring says; "" if they do not."""
    old_media, new_media = ([kind for output in cell["outputs"] for kind in media(output)] for cell in (old, new))
    if sorted(old_media) != sorted(new_media):
        return f"pictures and sounds: {old_media}, now {new_media}"
    old_text, new_text = printed(old), printed(new)
    if VARIES in old["metadata"].get("tags", ()):
        return "" if bool(old_text.strip()) == bool(new_text.strip()) else f"{old_text!r}, now {new_text!r}"
    if words(old_text) != words(new_text):
        return f"{old_text!r}, now {new_text!r}"
    pairs = zip(NUMBER.findall(old_text), NUMBER.findall(new_text), strict=True)
    far = [f"{before}, now {now}" for before, now in pairs if not is_close(before, now)]
    return "; ".join(far)


def words(text: str) -> str:
    return " ".join(NUMBER.sub("#", text).split())


def is_close(before: str, now: str) -> bool:
    a, b = (float(text.replace("−", "-")) for text in (before, now))
    decimals = re.search(r"\.(\d+)", before)
    last_digit = 1.01 * 10.0 ** -len(decimals[1]) if decimals and "e" not in before else 0.0
    return math.isclose(a, b, rel_tol=1e-2, abs_tol=last_digit)


def made(*outputs: dict, tags: tuple[str, ...] = ()) -> dict:
    return {"outputs": list(outputs), "metadata": {"tags": list(tags)}}


def stdout(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBO", "text/plain": "<Figure>"}}
SOUND = {"output_type": "display_data", "data": {"text/html": ["<audio controls>", "</audio>"]}}


@pytest.mark.parametrize(
    ("old", "new", "agree"),
    [
        (made(stdout("loss 0.52 of 300\n")), made(stdout("loss  0.53 of 300")), True),
        (made(stdout("loss 0.52 of 300\n")), made(stdout("loss 0.58 of 300")), False),
        (made(stdout("loss 0.52 of 300\n")), made(stdout("loss 0.52 of 310")), False),
        (made(stdout("loss 0.52")), made(stdout("error 0.52")), False),
        (made(stdout("loss 0.52")), made(stdout("")), False),
        (made(stdout("-0.52")), made(stdout("0.52")), False),
        (made(stdout("1234.5")), made(stdout("1240.5")), True),
        (made(stdout("a"), stdout("b")), made(stdout("ab")), True),
        (made(PICTURE, SOUND), made(SOUND, PICTURE), True),
        (made(PICTURE, SOUND), made(PICTURE), False),
        (made(PICTURE), made(PICTURE, PICTURE), False),
        (made(stdout("0.1"), tags=(VARIES,)), made(stdout("7 of 9")), True),
        (made(stdout("0.1"), tags=(VARIES,)), made(), False),
        (made(stdout("0.1"), PICTURE, tags=(VARIES,)), made(stdout("0.1")), False),
    ],
)
def test_stale_outputs_are_told_from_others(old, new, agree):
    assert (disagreement(old, new) == "") == agree


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_is_a_valid_notebook_of_bounded_size(path):
    assert path.stat().st_size <= MAX_BYTES
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", cell_id) for cell_id in ids)
    for cell in notebook["cells"]:
        own = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert cell["cell_type"] in ("code", "markdown") and own <= cell.keys()
        assert {"id", "metadata", "source", "cell_type"} | own >= cell.keys()


@each_notebook
def test_was_run_from_front_to_back_without_error_or_warning(path):
    cells = code_cells(read(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", joined(output["text"])


@each_notebook
def test_names_no_folder_of_a_machine(path):
    notebook = read(path)
    texts = [joined(cell["source"]) for cell in notebook["cells"]] + [printed(cell) for cell in code_cells(notebook)]
    assert not [found[0] for text in texts if (found := ABSOLUTE.search(text))]


@each_notebook
def test_has_three_exercises_sounds_and_pictures(path):
    notebook = read(path)
    text = "\n".join(joined(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert text.count("<details>") == text.count("</details>") == 3
    kinds = {kind for cell in code_cells(notebook) for output in cell["outputs"] for kind in media(output)}
    assert {"sound", "image/png"} <= kinds


@each_notebook
def test_each_player_has_a_link_to_its_sound_for_where_players_are_not_shown(path):
    cells = read(path)["cells"]
    for cell, below in zip(cells, [*cells[1:], None], strict=True):
        sounds = link_sounds.players(cell)
        if sounds:
            assert below["metadata"] == {"tags": [link_sounds.TAG]}
            links = re.findall(r"\]\((sounds/[^)]+\.ogg)\)", joined(below["source"]))
            for link, (_, (samples, rate_hz)) in zip(links, sounds, strict=True):
                info = soundfile.info(TUTORIALS / link)
                assert info.duration == pytest.approx(len(samples) / rate_hz, abs=0.01), link
                assert (TUTORIALS / link).stat().st_size < 20_000


@pytest.mark.parametrize("path", [*NOTEBOOKS, *TUTORIALS.glob("*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(joined(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.split("#")[0] for target in targets if not re.match(r"https?:|#", target)]
    assert not [target for target in local if not (TUTORIALS / target).exists()]


@pytest.fixture
def clone(tmp_path) -> Path:
    """The project as it was cloned: its files are linked, nothing that was made by running it is there."""
    folder = tmp_path / "clone"
    (folder / "tutorials").mkdir(parents=True)
    for entry in (*ROOT.iterdir(), *TUTORIALS.iterdir()):
        if entry.name not in OWN_STATE and not entry.name.startswith("."):
            (folder / entry.relative_to(ROOT)).symlink_to(entry)
    return folder


@each_notebook
def test_runs_and_agrees_with_its_outputs(path, clone):
    for needed in ("nbformat", "ipykernel", "matplotlib"):
        pytest.importorskip(needed, reason=f"{needed} is not installed; see requirements-tutorials.txt")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; see requirements-tutorials.txt")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    of_the_tests = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "MPLBACKEND")  # readers have none of these
    environment = {name: value for name, value in os.environ.items() if name not in of_the_tests}
    resources = {"metadata": {"path": str(clone / "tutorials")}}
    client = nbclient.NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources)
    client.execute(env=environment | {"JAX_PLATFORMS": "cpu"})
    for old, new in zip(code_cells(read(path)), code_cells(notebook), strict=True):
        found = disagreement(old, new)
        assert not found, f"cell [{old['execution_count']}], {joined(old['source'])[:200]}\n{found}"
        assert not [output for output in new["outputs"] if output.get("name") == "stderr"]
