"""What the machine could do at best: one pass of a cipher over 32 KiB packets, by Python's library and by OpenSSL."""

import os
import subprocess
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

PACKET_BYTES = 32768


def python_rates() -> dict[str, float]:
    """Return MB per processor second of cryptography's AEADs, objects kept."""
    block, nonce = os.urandom(PACKET_BYTES), os.urandom(12)
    gcm, chacha = AESGCM(os.urandom(16)), ChaCha20Poly1305(os.urandom(32))
    return {
        "aes128-gcm": _rate(lambda: gcm.encrypt(nonce, block, b"")),
        "chacha20-poly1305": _rate(lambda: chacha.encrypt(nonce, block, b"")),
    }


def openssl_rates() -> dict[str, float]:
    """The same of `openssl speed`, which counts user time."""
    rates = {}
    for name, cipher in (("aes128-gcm", "aes-128-gcm"), ("chacha20-poly1305", "chacha20-poly1305")):
        command = ["openssl", "speed", "-seconds", "1", "-bytes", str(PACKET_BYTES), "-evp", cipher]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        rates[name] = float(done.stdout.split()[-1].rstrip("k")) / 1000
    return rates


def _rate(seal: Callable[[], bytes], times: int = 2000) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            seal()
        best = min(best, time.process_time() - began)
    return PACKET_BYTES * times / best / 1e6
