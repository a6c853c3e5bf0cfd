"""One file per question: runs and their analysis, ending in a table and a picture."""
