"""One channel: mel frequency, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "mel_db"
    config.spectral.channels = ("mel_db",)
    return config
