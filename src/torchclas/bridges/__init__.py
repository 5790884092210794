"""Bridges to other projects: what their files say, in our terms."""
