"""One file for each spectrogram variant, on top of the fields that `default.py` lists."""
