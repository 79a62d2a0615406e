"""Links to the sounds of the executed notebooks, since GitHub shows no players; run it after executing them.

    python tutorials/link_sounds.py

Writes each player's sound as a small Ogg file to `sounds/`, and below each cell with players a line with links.
"""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr

FOLDER = Path(__file__).parent
TAG, RATE_HZ = "sounds", 16000
_PLAYER = re.compile(r'src="data:audio/[\w.+-]+;base64,([^"]+)"')
_CAPTION = re.compile(r'<div style="margin: 4px 0">(.*?)<br>')


def main() -> None:
    """Rewrites the links of all notebooks and the folder of sounds."""
    written = set()
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells, number = [], 0
        for cell in notebook["cells"]:
            if TAG in cell["metadata"].get("tags", ()) and cell["cell_type"] == "markdown":
                continue
            cells.append(cell)
            links = []
            for caption, sound in players(cell):
                number += 1
                name = f"{path.stem[:2]}_{number:02d}.ogg"
                write_sound(FOLDER / "sounds" / name, *sound)
                written.add(name)
                links.append(f"[{caption or f'sound {number}'}](sounds/{name})")
            if links:
                cells.append(link_cell(f"sounds-{number}", links))
        notebook["cells"] = cells
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in (FOLDER / "sounds").glob("*.ogg"):
        if path.name not in written:
            path.unlink()


def players(cell: dict) -> list[tuple[str, tuple[np.ndarray, int]]]:
    """Caption, "" if there is none, and (samples [N], rate in Hz) of each player among the outputs of a cell.

    A player without a caption has the line that was printed just before it.
    """
    found, printed = [], ""
    for output in cell.get("outputs", ()):
        printed_before, printed = printed, "".join(output.get("text", "")).rstrip().rpartition("\n")[2].rstrip(":")
        text = "".join(output.get("data", {}).get("text/html", ""))
        sounds = _PLAYER.findall(text)
        captions = [html.unescape(each) for each in _CAPTION.findall(text)] or [printed_before] * len(sounds)
        for caption, encoded in zip(captions, sounds, strict=True):
            samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
            found.append((caption, (samples if samples.ndim == 1 else samples.mean(1), rate_hz)))
    return found


def write_sound(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    """Writes an Ogg file, unless it has that sound already: the bytes would differ all the same."""
    if rate_hz > RATE_HZ:
        samples, rate_hz = soxr.resample(samples, rate_hz, RATE_HZ), RATE_HZ
    if path.exists():
        old, old_rate_hz = soundfile.read(path)
        if old_rate_hz == rate_hz and len(old) == len(samples) and np.corrcoef(old, samples)[0, 1] > 0.9:
            return
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, rate_hz, format="OGG", subtype="VORBIS", compression_level=0.9)


def link_cell(cell_id: str, links: list[str]) -> dict:
    """A Markdown cell with links, one line."""
    line = f"*Without players, as on GitHub:* {', '.join(links)}"
    return {"cell_type": "markdown", "id": cell_id, "metadata": {"tags": [TAG]}, "source": [line]}


if __name__ == "__main__":
    main()
