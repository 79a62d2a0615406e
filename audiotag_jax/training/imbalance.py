"""Rare classes: weights of classes in the loss, and epochs in which every class is drawn as often."""

import dataclasses
import functools

import numpy as np


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns weights `[K]` float32 of labels `[n]`: n / (K · clips of the class), as scikit-learn's "balanced".

    Of labels `[n, K]`, any number a clip: `[K, 2]`, n / (2 · clips with the class) and n / (2 · clips without it). The
    weight of what does not occur is 1.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    else:
        counts = np.stack([(labels == 1).sum(axis=0), (labels == 0).sum(axis=0)], axis=-1)
    total = counts.sum(axis=None if labels.ndim == 1 else -1, keepdims=True)
    return np.where(counts, total / (counts.shape[-1] * np.maximum(counts, 1)), 1.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Strata:
    """Positions of clips by class, without empty classes; a clip with several labels is in several of them."""

    members: tuple[np.ndarray, ...]


def strata_of(labels: np.ndarray, chosen: np.ndarray | None = None, *, balanced: bool = True) -> Strata:
    """Returns the strata of labels `[n]`, or of labels `[n, K]`, where clips without any label are one more.

    Of the `chosen` clips alone, a mask `[n]`, where it is given; all of them are one stratum unless `balanced`.
    """
    if not balanced:
        groups = [np.arange(len(labels))]
    elif labels.ndim == 1:
        groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    else:
        groups = [np.flatnonzero(column) for column in (labels == 1).T]
        groups.append(np.flatnonzero((labels != 1).all(axis=1)))
    if chosen is not None:
        groups = [group[chosen[group]] for group in groups]
    return Strata(tuple(group for group in groups if len(group)))


@functools.lru_cache(maxsize=3)  # as of the permutations of all clips
def balanced_epoch(strata: Strata, num_draws: int, seed: int, fold: int, epoch: int) -> np.ndarray:
    """Draws positions `[num_draws]`, shuffled; the numbers of draws of any two classes differ by one at most.

    Within a class so do those of its clips. A function of its arguments alone.
    """
    rng = np.random.default_rng((seed, fold, epoch, len(strata.members)))
    quotas = np.full(len(strata.members), num_draws // len(strata.members))
    quotas[rng.permutation(len(quotas))[: num_draws % len(quotas)]] += 1
    drawn = []
    for members, quota in zip(strata.members, quotas, strict=True):
        rounds = [rng.permutation(members) for _ in range(-(-quota // len(members)))]
        drawn.append(np.concatenate([members[:0], *rounds])[:quota])
    order = rng.permutation(np.concatenate(drawn))
    order.flags.writeable = False
    return order
