#!/bin/bash
# xsetup.sh [base] [win] [arm64] [i686] [s390x] [musl] [thread]      (default: base win)
#
# Installs what xcargo.sh needs on Debian 12, as root, from its packages alone. `base` is Debian's
# rustc with the source of its std, with which std can be built for any target. Its version counts:
# 1.85, which Debian 12 had first, does not build the start-up objects of windows-gnu.
set -euo pipefail
rustc_min=1.96
[ $# -gt 0 ] || set -- base win
wanted=()
for word in "$@"; do
  case $word in
    base) wanted+=(rustc-web cargo-web rust-web-src rust-web-clippy gcc libc6-dev) ;;
    win) wanted+=(gcc-mingw-w64-x86-64-win32 mingw-w64-x86-64-dev wine64 wine) ;;
    arm64) wanted+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static) ;;
    i686) wanted+=(gcc-i686-linux-gnu libc6-dev-i386-cross) ;; # the kernel runs it without qemu
    s390x) wanted+=(gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user-static) ;;
    musl) wanted+=(musl-tools) ;;
    thread) wanted+=(clang-22 libclang-rt-22-dev llvm-22) ;; # the LLVM of rustc-web
    *) echo "xsetup: unknown word: $word" >&2; exit 2 ;;
  esac
done
missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null || true)
  case $package in
    *-web | rust-web-*) least=$rustc_min ;;
    *) least=0 ;;
  esac
  if [ "${state% *}" != installed ] || dpkg --compare-versions "${state#* }" lt "$least"; then
    missing+=("$package")
  fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

# Archives go to a folder of our own, because runs of apt at the same time delete each other's.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/partial"
apt-get -q update >/dev/null # an old index still names the old rustc
if ! DEBIAN_FRONTEND=noninteractive apt-get -q \
    -o "Dir::Cache::archives=$scratch" -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends "${missing[@]}" > "$scratch/log" 2>&1; then
  tail -5 "$scratch/log" >&2
  exit 1
fi
