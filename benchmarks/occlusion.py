"""Where in an image a study's finished networks find a class: the true class's logit lost when a cell is silenced.

    python benchmarks/occlusion.py --study=runs/study-probes/drums --variants=log_db,mel_db,hires_q2,hires_q8 \\
        --predictions=benchmarks/study/probes/predictions/drums --out=benchmarks/study/occlusion/drums

A cell is 16 x 16 points of the 224 x 224 image, set to 0: silence in every variant. Each clip is answered by the
network whose fold held it out. The clips are drawn evenly over classes by a hash of their ids, the same for every
variant. Cells that are silent already change nothing and are not computed. `maps.svg` shows the mean over clips, by
kind of sound (see PROTOCOL.md), each clip's map over its sum of absolute values; the tables show what follows from the
maps, and how each variant differs from the first one, paired by clip, with 95 % intervals over recordings, uncorrected.
With the maps saved in `--out`, `--tables` writes tables and plot again without networks.
"""

import argparse
import functools
import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiotag_jax.evaluation.intervals import bootstrap_means, recording_numbers  # noqa: E402
from audiotag_jax.evaluation.kinds import KINDS, kind_of  # noqa: E402
from audiotag_jax.evaluation.predictions import VALIDATION, load_predictions  # noqa: E402
from audiotag_jax.runtime.files import write_npz  # noqa: E402
from audiotag_jax.study import store  # noqa: E402
from audiotag_jax.study.across import class_descriptors  # noqa: E402
from audiotag_jax.study.markdown import table  # noqa: E402
from benchmarks.robustness import fold_dirs, is_saved  # noqa: E402

CELL, BATCH = 16, 32
BELOW_HZ = 500.0  # "low" cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of a study on one data set, where its runs are")
    parser.add_argument("--variants", required=True, help="names separated by commas, the baseline first")
    parser.add_argument("--predictions", required=True, type=Path, help="folder of the study's saved predictions")
    parser.add_argument("--clips", type=int, default=10, help="clips of each class")
    parser.add_argument("--out", required=True, type=Path, help="folder of maps, tables and plot")
    parser.add_argument("--tables", action="store_true", help="use the maps in --out")
    options = parser.parse_args()
    if not options.tables and options.study is None:
        parser.error("--study is needed, or --tables")
    options.out.mkdir(parents=True, exist_ok=True)
    variants = options.variants.split(",")
    for variant in () if options.tables else variants:
        folds = fold_dirs(options.study, variant)
        clips = drawn(folds, options.clips)
        if not is_saved(options.out / f"{variant}.npz", clips["ids"]):
            write_npz(options.out / f"{variant}.npz", **occlude_variant(folds, clips))
            print(f"{variant}: maps written to {options.out}", flush=True)
    paths = {variant: options.out / f"{variant}.npz" for variant in variants}
    for path in paths.values():
        if not path.exists():
            sys.exit(f"{path} is missing")
    saved = {variant: dict(np.load(path)) for variant, path in paths.items()}
    check_same_clips(saved)
    kinds = kinds_of_clips(store.read(options.predictions), saved[variants[0]]["ids"])
    text = tables(saved, kinds)
    (options.out / "report.md").write_text(text, encoding="utf-8")
    plot(saved, kinds, options.out / "maps.svg")
    print(text)


def drawn(folds: Mapping[int, Path], count: int) -> dict[str, np.ndarray]:
    """Returns `ids`, `labels`, `recordings`, `folds` of `count` held-out clips of each class, or of all that it has."""
    parts = []
    for fold, path in folds.items():
        saved = load_predictions(path / f"fold_{fold}" / VALIDATION)
        part = {name: saved[name] for name in ("ids", "labels", "recordings")}
        parts.append(part | {"folds": np.full(len(saved["ids"]), fold)})
    clips = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chosen = by_class(clips["ids"], clips["labels"], count)
    return {name: values[chosen] for name, values in clips.items()}


