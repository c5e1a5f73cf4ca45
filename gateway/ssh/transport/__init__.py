"""asyncssh's connection, channels and ciphers with bounds and at speed; nothing here knows users or policies."""
