"""Models ready to classify: what library users, commands and servers share."""
