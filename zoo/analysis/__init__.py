"""Pure functions: tensors in, numbers and tables out."""
