#!/bin/sh
# Install devgw's own packages into /own, check that all fit together, and record what the image holds.
set -eu
python=/opt/devgw/bin/python
for source in /build/environment /build/runner; do
    if [ -f "$source/pyproject.toml" ]; then
        "$python" -m pip install --prefix /own --no-index --no-deps --no-build-isolation --no-cache-dir \
            --disable-pip-version-check --root-user-action ignore "$source"
    fi
done
# The last stage lays /own over /opt/devgw; until then Python has to be told.
PYTHONPATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib", vars={"base": "/own"}))')
export PYTHONPATH
"$python" -m pip check
"$python" /build/plot_fonts.py /own
mkdir -p /own/share/devgw
"$python" /build/record_contents.py >/own/share/devgw/contents.json
