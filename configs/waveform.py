"""No spectrogram: a one-dimensional network on the waveforms."""

from configs import default


def get_config(preset: str = "fsdkaggle2018"):
    config = default.get_config(preset)
    config.name = "waveform"
    config.spectral.channels = ("waveform",)
    config.model.name = "waveform"
    if config.model.pretrained:  # there are no such weights for waveforms: random ones, as many epochs
        config.model.pretrained, config.model.normalization = "", "none"
        config.train.num_epochs, config.train.frozen_epochs = config.train.num_epochs + config.train.frozen_epochs, 0
        config.train.probe = False
        config.optimizer.learning_rate_low, config.optimizer.learning_rate_high = 1e-3, 3e-3
    return config
