"""How fast networks are on this machine: timing them, keeping what was measured, choosing by it."""
