"""The version of this package; a leaf, so that every layer can write it into what it makes."""

__version__ = "0.1.0"
