"""The `devcontainer.json` of a project in the workspace: found, read and carried out as the user, inside.

Nothing of it reaches the gateway: what is asked for beyond the user's own rights is left out and said.
"""
