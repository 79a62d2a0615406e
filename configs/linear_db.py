"""One channel: linear frequency, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "linear_db"
    config.spectral.channels = ("linear_db",)
    return config
