"""Small networks whose right answers are known: superposition, and computation in superposition."""
