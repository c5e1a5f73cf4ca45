"""The inside of an environment: one supervisor, SSH listener and notebook server, all as the user."""
