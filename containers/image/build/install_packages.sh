#!/bin/sh
# Install the Python packages of a profile into /opt/devgw: the lock file with its hashes, then torch.
set -eu
lock=/build/profiles/${LOCK:-$PROFILE}.lock
torch_lock=/build/profiles/${TORCH_LOCK:-$PROFILE}.torch.lock
if [ -n "${MACHINE:-}" ] && [ "$(uname -m)" != "$MACHINE" ]; then
    echo "the profile '$PROFILE' is for $MACHINE and this builder is $(uname -m): build it on such a machine" >&2
    exit 1
fi
[ -f "$lock" ] || { echo "there is no profile '$PROFILE'" >&2; exit 1; }
[ -s /build/ca-bundle.pem ] && export PIP_CERT=/build/ca-bundle.pem
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off PIP_ROOT_USER_ACTION=ignore

# With the system's site-packages visible Python also looks into ~/.local: `pip install` of a user, who cannot write
# here, goes there by itself.
python3 -m venv --system-site-packages /opt/devgw
pip() { /opt/devgw/bin/python -m pip "$@"; }

from_lock="" from_torch_index=""
if ls /build/wheelhouse/*.whl >/dev/null 2>&1; then
    from_lock="--no-index --find-links /build/wheelhouse"
    from_torch_index=$from_lock
else
    # An index that was named is where everything comes from: a company's mirror may be all that is reachable.
    [ -n "${TORCH_INDEX:-}" ] && from_torch_index="--index-url $TORCH_INDEX"
    [ -n "${INDEX_URL:-}" ] && from_lock="--index-url $INDEX_URL" && from_torch_index=$from_lock
fi

# shellcheck disable=SC2086 # options are words
pip install --ignore-installed --require-hashes --no-deps $from_lock -r "$lock"

# torch in the version the profile was locked with comes with hashes; another version, or a build whose file differs from
# one index to the next (the CPU wheels), comes by version alone, held to the packages that are installed already.
if [ -f "$torch_lock" ] && grep -q "^torch==$TORCH " "$torch_lock"; then
    # shellcheck disable=SC2086
    pip install --require-hashes --no-deps $from_lock -r "$torch_lock"
elif [ -n "${TORCH:-}" ]; then
    pip list --local --format=freeze >/tmp/installed.txt
    # shellcheck disable=SC2086
    pip install $from_torch_index -c /tmp/installed.txt "torch==$TORCH" ${TORCH_COMPANIONS:-}
fi
if [ -n "${EXTRA_PACKAGES:-}" ]; then
    pip list --local --format=freeze >/tmp/installed.txt
    # shellcheck disable=SC2086
    pip install $from_lock -c /tmp/installed.txt $EXTRA_PACKAGES
fi
rm -rf /build/wheelhouse
