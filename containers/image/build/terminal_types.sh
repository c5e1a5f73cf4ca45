#!/bin/sh
# Compile the terminal types that this system lacks into /brought/etc/terminfo, which ncurses reads before its own.
set -eu
out=/brought/etc/terminfo
mkdir -p "$out"
if ! command -v tic >/dev/null || ! command -v infocmp >/dev/null; then
    echo "no tic here: terminal types are the system's alone"
    exit 0
fi
if [ -d /etc/terminfo ]; then # what an administrator has added
    cp -RL /etc/terminfo/. "$out"
    rm -f "$out/README"
fi
lacking=
for name in $(sed -n 's/^\([a-z][a-z0-9-]*\)|.*/\1/p' /build/terminal_types.ti); do
    infocmp "$name" >/dev/null 2>&1 || lacking=$lacking${lacking:+,}$name
done
[ -z "$lacking" ] || tic -x -e "$lacking" -o "$out" /build/terminal_types.ti
echo "terminal types made: ${lacking:-none, the system has them all}"
