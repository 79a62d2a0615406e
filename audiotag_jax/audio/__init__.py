"""Sound files to waveforms: listing, decoding, cropping, and the definition of silence."""
