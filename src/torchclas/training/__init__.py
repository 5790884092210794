"""Training: schedules, optimizers, losses, and the loop that puts them to work."""
