"""All attacks of one user at once, and what another user feels of them."""
