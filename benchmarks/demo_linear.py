"""How far a linear classifier of mean spectra gets on the demo's sounds, and how much further a run of the demo got.

    python main.py --config=configs/log_db.py:demo
    python benchmarks/demo_linear.py --workdir=runs/log_db-demo

The classifier is scikit-learn's logistic regression on the mean over time of 64 log-mel bands, its penalty chosen by
cross-validation inside the training clips of each fold. Both are scored on held-out clips with verified labels.
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiotag_jax.audio.decode import load_audio
from audiotag_jax.datasets.sources import open_source
from audiotag_jax.evaluation.intervals import interval_95
from audiotag_jax.evaluation.predictions import VALIDATION, concatenate, load_predictions
from audiotag_jax.settings.record import fold_dir, read_record

PENALTIES = np.logspace(-4, 1, 6)  # C of scikit-learn
INNER_FOLDS = 3


def main() -> None:
    """Prints accuracies on the held-out verified clips of the run's folds, with intervals, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run of the demo")
    workdir = parser.parse_args().workdir
    settings = read_record(workdir).settings.dataset
    source = open_source("demo", settings.path, num_folds=settings.num_folds, seed=settings.fold_seed)
    clips = {clip.id: clip for clip in source.clips if clip.split == "train"}
    files = [fold_dir(workdir, fold) / VALIDATION for fold in range(settings.num_folds)]
    saved = concatenate([load_predictions(path) for path in files if path.exists()])
    network = dict(zip(saved["ids"].tolist(), saved["logits"].argmax(1) == saved["labels"], strict=True))
    linear = linear_hits(list(clips.values()))
    scored = [clip for clip in network if clips[clip].verified]
    hits = {"linear": [linear[clip] for clip in scored], "network": [network[clip] for clip in scored]}
    values = {name: np.array(each, float) for name, each in hits.items()}
    values["network - linear"] = values["network"] - values["linear"]
    print(f"accuracy on {len(scored)} held-out verified clips of {len(source.classes)} classes, 95 % intervals")
    for name, each in values.items():
        low, high = interval_95(each)
        print(f"{name:18}{each.mean():.3f} ({low:.3f} to {high:.3f})")


def linear_hits(clips: list) -> dict[str, bool]:
    """Returns, by clip, whether the classifier that was not trained on its fold gives its label."""
    features = np.stack([mean_spectrum(clip.path) for clip in clips])
    labels, folds = (np.array([getattr(clip, name) for clip in clips]) for name in ("label", "fold"))
    found = np.empty_like(labels)
    for fold in np.unique(folds):
        held_out = folds == fold
        classifier = LogisticRegressionCV(Cs=PENALTIES, cv=INNER_FOLDS, max_iter=3000)
        model = make_pipeline(StandardScaler(), classifier).fit(features[~held_out], labels[~held_out])
        found[held_out] = model.predict(features[held_out])
    return dict(zip([clip.id for clip in clips], found == labels, strict=True))


def mean_spectrum(path: str) -> np.ndarray:
    """Returns the mean [64] over time of log-mel energies in dB below the clip's own maximum."""
    samples, _ = load_audio(path, 22050)
    power = librosa.feature.melspectrogram(y=samples, sr=22050, n_mels=64)
    return librosa.power_to_db(power, ref=np.max).mean(axis=1)


if __name__ == "__main__":
    main()
