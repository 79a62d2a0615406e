"""Three channels: high resolution with q = 1 and 8, and the log spectrogram, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "mix_q1_q8_log"
    config.spectral.channels = ("hires_q1", "hires_q8", "log_db")
    return config
