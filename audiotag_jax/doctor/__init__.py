"""The audit of a data folder before any training."""
