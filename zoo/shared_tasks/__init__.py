"""Tasks that several studies need."""
