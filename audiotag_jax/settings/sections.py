"""The sections of a configuration as frozen dataclasses: the fields of `configs/default.py`, each with its check.

A field with a default is newer than the first runs: the default is what runs did before there was such a field.
"""

import dataclasses
from typing import Annotated

from audiotag_jax.audio.decode import MAX_DURATION_S
from audiotag_jax.models.build import DTYPES, MODELS, TaggingNetwork, build_model
from audiotag_jax.models.efficientnet import LITE0
from audiotag_jax.models.head import POOLINGS
from audiotag_jax.models.resnet import BODIES, IMAGENET, IMAGENET_NETWORK
from audiotag_jax.models.yamnet import YAMNET
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.runtime.paths import check_path, check_written_path
from audiotag_jax.settings.checks import (
    BELOW_ONE,
    FREE,
    LOCAL,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Condition,
    at_least,
    between,
    check_fields,
    one_of,
)
from audiotag_jax.spectral.front_end import NORMALIZATIONS

LOSSES = ("cross_entropy", "focal", "lq")
INPUT_PLACES = ("auto", "device", "stream")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """The clips, and how they reach the network."""

    source: str
    path: Annotated[str, FREE, LOCAL]
    table: Annotated[str, FREE, LOCAL]
    download: Annotated[bool, FREE]
    prepared_dir: Annotated[str, FREE, LOCAL]
    num_threads: Annotated[int, at_least(0), FREE, LOCAL]
    sample_rate_hz: Annotated[int, at_least(1000)]
    duration_s: Annotated[
        float, Condition(lambda value: 0 < value <= MAX_DURATION_S, f"above 0 and at most {MAX_DURATION_S}")
    ]
    num_folds: Annotated[int, at_least(2)]
    fold_seed: Annotated[int, SEED]
    input: Annotated[str, one_of(INPUT_PLACES), FREE]
    num_workers: Annotated[int, at_least(0), FREE]
    on_the_fly: bool = False
    margin_s: Annotated[float, NOT_NEGATIVE, between(0, MAX_DURATION_S)] = 0.0
    beam_runner: Annotated[str, FREE, LOCAL] = ""
    beam_options: Annotated[str, FREE, LOCAL] = ""
    label_separator: Annotated[
        str, Condition(lambda value: len(value) <= 3 and not any(c.isalnum() for c in value), "such as , ; or |")
    ] = ""

    def __post_init__(self):
        check_fields(self, "dataset.")
        check_path("config.dataset.path", self.path)
        check_written_path("config.dataset.prepared_dir", self.prepared_dir)
        if self.table:
            check_path("config.dataset.table", self.table)
        elif self.label_separator:
            raise UserError(
                "config.dataset.label_separator divides the labels of a table: set config.dataset.table. A folder's "
                "name is one label."
            )


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """How recordings become clips."""

    sample_rate_hz: int = 22050
    duration_s: float = 2.0
    margin_s: float = 0.0  # by so much a clip is longer than its crop, half of it before and half after

    @property
    def length_samples(self) -> int:
        """Of the crop."""
        return max(1, round(self.duration_s * self.sample_rate_hz))

    @property
    def margin_samples(self) -> int:
        """On either side."""
        return round(self.margin_s / 2 * self.sample_rate_hz)

    @property
    def stored_samples(self) -> int:
        return self.length_samples + 2 * self.margin_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network and its first weights."""

    name: Annotated[str, one_of(MODELS)]
    width: Annotated[int, at_least(1)]
    dropout: Annotated[float, BELOW_ONE]
    dtype: Annotated[str, one_of(DTYPES)]
    pretrained: str
    init_from: str
    normalization: Annotated[str, one_of(NORMALIZATIONS)] = "none"

    def __post_init__(self):
        check_fields(self, "model.")
        if self.pretrained and self.init_from:
            raise UserError(
                "config.model.pretrained and config.model.init_from are both set; a network starts from one."
            )
        if self.pretrained and self.name not in (*BODIES, LITE0, YAMNET):
            raise UserError(
                f"config.model.pretrained is for {', '.join((*BODIES, LITE0, YAMNET))}, not for {self.name}."
            )
        if self.pretrained == IMAGENET and self.name not in (IMAGENET_NETWORK, LITE0):
            raise UserError(
                f"config.model.pretrained imagenet is {IMAGENET_NETWORK} or {LITE0}; for others name a file of weights."
            )

    @property
    def statistics(self) -> str:
        """The normalization of images by the statistics that the ImageNet weights of this body were trained with."""
        return "imagenet_lite" if self.normalization == "imagenet" and self.name == LITE0 else self.normalization

    def network(
        self, num_classes: int, axis_name: str | None = None, probe_pooling: str = "", probe_power: float = 1.0
    ) -> TaggingNetwork:
        """Builds the network; in training, batch norm averages over the pmapped axis `axis_name`.

        With a `probe_pooling`, it ends in the head of a probe.
        """
        return build_model(
            self.name,
            num_classes,
            width=self.width,
            dropout=self.dropout,
            dtype=self.dtype,
            axis_name=axis_name,
            probe_pooling=probe_pooling,
            probe_power=probe_power,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The budget, and what is kept."""

    batch_size: Annotated[int, at_least(1)]
    frozen_epochs: Annotated[int, at_least(0)]
    num_epochs: Annotated[int, at_least(0)]
    folds: Annotated[tuple[int, ...], FREE]
    inner_split: bool
    log_every_steps: Annotated[int, at_least(1), FREE]
    evaluate_every_epochs: Annotated[int, at_least(0), FREE]
    checkpoint_every_epochs: Annotated[int, at_least(1), FREE]
    unverified_weight: Annotated[float, between(0, 1)]
    compilation_cache: Annotated[bool, FREE]
    profile_steps: Annotated[int, at_least(0), FREE]
    probe: bool = False
    probe_pooling: Annotated[str, one_of(POOLINGS)] = "mean"
    probe_power: Annotated[float, POSITIVE, between(0, 1)] = 0.5
    loss: Annotated[str, one_of(LOSSES)] = "cross_entropy"
    focal_gamma: Annotated[float, POSITIVE] = 2.0
    lq_exponent: Annotated[float, POSITIVE, between(0, 1)] = 0.7
    class_weights: Annotated[str, one_of(("none", "balanced"))] = "none"
    sampling: Annotated[str, one_of(("uniform", "balanced"))] = "uniform"
    verified_epochs: Annotated[int, at_least(0)] = 0

    def __post_init__(self):
        check_fields(self, "train.")
        if self.frozen_epochs + self.num_epochs < 1:
            raise UserError(
                "config.train.frozen_epochs and config.train.num_epochs are both 0; there is nothing to train."
            )
        for name, usual in (("loss", "cross_entropy"), ("sampling", "uniform"), ("verified_epochs", 0)):
            if self.probe and (value := getattr(self, name)) != usual:
                raise UserError(f"config.train.{name} {value} is not for a probe, which is solved to its optimum.")
        if any(type(fold) is not int for fold in self.folds):  # True would be an int, too
            raise UserError(f"config.train.folds is {self.folds}; give numbers of folds, such as (0,) or (0, 1).")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW under one-cycle schedules."""

    frozen_learning_rate: Annotated[float, POSITIVE]
    learning_rate_low: Annotated[float, POSITIVE]
    learning_rate_high: Annotated[float, POSITIVE]
    warmup_fraction: Annotated[float, BELOW_ONE]
    start_divisor: Annotated[float, at_least(1)]
    end_divisor: Annotated[float, at_least(1)]
    momentum_high: Annotated[float, BELOW_ONE]
    momentum_low: Annotated[float, BELOW_ONE]
    beta2: Annotated[float, BELOW_ONE]
    epsilon: Annotated[float, POSITIVE]
    weight_decay: Annotated[float, NOT_NEGATIVE]
    label_smoothing: Annotated[float, BELOW_ONE]
    probe_penalty: Annotated[float, POSITIVE] = 30.0

    def __post_init__(self):
        check_fields(self, "optimizer.")


@dataclasses.dataclass(frozen=True)
class AugmentationSettings:
    """Largest changes, as shares of an axis or in dB; zero is off.

    The last two define what a gain does to an image: which of its channels are in dB (empty: all of them), and how many
    dB the range 0 to 1 of such a channel spans.
    """

    max_time_stretch: Annotated[float, SHARE] = 0.0
    max_frequency_shift: Annotated[float, SHARE] = 0.0
    max_time_shift: Annotated[float, SHARE] = 0.0
    time_masks: Annotated[int, at_least(0)] = 0
    max_time_mask: Annotated[float, SHARE] = 0.1
    frequency_masks: Annotated[int, at_least(0)] = 0
    max_frequency_mask: Annotated[float, SHARE] = 0.1
    mixup_alpha: Annotated[float, NOT_NEGATIVE] = 0.0
    max_gain_db: Annotated[float, between(0, 300)] = 0.0  # far more would overflow, and 0 times infinity is NaN
    db_channels: tuple[bool, ...] = dataclasses.field(default=(), metadata={"derived": True})
    range_db: float = dataclasses.field(default=80.0, metadata={"derived": True})

    def __post_init__(self):
        check_fields(self, "augment.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What mode study compares."""

    variants: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...]
    rate_factors: tuple[float, ...]
    search_epochs: int
    train: bool
    score: str = ""
    datasets: str = ""
    margin: Annotated[float, POSITIVE, BELOW_ONE] = 0.01

    def __post_init__(self):
        check_fields(self, "study.")
        factors = self.rate_factors
        if not self.seeds or any(type(seed) is not int for seed in self.seeds):
            raise UserError(f"config.study.seeds is {self.seeds}; give whole numbers, such as (0,) or (0, 1, 2).")
        if not factors or len(set(factors)) < len(factors) or not all(0 < float(factor) < 1e3 for factor in factors):
            raise UserError(
                f"config.study.rate_factors is {factors}; give numbers above 0, each once, such as (0.5, 1.0)."
            )
        if len(factors) > 1 and self.search_epochs < 1:
            raise UserError(f"config.study.search_epochs is {self.search_epochs}; it must be at least 1.")
