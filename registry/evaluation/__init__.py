"""Scores of models: measured in memory, kept by content, read back."""
