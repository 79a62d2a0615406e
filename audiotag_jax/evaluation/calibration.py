"""Temperature scaling: calibrated probabilities (Guo et al., 2017, arXiv:1706.04599)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from audiotag_jax.evaluation.task import task_of

TEMPERATURES = (0.1, 10.0)  # between these the fitted one lies, however few or easy the clips
ENOUGH_CLIPS = 50  # verified ones, each class among them: then a calibration is fitted to these alone


def fitted_clips(labels: np.ndarray, verified: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns a mask [n] of the clips that a calibration is fitted to.

    These are the verified ones if they are enough (`ENOUGH_CLIPS`, and some of each class), since labels that nobody
    has checked are partly wrong; else all. `labels` [n] are 0 to K - 1, or [n, K] of 0 and 1.
    """
    verified = np.asarray(verified, bool)
    chosen = np.asarray(labels)[verified]
    seen = (chosen == 1).any(axis=0).sum() if chosen.ndim == 2 else len(np.unique(chosen))
    return verified if len(chosen) >= ENOUGH_CLIPS and seen == num_classes else np.ones(len(labels), bool)


def describe_fitted(fitted: np.ndarray) -> str:
    """Returns the number and the kind of the clips in a mask [n] of `fitted_clips`."""
    return f"{fitted.sum()} {'held-out clips' if fitted.all() else 'verified held-out clips'}"


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the T of least mean negative log-likelihood of softmax(logits / T); `logits` [n, K], `labels` [n].

    With labels [n, K] of 0 and 1, any number a clip, it is sigmoid(logits / T), and one T for all classes.

    T lies within `TEMPERATURES`: clips that are all right would otherwise drive it to 0. Without clips, or where no T
    is better than another, it is 1. Logits should be of clips that the network was not trained on. Raises ValueError
    on other shapes, on logits that are not finite and on labels that are none of the K classes.
    """
    logits = _checked(logits, labels)

    if len(labels) == 0:
        return 1.0
    if np.ndim(labels) == 2:  # every decision is one between two classes
        margins = np.where(np.asarray(labels) == 1, -logits, logits).reshape(-1, 1)
    else:
        own = np.arange(logits.shape[1]) == np.asarray(labels)[:, None]
        margins = np.where(own, -np.inf, logits - logits[own][:, None])

    def mean_loss(log_temperature: float) -> float:
        # Exact to the last digit for clips that are all but certain, too.
        return float(np.logaddexp(0, logsumexp(margins * np.exp(-log_temperature), axis=1)).mean())

    low, high = np.log(TEMPERATURES)
    # The loss is convex in 1 / T, so there is one minimum, or an end of the range is the best.
    found = minimize_scalar(mean_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(min((0.0, found.x, low, high), key=mean_loss)))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Returns the clips' mean |accuracy - confidence| in bins of equal width; `probabilities` [n, K], `labels` [n].

    Confidence is the largest probability; a bin includes its upper edge. With labels [n, K] of 0 and 1, decisions on
    all classes are compared: |share of labels - probability| within bins of the probability. NaN without clips. Raises
    ValueError as `fit_temperature` does.
    """
    probabilities = _checked(probabilities, labels)
    if len(labels) == 0:
        return float("nan")
    if np.ndim(labels) == 2:
        confidence, right = probabilities.ravel(), np.ravel(labels) == 1
    else:
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, right - confidence, minlength=num_bins)  # a bin's size times its gap
    return float(np.abs(gaps).sum() / len(right))


def cross_fitted_error(logits: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> float:
    """Returns the expected calibration error of clips, each under the temperature fitted to those of the other parts.

    `logits` [n, K], `labels` [n] or [n, K], `parts` [n]: clips with the same number are left out together. NaN without
    clips.
    """
    logits, parts = _checked(logits, labels), np.asarray(parts)
    temperatures = np.ones(len(logits))
    for part in np.unique(parts):
        inside = parts == part
        temperatures[inside] = fit_temperature(logits[~inside], np.asarray(labels)[~inside])
    return expected_calibration_error(task_of(labels).probabilities(logits, temperatures[:, None]), labels)


def _checked(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    several = np.ndim(labels) == 2
    if values.ndim != 2 or values.shape[1] < 1 or np.shape(labels) != values.shape[: 1 + several]:
        raise ValueError(f"expected [n, K] and labels [n] or [n, K], got {values.shape} and {np.shape(labels)}")
    if not np.isfinite(values).all():
        raise ValueError("The logits or probabilities contain NaN or infinity.")
    largest = 1 if several else values.shape[1] - 1
    if len(labels) and not 0 <= np.min(labels) <= np.max(labels) <= largest:
        raise ValueError(f"Labels must be 0 to {largest}.")
    return values
