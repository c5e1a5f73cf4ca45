"""What is allowed: pure models, decisions and the shipped TOML. Enforcement stands in `gateway`."""
