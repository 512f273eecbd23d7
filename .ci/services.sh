#!/usr/bin/env bash
# Installs what the tests use if it is absent: Chromium for the page of the service, PostgreSQL for its store, and ONNX Runtime
# for Node where there is npm. The tests skip with a reason where they are missing; so a failure here is a message and not an error.
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
if command -v npm >/dev/null && [ ! -d node_modules/onnxruntime-node ]; then
  npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts onnxruntime-node >/dev/null 2>&1 ||
    echo "not installed: onnxruntime-node; the tests of graphs in Node are skipped"
fi
exit 0
