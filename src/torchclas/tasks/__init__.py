"""What one does with a model; each command of the CLI is one of these modules."""
