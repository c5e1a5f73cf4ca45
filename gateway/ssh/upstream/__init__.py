"""The gateway's own way into environments: wake, connect, run."""
