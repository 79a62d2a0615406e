"""Mode `doctor`: the audit of a data folder before training."""
