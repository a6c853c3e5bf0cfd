"""Tasks that several studies use."""
