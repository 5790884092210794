"""Galleries: pictures that are found again, and classes that are recognised by example, without training."""
