"""Checks of driver, torch, device, mounts and limits. Torch is imported only when a check asks."""
