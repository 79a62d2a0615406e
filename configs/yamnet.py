"""YAMNet, trained on AudioSet, on its own log-mel patches at 16 kHz: a network with its channel."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "yamnet"
    config.dataset.sample_rate_hz = 16000
    config.spectral.channels = ("yamnet",)
    config.model.name = "yamnet"
    config.model.width = 32
    config.model.pretrained = "yamnet"  # downloaded; or the path of yamnet.h5, yamnet.safetensors or their folder
    config.model.normalization = "yamnet"
    return config
