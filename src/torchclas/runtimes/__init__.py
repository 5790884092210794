"""Runtimes of phones, as guests of our process: what runs a file of theirs. Importing these modules imports none."""
