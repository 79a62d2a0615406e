"""One channel: linear frequency, magnitude."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "linear_linear"
    config.spectral.channels = ("linear_linear",)
    return config
