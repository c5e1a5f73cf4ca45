"""Run a script that knows nothing of the runner: environment, signals, logs and GPU metrics around it."""
