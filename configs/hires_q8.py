"""One channel: high resolution (linear reassignment, q = 8) on a log axis, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "hires_q8"
    config.spectral.channels = ("hires_q8",)
    return config
