"""Prints what decoding makes of files, beside what FFmpeg makes of them (with PyAV).

python benchmarks/decode_cases.py FILES OR FOLDERS
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.audio.decode import AudioError, load_audio  # noqa: E402
from audiotag_jax.audio.level import is_silent  # noqa: E402


def main() -> None:
    names = map(Path, sys.argv[1:])
    paths = [path for name in names for path in (sorted(name.rglob("*")) if name.is_dir() else [name])]
    print("| file | FFmpeg | outcome |\n| --- | --- | --- |")
    for path in paths:
        if path.is_file():
            print(f"| {path.name} | {reference(path)} | {outcome(path)} |", flush=True)


def outcome(path: Path) -> str:
    try:
        samples, note = load_audio(path, 22050)
    except AudioError as error:
        return f"error: {error}"
    silent = "silent" if is_silent(samples) else ""
    return "; ".join(filter(None, (f"{len(samples) / 22050:.2f} s", note, silent)))


def reference(path: Path) -> str:
    try:
        import av
    except ImportError:
        return "no PyAV"
    seconds = 0.0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.audio[0]):
                seconds += frame.samples / frame.sample_rate
    except (av.FFmpegError, IndexError, ValueError) as error:
        return f"{seconds:.2f} s, then {type(error).__name__}" if seconds else type(error).__name__
    return f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
