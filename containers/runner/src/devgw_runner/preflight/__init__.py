"""Checks of driver, torch, device, mounts and limits. Nothing here imports torch until a check asks for it."""
