"""Networks in the formats of other runtimes, and the proof that they compute the same there."""
