"""One channel: high resolution (linear reassignment, q = 2) on a log axis, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "hires_q2"
    config.spectral.channels = ("hires_q2",)
    return config
