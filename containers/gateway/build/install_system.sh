#!/bin/sh
# Install what the gateway needs of the distribution (Debian 12 or Ubuntu 24.04), without leaving build-time state.
set -eu
export DEBIAN_FRONTEND=noninteractive
if [ -s /build/ca-bundle.pem ]; then
    apt_options="-o Acquire::https::CAInfo=/build/ca-bundle.pem"
fi
# socat: probes and Prometheus reach the gateway's Unix socket through it.
# shellcheck disable=SC2086 # options are words
apt-get ${apt_options:-} update -q
# shellcheck disable=SC2086
apt-get ${apt_options:-} install -q -y --no-install-recommends ca-certificates python3 python3-venv socat tini

groupadd --gid 65532 devgw
useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin devgw
for directory in /var/lib/devgw /run/devgw /var/cache/devgw; do
    mkdir -p "$directory"
    chown devgw:devgw "$directory"
    chmod 700 "$directory"
done
mkdir -p /etc/devgw
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
apt-get clean
rm -rf /build /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*.log /var/log/apt
