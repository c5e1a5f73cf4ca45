"""A user from one host to another: what is said of them, and the way there over OpenSSH and rsync."""
