"""Sound files to waveforms: which files there are, decoding, cropping, and what counts as silence."""
