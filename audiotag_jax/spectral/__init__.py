"""Spectrograms as pure functions on arrays: frequency scales, filterbanks, the power STFT, and images made of them."""
