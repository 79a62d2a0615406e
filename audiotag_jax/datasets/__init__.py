"""Clip sources (tables of clips), folds, the dataset builders and their reader."""
