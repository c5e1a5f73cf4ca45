"""A session channel: the user's side, the environment's side, and the record that others see of it."""
