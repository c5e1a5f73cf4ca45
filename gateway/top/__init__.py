"""What is there just now, drawn for terminals: graphs, and what a user sees of their own through SSH."""
