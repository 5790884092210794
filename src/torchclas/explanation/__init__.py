"""Where in a picture a network sees a class."""
