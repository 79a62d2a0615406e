r"""Finds the events of a recording spliced from clips that the network never saw, and scores them.

    for fold in 1 2; do
      audiotag --config=yamnet:esc50_probe --config.dataset.duration_s=1 --config.train.folds=$fold \
          --workdir=runs/spliced-$fold
    done
    audiotag --mode=export --workdir=runs/spliced-1
    python benchmarks/spliced_recording.py --run=runs/spliced-1 --tuning_run=runs/spliced-2 --path=data/ESC-50 \
        --out=/tmp/spliced [--exported=runs/spliced-1/exported]

A recording of ten minutes is spliced from clips of the fold that a run held out: pause, clip, pause, …. The pauses, 2
to 6 s long, are in turn digital silence and faint noise, which goes on below the clip behind them. The true onset and
offset of a clip are where its first and last frame of 20 ms lies that is at most 30 dB below its loudest one.

Thresholds, smoothing, shortest event and gap are chosen on the recording of the fold that `tuning_run` held out, tagged
by its network, for the best onset-only F1 within 0.5 s. What is reported is another recording, of the other fold, by
the other network, with those settings; and, of an `exported` program of that network, whether its events are the same.
"""

import argparse
import csv
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import soundfile

from audiotag_jax import EventOptions, WindowOptions, find_events, load_tagger, window_scores
from audiotag_jax.evaluation.events import Event, event_scores, match_events, segment_scores
from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions
from audiotag_jax.inference.events import WindowScores, smooth_scores
from audiotag_jax.settings.record import fold_dir

