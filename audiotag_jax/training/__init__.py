"""From prepared datasets to trained networks: input pipeline, steps, checkpoints and the loop."""
