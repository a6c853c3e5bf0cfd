"""Random functions from n Boolean inputs to one Boolean output: maps that draw them, keys, and counts of samples."""
