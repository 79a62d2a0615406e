"""Scores, intervals, calibration and submissions: pure functions of saved predictions."""
