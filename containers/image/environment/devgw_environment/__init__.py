"""The inside of an environment: one supervisor, one SSH listener, one notebook server, all as the environment's user."""
