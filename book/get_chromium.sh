#!/bin/bash
# Make a Chromium available for the browser check: nothing to do where one is found, the system's package where apt is
# at hand as root. Elsewhere the check itself says what to install.
set -eo pipefail
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "no Chromium found: installing the system's package"
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) >/dev/null
fi
