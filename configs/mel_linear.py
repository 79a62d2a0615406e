"""One channel: mel frequency, magnitude."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "mel_linear"
    config.spectral.channels = ("mel_linear",)
    return config
