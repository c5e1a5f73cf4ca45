#!/bin/sh
# Install the distribution's packages of an environment (Debian 12 or Ubuntu 24.04), without leaving build-time state.
set -eu
export DEBIAN_FRONTEND=noninteractive

# NVIDIA's own repository is in the CUDA base but nothing is taken from it: PyTorch's wheels bring CUDA.
rm -f /etc/apt/sources.list.d/cuda*.list /etc/apt/sources.list.d/cuda*.sources
if [ -s /build/ca-bundle.pem ]; then
    apt_options="-o Acquire::https::CAInfo=/build/ca-bundle.pem"
fi

# A compiler and Python's headers: torch.compile builds C++ (CPU) and Triton's launcher (CUDA) at run time.
# shellcheck disable=SC2086 # options are words
apt-get ${apt_options:-} update -q
# shellcheck disable=SC2086
apt-get ${apt_options:-} install -q -y --no-install-recommends \
    bash ca-certificates curl g++ gcc git gzip less libc6-dev nano openssh-client openssh-server openssh-sftp-server \
    procps python3 python3-dev python3-venv rsync tar tini tmux unzip vim-tiny wget xz-utils

# A company's CA stays only when the administrator asked for it.
if [ -s /build/ca-bundle.pem ] && [ -n "${KEEP_CA_BUNDLE:-}" ]; then
    mkdir -p /usr/local/share/ca-certificates
    awk '/BEGIN CERTIFICATE/ { n++ } n { print > sprintf("/usr/local/share/ca-certificates/site-%03d.crt", n) }' /build/ca-bundle.pem
    update-ca-certificates >/dev/null
fi

# Host keys belong to an environment, not to an image; logins and root's crontabs have no place here.
rm -f /etc/ssh/ssh_host_*
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
mkdir -p /workspace /checkpoints /logs /datasets /run/devgw /etc/devgw/env
chmod 1777 /workspace /checkpoints /logs
apt-get clean
rm -rf /build /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*.log /var/log/apt
