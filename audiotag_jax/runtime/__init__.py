"""Shared infrastructure: errors, atomic files and locks, logging, processes, progress, memory, compilation cache."""
