"""The algorithms the gateway speaks, first choice first (RFC 9142, RFC 8332, RFC 8709). Nothing rests on SHA-1."""

from gateway.config import ssh

CIPHERS = ssh.CIPHERS
MACS = ssh.ETM_MACS
SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""Accepted from users; `ssh-rsa` would be RSA with SHA-1."""
HOST_KEY = "ssh-ed25519"
QUICK_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""The quickest: towards environments from the start, towards users once a connection moves much (ADR 0010)."""
QUICK_CIPHER_CLIENTS = (b"SSH-2.0-OpenSSH_", b"SSH-2.0-AsyncSSH_")
"""Clients that are given them midway. libssh2 offers AES-GCM and stops for ever when a connection changes to it."""
