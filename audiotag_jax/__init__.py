"""Audio tagging with spectrograms in JAX and Flax."""
