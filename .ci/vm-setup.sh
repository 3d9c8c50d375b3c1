#!/bin/bash
# Installs what vm-run.sh needs on Debian, as root: an emulator, a static busybox, and a kernel,
# which is unpacked into the folder $1 and not installed. Does nothing the second time.
set -euo pipefail
cache=$1
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9
[ ! -f "$cache/vmlinuz" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "vm-setup: only root can install the packages" >&2; exit 1; }

packages=()
command -v qemu-system-x86_64 > /dev/null || packages+=(qemu-system-x86)
busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ldd "$busybox" > /dev/null 2>&1; then packages+=(busybox-static); fi

# Archives go to a folder of our own, because runs of apt at the same time delete each other's.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/partial"
if ! {
  apt-get -q update &&
    { [ ${#packages[@]} = 0 ] || DEBIAN_FRONTEND=noninteractive apt-get -q \
      -o "Dir::Cache::archives=$scratch" -o DPkg::Lock::Timeout=300 \
      install -y --no-install-recommends "${packages[@]}"; } &&
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ {print $2; exit}') &&
    cd "$scratch" && apt-get -q download "$kernel" && dpkg-deb -x linux-image-*.deb kernel
} > "$scratch/log" 2>&1; then
  tail -5 "$scratch/log" >&2
  exit 1
fi
cp "$scratch"/kernel/boot/vmlinuz-* "$cache/vmlinuz.new"
mv "$cache/vmlinuz.new" "$cache/vmlinuz"
