"""Checkpoints: published files and our own, how they are fetched, read, renamed, loaded and written."""
