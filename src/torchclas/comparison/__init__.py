"""Two deployments of what should be one model: where they part, and why."""
