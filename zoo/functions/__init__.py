"""Boolean functions, maps from parameters to functions, and the complexities of functions."""
