"""The frozen tree of all settings of a run. It is parsed once, at the entry; functions take the part that they need."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from audiotag_jax.models.build import TaggingNetwork
from audiotag_jax.models.waveform import STEM_SAMPLES
from audiotag_jax.models.yamnet import YAMNET
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.checks import SEED, read_section, recorded
from audiotag_jax.settings.sections import (
    AugmentationSettings,
    ClipSettings,
    DatasetSettings,
    ModelSettings,
    OptimizerSettings,
    StudySettings,
    TrainingSettings,
)
from audiotag_jax.spectral.features import SpectralSettings
from audiotag_jax.spectral.front_end import FrontEnd

WAVEFORM = "waveform"  # the network that takes waveforms, and the channel of a configuration without spectrograms
# Section of the configuration: its field in Settings, and its kind.
SECTIONS = {
    "dataset": ("dataset", DatasetSettings),
    "spectral": ("spectral", SpectralSettings),
    "model": ("model", ModelSettings),
    "train": ("training", TrainingSettings),
    "optimizer": ("optimizer", OptimizerSettings),
    "augment": ("augmentation", AugmentationSettings),
    "study": ("study", StudySettings),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run. What several parts need is derived here, once; `study` is None in a run's own record."""

    name: str  # of the variant
    preset: str
    seed: int
    dataset: DatasetSettings
    spectral: SpectralSettings
    model: ModelSettings
    training: TrainingSettings
    optimizer: OptimizerSettings
    augmentation: AugmentationSettings
    study: StudySettings | None = None

    def __post_init__(self):
        if not SEED.holds(self.seed):
            raise UserError(f"config.seed is {self.seed}; it must be {SEED.wanted}.")
        if (self.model.name == WAVEFORM) != (self.images is None):
            raise UserError("config.model.name waveform and config.spectral.channels ('waveform',) go together.")
        if YAMNET in (self.model.name, self.model.normalization) and self.spectral.channels != (YAMNET,):
            raise UserError("config.model.name yamnet and its normalization need config.spectral.channels ('yamnet',).")
        if (self.model.name == YAMNET) > (self.model.normalization == YAMNET):
            raise UserError("config.model.name yamnet needs config.model.normalization yamnet.")
        if self.training.probe and not (self.model.pretrained or self.model.init_from):
            raise UserError(
                "config.train.probe trains a linear classifier on the features of a pretrained network: "
                "name it by config.model.pretrained or config.model.init_from."
            )
        if self.dataset.margin_s and not self.trains_on_clips:
            raise UserError("config.dataset.margin_s needs config.dataset.on_the_fly: stored images have been cropped.")
        if self.model.name == WAVEFORM and self.clips.length_samples < STEM_SAMPLES:
            raise UserError(
                f"config.dataset.duration_s is too short: the waveform network needs {STEM_SAMPLES} samples or more, "
                f"not {self.clips.length_samples}."
            )

    @functools.cached_property
    def clips(self) -> ClipSettings:
        """How recordings become clips."""
        return ClipSettings(self.dataset.sample_rate_hz, self.dataset.duration_s, self.dataset.margin_s)

    def network(self, num_classes: int, axis_name: str | None = None) -> TaggingNetwork:
        """Builds the network, with the head of a probe if one is trained; `axis_name` as in `ModelSettings.network`."""
        training = self.training
        return self.model.network(
            num_classes, axis_name, training.probe_pooling if training.probe else "", training.probe_power
        )

    @property
    def comparison(self) -> StudySettings:
        """What a study compares; raises UserError in the settings of a run's own record, which leaves that out."""
        if self.study is None:
            raise UserError("These settings are of a single run: they have no section config.study.")
        return self.study

    @property
    def images(self) -> SpectralSettings | None:
        """Of the images that the network sees; None where it sees waveforms."""
        return self.spectral if self.spectral.channels != (WAVEFORM,) else None

    @property
    def trains_on_clips(self) -> bool:
        """Whether the steps take waveforms, and not stored images."""
        return self.dataset.on_the_fly or self.images is None

    @property
    def stored_images(self) -> SpectralSettings | None:
        """Of the images that are prepared in advance; None where there are none."""
        return None if self.trains_on_clips else self.images

    @functools.cached_property
    def front_end(self) -> FrontEnd:
        """How the steps make what the network sees of what the dataset contains."""
        return self.waveform_front_end if self.trains_on_clips else FrontEnd(normalization=self.model.statistics)

    @functools.cached_property
    def waveform_front_end(self) -> FrontEnd:
        """How what the network sees is made of waveforms."""
        return FrontEnd(self.clips.length_samples, self.images, self.model.statistics)


def parse_settings(config: Mapping[str, Any]) -> Settings:
    """Parses the nested mappings of a configuration or of a run's record; raises UserError, naming the field."""
    fields = {name: value for name, value in config.items() if name not in SECTIONS}
    unknown = sorted(fields.keys() - {"name", "preset", "seed"})
    absent = [name for name in ("name", "preset", "seed", *SECTIONS) if name not in config and name != "study"]
    if unknown or absent:
        listed = ", ".join((unknown or absent)[:5])
        raise UserError(f"The configuration has {'the unknown' if unknown else 'no'} {listed}.")
    sections: dict[str, Any] = {}
    for name, (attribute, kind) in SECTIONS.items():
        if name in config:
            sections[attribute] = read_section(kind, name, config[name], **_derived(name, sections))
    return Settings(**fields, **sections)


def recorded_fields(settings: Settings) -> dict[str, Any]:
    """Returns the nested mappings that a run's record keeps and `parse_settings` reads: all sections but `study`."""
    record: dict[str, Any] = {name: getattr(settings, name) for name in ("name", "preset", "seed")}
    for name, (attribute, kind) in SECTIONS.items():
        if name != "study":
            section = getattr(settings, attribute)
            record[name] = {field.name: _plain(getattr(section, field.name)) for field in recorded(kind)}
    return record


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by their path, its names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _derived(name: str, sections: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a section that follow from sections before it."""
    if name == "spectral":
        return {"sample_rate_hz": sections["dataset"].sample_rate_hz}
    if name == "augment":
        return {"db_channels": sections["spectral"].db_channels, "range_db": sections["spectral"].image_range_db}
    return {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
