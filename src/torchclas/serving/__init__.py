"""The HTTP service: models behind routes of its own, and those of the Open Inference Protocol."""
