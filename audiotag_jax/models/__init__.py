"""Networks that map spectrogram images `[B, T, F, C]` or waveforms to logits `[B, K]`."""
