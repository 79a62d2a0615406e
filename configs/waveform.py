"""No spectrogram: a one-dimensional network on the clips themselves."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "waveform"
    config.spectral.channels = ("waveform",)
    config.model.name = "waveform"
    config.model.pretrained = ""  # there are no pictures' weights for it
    config.model.normalization = "none"
    return config
