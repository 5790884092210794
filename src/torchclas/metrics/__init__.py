"""Figures of merit from scores and labels, with NumPy alone."""
