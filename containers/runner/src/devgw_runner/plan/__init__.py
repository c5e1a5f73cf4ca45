"""Every choice the runner makes for a user, with its reason; pure functions of measured facts."""
