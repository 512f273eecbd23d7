#!/usr/bin/env bash
# Installs what the tests of the service use if it is absent: Chromium for the page, PostgreSQL for the store. The tests start
# them, and skip with a reason where they are missing; so a failure here is a message and not an error.
set -uo pipefail
wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || wanted+=(postgresql)
if [ "${#wanted[@]}" -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update && apt-get install -y --no-install-recommends "${wanted[@]}"; } >/dev/null 2>&1; then
    echo "not installed: ${wanted[*]}; the tests that need them are skipped"
  fi
fi
exit 0
