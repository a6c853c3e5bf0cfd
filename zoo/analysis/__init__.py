"""Pure functions that analyse tensors: they take tensors or arrays and return numbers and tables."""