def by_class(ids: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Returns indices of `count` clips of each class, or of all that it has, by a hash of their ids."""
    order = np.argsort([hashlib.sha256(clip.encode()).hexdigest() for clip in ids.tolist()])
    return np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)])


def occlude_variant(folds: Mapping[int, Path], clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the `maps` [n, t, f] of the clips, with the given arrays of the clips and the axis of the cells in Hz."""
    from audiotag_jax.datasets.prepare import prepare_run_clips
    from audiotag_jax.datasets.reader import read_split
    from audiotag_jax.inference.tagger import round_to_half
    from audiotag_jax.settings.record import fold_dir, read_record
    from audiotag_jax.spectral.features import frequencies_hz
    from audiotag_jax.spectral.front_end import normalize, to_images
    from audiotag_jax.training.frozen_body import read_network

    record = read_record(next(iter(folds.values())))
    settings, num_classes = record.settings, len(record.classes)
    network, front_end = settings.network(num_classes), settings.waveform_front_end
    examples = read_split(prepare_run_clips(settings), "train")
    place = {clip: k for k, clip in enumerate(examples.ids.tolist())}
    images_of = jax.jit(lambda x: round_to_half(to_images(x, front_end)))

    @jax.jit
    def logits(variables, images):
        return network.apply(variables, normalize(images, front_end), train=False)

    variables = {fold: read_network(fold_dir(path, fold) / "checkpoints")[1] for fold, path in folds.items()}
    maps = []
    for clip, label, fold in zip(*(clips[name].tolist() for name in ("ids", "labels", "folds")), strict=True):
        waveform = jnp.asarray(examples.inputs[np.array([place[clip]])], jnp.float32)
        image = np.asarray(images_of(waveform)[0])
        answer = functools.partial(logits, variables[fold])
        maps.append(occlude(image, lambda images, answer=answer, label=label: answer(images)[:, label]))
    spectral = front_end.spectral
    axes = [frequencies_hz(channel, spectral) for channel in spectral.channels]
    if any(not np.array_equal(axis, axes[0]) for axis in axes):
        sys.exit(f"{settings.name}: its channels have different frequency axes, and a cell different frequencies")
    bins = axes[0].reshape(-1, CELL).mean(axis=1)
    return {**clips, "maps": np.array(maps, np.float16), "frequencies_hz": bins}


def occlude(image: np.ndarray, answer) -> np.ndarray:
    """Computes [T / 16, F / 16]: `answer` of the image [T, F, C] less that with each cell set to 0.

    `answer` maps [B, T, F, C] to [B].
    """
    steps, bins = (size // CELL for size in image.shape[:2])
    cells = [(t, f) for t in range(steps) for f in range(bins) if image[_cell(t, f)].any()]
    images = np.repeat(image[None], len(cells) + 1, axis=0)
    for number, (t, f) in enumerate(cells, start=1):
        images[number][_cell(t, f)] = 0
    padded = np.pad(images, ((0, -len(images) % BATCH), (0, 0), (0, 0), (0, 0)))
    found = np.concatenate([np.asarray(answer(part)) for part in np.split(padded, len(padded) // BATCH)])
    losses = np.zeros((steps, bins))
    for (t, f), value in zip(cells, found[1:], strict=False):
        losses[t, f] = found[0] - value
    return losses


def check_same_clips(saved: dict[str, dict[str, np.ndarray]]) -> None:
    """Exits where maps are of other clips than the first ones, as of an earlier call with other --clips."""
    first, *others = saved
    for variant in others:
        if saved[variant]["ids"].tolist() != saved[first]["ids"].tolist():
            sys.exit(f"the maps of {variant} and {first} are of different clips; remove one, or name another --out")


def _cell(t: int, f: int) -> tuple[slice, slice]:
    return slice(t * CELL, (t + 1) * CELL), slice(f * CELL, (f + 1) * CELL)


def kinds_of_clips(saved: store.Saved, ids: np.ndarray) -> np.ndarray:
    """Returns the kind [n] of each clip's class, from the descriptors of all clips of the data set."""
    kinds = {label: kind_of(*values) for label, values in class_descriptors(saved).items()}
    clips = saved.results.held_out
    label_of = dict(zip(clips.ids.tolist(), clips.labels.tolist(), strict=True))
    return np.array([kinds[label_of[clip]] for clip in ids.tolist()])


def measures(each: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns, by name, numbers [n] that describe each clip's map."""
    maps = each["maps"].astype(np.float64)
    sizes = np.abs(maps).reshape(len(maps), -1)
    total = np.maximum(sizes.sum(axis=1), 1e-12)
    ordered = np.sort(sizes, axis=1)[:, ::-1].cumsum(axis=1)
    low = each["frequencies_hz"] < BELOW_HZ
    return {
        "cells with half of the effect": (1.0 + (ordered < 0.5 * total[:, None]).sum(axis=1)) * sizes.any(axis=1),
        f"share below {BELOW_HZ:g} Hz": np.abs(maps[:, :, low]).sum(axis=(1, 2)) / total,
        "share of evidence against the class": np.maximum(-maps, 0).sum(axis=(1, 2)) / total,
        "largest loss of one cell (logit)": maps.max(axis=(1, 2)),
    }


def tables(saved: dict[str, dict[str, np.ndarray]], kinds: np.ndarray) -> str:
    """Returns, in Markdown, means of `measures` by variant and paired differences to the first, by kind of sound."""
    baseline, *others = saved
    found = {variant: measures(each) for variant, each in saved.items()}
    recordings = dict(zip(saved[baseline]["ids"].tolist(), saved[baseline]["recordings"].tolist(), strict=True))
    lines = [
        "# Loss of the true class's logit when one cell of the image is set to 0",
        "",
        f"{len(kinds)} clips that the networks had not seen; means, and in brackets the difference to `{baseline}`, "
        "95 % intervals over recordings, uncorrected.",
        "",
        "![Mean maps](maps.svg)",
        "",
    ]
    for kind in ("all", *(kind for kind in KINDS if (kinds == kind).any())):
        chosen = np.flatnonzero((kinds == kind) | (kind == "all"))
        groups = recording_numbers(saved[baseline]["ids"][chosen].tolist(), recordings)
        names = list(found[baseline])
        rows = [[f"`{baseline}`", *(f"{found[baseline][name][chosen].mean():.3g}" for name in names)]]
        for variant in others:
            cells = []
            for name in names:
                change = (found[variant][name] - found[baseline][name])[chosen]
                low = high = change[0]
                if np.ptp(change):
                    limits = bootstrap_means(change[:, None], change.min(), groups, highest=change.max())
                    low, high = limits.low[0], limits.high[0]
                mean = found[variant][name][chosen].mean()
                cells.append(f"{mean:.3g} ({change.mean():+.3g}: {low:+.3g} to {high:+.3g})")
            rows.append([f"`{variant}`", *cells])
        lines += [f"## {kind} ({len(chosen)} clips)", "", *table(("variant", *names), rows)]
    return "\n".join(lines)


def plot(saved: dict[str, dict[str, np.ndarray]], kinds: np.ndarray, path: Path) -> None:
    """Plots mean normalized maps, a row a variant, a column a kind of sound: red where silence lowers the logit."""
    from matplotlib.figure import Figure

    shown = [kind for kind in KINDS if (kinds == kind).any()]
    figure = Figure(figsize=(2.6 * len(shown) + 1, 1.9 * len(saved)), layout="constrained")
    axes = figure.subplots(len(saved), len(shown), squeeze=False)
    for row, (variant, each) in zip(axes, saved.items(), strict=True):
        maps = each["maps"].astype(np.float64)
        maps /= np.maximum(np.abs(maps).sum(axis=(1, 2), keepdims=True), 1e-12)
        for place, kind in zip(row, shown, strict=True):
            mean = maps[kinds == kind].mean(axis=0).T
            image = place.imshow(mean, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-0.02, vmax=0.02)
            ticks = range(0, len(mean), 3)
            place.set_yticks(ticks, [f"{each['frequencies_hz'][k]:.0f}" for k in ticks] if place is row[0] else [])
            place.set_xticks([])
            place.set_title(f"{variant}, {kind}", fontsize=8)
            place.tick_params(labelsize=7)
        row[0].set_ylabel("Hz", fontsize=8)
    for place in axes[-1]:
        place.set_xlabel("time, the whole clip", fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the clip's effect", shrink=0.6)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    path.write_text(buffer.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
