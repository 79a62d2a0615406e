"""One channel: log frequency, magnitude."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "log_linear"
    config.spectral.channels = ("log_linear",)
    return config
