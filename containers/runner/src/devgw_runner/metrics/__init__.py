"""What a run shows of itself: records, files, Prometheus, progress, GPU state."""
