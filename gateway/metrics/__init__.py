"""What the gateway counts and measures, for Prometheus: which series there are and how they are read."""
