"""Three channels: high resolution with q = 1, 4 and 8."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "mix_q1_q4_q8"
    config.spectral.channels = ("hires_q1", "hires_q4", "hires_q8")
    return config
