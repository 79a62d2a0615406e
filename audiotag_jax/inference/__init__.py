"""Trained networks at work on recordings: tagging and export, without datasets or optimizers."""
