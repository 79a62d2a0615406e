"""Three channels: linear, mel and log frequency, decibels."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "mix_linear_mel_log"
    config.spectral.channels = ("linear_db", "mel_db", "log_db")
    return config
