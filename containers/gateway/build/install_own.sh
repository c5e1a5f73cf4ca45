#!/bin/sh
# Build the wheel of this checkout, install it, and check that all fits together; pip does not ship.
set -eu
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python=/opt/devgw/bin/python
PYTHONPATH=/build/tools "$python" -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /build/wheel /build/source
"$python" -m pip install --no-index --no-deps /build/wheel/*.whl
"$python" -m pip check
"$python" -m pip uninstall -q -y pip setuptools
rm -rf /opt/devgw/lib/python*/site-packages/_distutils_hack
