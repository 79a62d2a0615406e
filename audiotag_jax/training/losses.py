"""Targets of a batch, how much each of its examples counts, and what logits cost.

Targets are masses: `[B, K]`, a distribution over the classes, or, where a clip has any number of labels, `[B, K, 2]`,
for each class the mass of "present" and of "absent". Each is scaled by the weight of its example. Every loss is linear
in the masses, so that mixup may mix them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a class of probability p costs per mass: -log p; (1 - p)^gamma times that; or (1 - p^q) / q.

    `name` is cross_entropy, focal (Lin et al., ICCV 2017, arXiv:1708.02002) or lq, which noisy labels disturb less
    (generalized cross-entropy, Zhang & Sabuncu, 2018, arXiv:1805.07836).
    """

    name: str = "cross_entropy"
    focal_gamma: float = 2.0
    lq_exponent: float = 0.7

    def costs(self, log_p: jax.Array) -> jax.Array:
        """Returns the costs of log-probabilities of any shape; raises ValueError on an unknown name."""
        if self.name == "cross_entropy":
            return -log_p
        if self.name == "focal":
            rest = jnp.maximum(-jnp.expm1(log_p), 1e-12)  # at 0 a power below 1 has no gradient
            return -(rest**self.focal_gamma) * log_p
        if self.name == "lq":
            return -jnp.expm1(self.lq_exponent * log_p) / self.lq_exponent
        raise ValueError(f"Unknown loss {self.name!r}; choose from cross_entropy, focal, lq.")


CROSS_ENTROPY = Loss()


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """Returns one-hot rows `[B, K]` of labels `[B]`, `smoothing` spread over all classes; -1 gives a row near zero."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def example_weights(verified: jax.Array, labels: jax.Array, unverified_weight: float) -> jax.Array:
    """Returns weights `[B]` float32: 1 if `verified` `[B]`, `unverified_weight` elsewhere, 0 where labels `[B]` are -1.

    Trusts labels that nobody checked less. Raises ValueError unless `unverified_weight`, a plain number, is 0 to 1.
    """
    if not 0 <= unverified_weight <= 1:
        raise ValueError(f"unverified_weight is {unverified_weight}; it must be 0 to 1.")
    weights = jnp.where(verified, 1.0, unverified_weight)
    return jnp.where(labels >= 0, weights, 0.0).astype(jnp.float32)


def binary_masses(labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns masses `[B, K, 2]` of labels `[B, K]`: 1 present, 0 absent, -1 none; half of `smoothing` goes to each."""
    present = jnp.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
    return jnp.where((labels >= 0)[..., None], jnp.stack([present, 1 - present], axis=-1), 0.0).astype(jnp.float32)


def target_masses(
    labels: jax.Array,
    verified: jax.Array,
    num_classes: int,
    *,
    smoothing: float = 0.0,
    unverified_weight: float = 1.0,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns masses `[B, K]` of labels `[B]`, or `[B, K, 2]` of labels `[B, K]`, weighted as by `example_weights`.

    `class_weights` are `[K]` or `[K, 2]` (`imbalance.balanced_class_weights`).
    """
    if labels.ndim == 1:
        weights = example_weights(verified, labels, unverified_weight)
        if class_weights is not None:
            weights = weights * class_weights[labels]
        return weighted_targets(soft_targets(labels, num_classes, smoothing), weights)
    weights = example_weights(verified, jnp.zeros(len(labels), int), unverified_weight)
    masses = binary_masses(labels, smoothing) * weights[:, None, None]
    return masses if class_weights is None else masses * class_weights


def row_weights(masses: jax.Array) -> jax.Array:
    """Returns the weight `[B]` of each row of masses: its sum, of `[B, K, 2]` the mean over classes."""
    return masses.sum(-1) if masses.ndim == 2 else masses.sum((-1, -2)) / masses.shape[1]


def losses_of(logits: jax.Array, masses: jax.Array, loss: Loss = CROSS_ENTROPY) -> jax.Array:
    """Computes the weighted loss `[B]` of logits `[B, K]`; of masses `[B, K, 2]` the mean over classes."""
    if masses.ndim == 2:
        if loss == CROSS_ENTROPY:
            return optax.softmax_cross_entropy(logits, masses)
        return (masses * loss.costs(jax.nn.log_softmax(logits))).sum(-1)
    log_p = jnp.stack([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)], axis=-1)
    return (masses * loss.costs(log_p)).sum((-1, -2)) / logits.shape[1]


def right_first(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns, `[B]`, whether the class of the largest logit is a label of the row, of labels `[B]` or `[B, K]`."""
    first = logits.argmax(-1)
    if labels.ndim == 1:
        return first == labels
    return jnp.take_along_axis(labels, first[:, None], axis=1)[:, 0] == 1


def weighted_targets(targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Scales each row of targets `[B, K]` by its weight `[B]`, so that its cross-entropy is weighted.

    Scale before mixup: it mixes rows, and so weights, and cross-entropy is linear in the row. The loss of a share p of
    example i with 1 - p of j is then p w_i CE_i + (1 - p) w_j CE_j, and the row's sum is its weight, p w_i + (1 - p)
    w_j: the weighted mean of a batch is the sum of its real rows' losses over the sum of those rows' targets. The
    largest entry of a mixed row need no longer be the label of the example that has the larger share.
    """
    return targets * weights[:, None]
