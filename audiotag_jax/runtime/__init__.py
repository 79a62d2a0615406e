"""What every program needs: errors, atomic files and locks, processes, progress, memory, compilation."""
