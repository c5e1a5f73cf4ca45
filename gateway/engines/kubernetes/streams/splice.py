"""The program that joins an exec stream to a service's socket inside a pod (`frames`, `answers`)."""

PROGRAM = """
import os, socket, stat, struct, sys, threading
service = sys.argv[1]
def leave(word):
    os.write(1, word + b"\\n")
    os._exit(0)
place = "/run/devgw/" + service + ".sock"
try:
    path = os.open(place, os.O_PATH | os.O_NOFOLLOW)
except FileNotFoundError:
    leave(b"-absent")
except OSError:
    leave(b"-forged")
found = os.fstat(path)
if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
    leave(b"-forged")
peer = socket.socket(socket.AF_UNIX)
try:
    peer.settimeout(5)
    peer.connect("/proc/self/fd/%d" % path)
    peer.settimeout(None)
except OSError:
    leave(b"-refused")
os.write(1, b"+\\n")
source = os.fdopen(0, "rb", 262144)
def lost():
    os._exit(3)
def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
def inward():
    try:
        while True:
            head = source.read(4)
            if len(head) < 4:
                lost()
            size, = struct.unpack(">I", head)
            if not size:
                peer.shutdown(socket.SHUT_WR)
                ended.set()
                source.read(1)
                lost()
            data = source.read(size)
            if len(data) < size:
                lost()
            peer.sendall(data)
    except OSError:
        ended.set()
ended = threading.Event()
threading.Thread(target=inward, daemon=True).start()
buffer = bytearray(65540)
view = memoryview(buffer)
try:
    while True:
        size = peer.recv_into(view[4:])
        struct.pack_into(">I", buffer, 0, size)
        write(view[:4 + size])
        if not size:
            break
except OSError:
    lost()
ended.wait()
os._exit(0)
"""
"""Needs nothing but Python's own library; run as `python3 -I -c PROGRAM SERVICE`."""