RATE_HZ, FRAME_SAMPLES = 16_000, 320
RANGE_DB = 30.0
PAUSES_S = (2.0, 6.0)
LEVEL_DB, NOISE_DB = -20.0, -60.0  # of the clips' loudest 20 ms, and of the noise; of full scale
COLLAR_S = 0.5
SMOOTHING = {"smooth_windows": (1, 5, 9, 15, 21), "smoothing": ("median", "mean")}
GRID = {
    "on_threshold": (0.3, 0.5, 0.7, 0.8, 0.9),
    "off_share": (0.125, 0.25, 0.5, 0.75),  # of the former
    "min_duration_s": (0.0, 0.3, 0.6),
    "min_gap_s": (0.0, 1.0, 2.0, 4.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="work directory of a run of one fold")
    parser.add_argument("--tuning_run", type=Path, required=True, help="the same with another fold")
    parser.add_argument("--path", type=Path, required=True, help="a folder in the layout of ESC-50")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recordings and their tables")
    parser.add_argument("--exported", type=Path, help="folder of tagger.stablehlo, exported from --run")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hop_s", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tuner, tagger = load_tagger(options.tuning_run), load_tagger(options.run)
    if len(tuner.folds) != 1 or len(tagger.folds) != 1 or tuner.folds == tagger.folds:
        parser.error("the runs are not of one fold each, or of the same: clips must be new to the network")
    (tuning_fold,), (fold,), duration_s = tuner.folds, tagger.folds, 60 * options.minutes
    recording, true = splice(options.path, options.out, options.tuning_run, tuning_fold, duration_s, options.seed)
    scores = window_scores(recording, tuner.probabilities, tuner.event_windows(options.hop_s))
    chosen = choose(scores, tuner.classes, true)
    print(f"chosen on fold {tuning_fold}: {chosen}")
    report(f"fold {tuning_fold}, on which they were chosen", true, find_events(*scores, tuner.classes, chosen))
    recording, true = splice(options.path, options.out, options.run, fold, duration_s, options.seed)
    found = tagger.events(recording, hop_s=options.hop_s, options=chosen)
    report(f"fold {fold}", true, found)
    write_events(options.out / f"found_fold_{fold}.csv", recording, found)
    if options.exported:
        for name, theirs in exported_events(options.exported, recording, options.hop_s, chosen):
            print(f"{name}: {describe_difference(found, theirs)}")
            report(f"fold {fold}, {name}", true, theirs)


def splice(source: Path, out: Path, run: Path, fold: int, duration_s: float, seed: int) -> tuple[Path, list[Event]]:
    """Writes `fold_F.wav`, of clips that the run held out, and the table of its events; returns both.

    Clips are drawn without replacement.
    """
    held_out = {*load_predictions(fold_dir(run, fold) / VALIDATION)["ids"].tolist()}
    with (source / "meta" / "esc50.csv").open(newline="") as file:
        clips = sorted((row["filename"], row["category"]) for row in csv.DictReader(file))
    clips = [clip for clip in clips if clip[0] in held_out]
    assert len(clips) == len(held_out), "the run is not of the clips in --path"
    rng = np.random.default_rng((seed, fold))
    total = round(duration_s * RATE_HZ)
    recording, is_noisy = np.zeros(total, np.float32), np.zeros(total, bool)
    events: list[Event] = []
    position = 0
    for number, place in enumerate(rng.permutation(len(clips))):
        pause = round(rng.uniform(*PAUSES_S) * RATE_HZ)
        name, category = clips[place]
        clip = read_clip(source / "audio" / name)
        start = position + pause
        if start + len(clip) + PAUSES_S[0] * RATE_HZ > total:
            break
        first, last = audible_part(clip)
        recording[start : start + len(clip)] = clip
        is_noisy[position : start + len(clip)] = number % 2 == 1
        events.append(Event(category, (start + first) / RATE_HZ, (start + last) / RATE_HZ))
        position = start + len(clip)
    noise = 10 ** (NOISE_DB / 20) * rng.standard_normal(total).astype(np.float32)
    recording += np.where(is_noisy, noise, 0)
    path = out / f"fold_{fold}.wav"
    soundfile.write(path, recording / max(1.0, np.abs(recording).max()), RATE_HZ, subtype="FLOAT")
    write_events(out / f"true_fold_{fold}.csv", path, events)
    return path, events


def read_clip(path: Path) -> np.ndarray:
    """Reads the clip at 16 kHz, mono, its loudest frame scaled to LEVEL_DB."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(axis=1)
    if rate_hz != RATE_HZ:
        import librosa

        samples = librosa.resample(samples, orig_sr=rate_hz, target_sr=RATE_HZ)
    return samples * 10 ** ((LEVEL_DB - levels_db(samples).max()) / 20)


def levels_db(samples: np.ndarray) -> np.ndarray:
    """Returns the level of each whole frame, in dB of its mean square."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12)


def audible_part(samples: np.ndarray) -> tuple[int, int]:
    """Returns the first sample of the first audible frame, and the end of the last one."""
    levels = levels_db(samples)
    audible = np.flatnonzero(levels >= levels.max() - RANGE_DB)
    return int(audible[0]) * FRAME_SAMPLES, int(audible[-1] + 1) * FRAME_SAMPLES


def choose(scores: WindowScores, classes: tuple[str, ...], true: list[Event]) -> EventOptions:
    """Returns the settings of SMOOTHING and GRID with the best onset-only F1 within COLLAR_S; of equals the first."""
    best, chosen = -1.0, EventOptions()
    for smoothing in products(SMOOTHING):
        smooth = scores._replace(scores=smooth_scores(scores.scores, EventOptions(**smoothing)))
        for named in products(GRID):
            off_threshold = round(named.pop("off_share") * named["on_threshold"], 4)
            options = EventOptions(**named, off_threshold=off_threshold)
            found = {"": find_events(*smooth, classes, options)}
            f1 = event_scores({"": true}, found, collar_s=COLLAR_S, with_offset=False)["f1"]
            if f1 > best:
                best, chosen = f1, dataclasses.replace(options, **smoothing)
    return chosen


def products(grid: dict[str, tuple]) -> list[dict]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def report(name: str, true: list[Event], found: list[Event]) -> None:
    """Prints the scores, and how far the onsets of events that overlap one of the same tag are off."""
    for collar_s in (0.2, COLLAR_S):
        for what, with_offset in (("onset", False), ("onset and offset", True)):
            scores = event_scores({"": true}, {"": found}, collar_s=collar_s, with_offset=with_offset)
            counts = f"{scores['correct']} of {scores['reference']}, {scores['estimated']} found"
            print(f"{name}: {what} within {collar_s:g} s: F1 {scores['f1']:.3f} ({counts})")
    print(f"{name}: segments of 1 s: F1 {segment_scores({'': true}, {'': found})['f1']:.3f}")
    pairs = match_events(true, found, collar_s=5.0, with_offset=False)
    errors = np.array([abs(true[i].onset_s - found[j].onset_s) for i, j in pairs])
    within = int((errors <= COLLAR_S).sum())
    print(
        f"{name}: {len(pairs)} clips with an event of their tag within 5 s: onsets off by {np.median(errors):.2f} s "
        f"(median), {within} of {len(pairs)} within {COLLAR_S:g} s"
    )


def exported_events(folder: Path, recording: Path, hop_s: float, chosen: EventOptions):
    """Yields the kinds of exported programs and the events by each."""
    from jax import export

    about = json.loads((folder / "tagger.json").read_text())
    options = WindowOptions(
        about["sample_rate_hz"], about["length_samples"], max(1, round(hop_s * about["sample_rate_hz"]))
    )
    programs = {"tagger.stablehlo": export.deserialize(bytearray((folder / "tagger.stablehlo").read_bytes())).call}
    if (folder / "tagger.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "tagger.onnx")
        programs["tagger.onnx"] = lambda waveforms: session.run(None, {"waveforms": waveforms})[0]
    for name, program in programs.items():
        yield name, find_events(*window_scores(recording, program, options), about["classes"], chosen)


def describe_difference(ours: list[Event], theirs: list[Event]) -> str:
    if [event[:3] for event in ours] != [event[:3] for event in theirs]:
        return f"other events than the run's ({len(theirs)} and {len(ours)})"
    largest = max((abs(a.score - b.score) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    return f"the same {len(ours)} events as the run, scores equal to {largest:.1g}"


def write_events(path: Path, recording: Path, events: list[Event]) -> None:
    with path.open("w", newline="") as file:
        rows = [(recording.name, f"{each.onset_s:.3f}", f"{each.offset_s:.3f}", each.tag) for each in events]
        csv.writer(file).writerows([("file", "onset_s", "offset_s", "label"), *rows])


if __name__ == "__main__":
    main()
