"""The study: variants x folds x seeds under one budget, its statistics and its report."""
