"""One channel: high resolution (linear reassignment, q = 4) on a log axis, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "hires_q4"
    config.spectral.channels = ("hires_q4",)
    return config
