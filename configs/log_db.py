"""One channel: log frequency, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "log_db"
    config.spectral.channels = ("log_db",)
    return config
