#!/bin/sh
# Install the Python packages that the gateway runs with into /opt/devgw, and what builds its wheel into /build/tools.
set -eu
[ -s /build/ca-bundle.pem ] && export PIP_CERT=/build/ca-bundle.pem
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off PIP_ROOT_USER_ACTION=ignore

where=
if ls /build/wheelhouse/*.whl >/dev/null 2>&1; then
    where="--no-index --find-links /build/wheelhouse"
elif [ -n "${INDEX_URL:-}" ]; then
    where="--index-url $INDEX_URL"
fi
python3 -m venv /opt/devgw
# shellcheck disable=SC2086 # options are words
/opt/devgw/bin/python -m pip install --require-hashes --no-deps $where -r /build/locks/run.lock
# shellcheck disable=SC2086
/opt/devgw/bin/python -m pip install --require-hashes --no-deps $where --target /build/tools -r /build/locks/build.lock
