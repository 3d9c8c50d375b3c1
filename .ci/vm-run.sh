#!/bin/bash
# vm-run.sh [-m MiB] [-t SECONDS] [-f PROGRAM]... COMMAND
#
# Boots a throw-away Linux guest, in which the limits of this machine do not hold, and runs one
# command of the shell in it as root. PROGRAM comes along as /bin/NAME, with its libraries. Exits
# as the command does; 125: the guest died, or did not end in time; 77: there is none to be had.
#
# The guest is emulated in software, so that it runs everywhere: counts and bytes mean something in
# it, speed does not. It has two processors, its own network and 1,300,000 descriptors a process.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/switchboard-vm}
memory=1024 seconds=120 programs=()
while getopts m:t:f: option; do
  case $option in
    m) memory=$OPTARG ;;
    t) seconds=$OPTARG ;;
    f) programs+=("$OPTARG") ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
"$here/vm-setup.sh" "$cache" || exit 77

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$here/guest-init.sh" "$root/init"
chmod +x "$root/init"
printf '%s\n' "$*" > "$root/command"
for program in ${programs[@]+"${programs[@]}"}; do
  cp -L "$program" "$root/bin/"
  # What a static program says here has no path in it.
  for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$scratch/initrd"

# Three serial lines: the kernel's messages, the command's output, its exit code. The tick goes on
# while a processor is idle (nohz=off): stopping it means setting a timer of the emulator each time.
timeout -k 5 "$seconds" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
  -m "$memory" -smp 2 -accel tcg,thread=multi,tb-size=256 -cpu max,la57=off \
  -kernel "$cache/vmlinuz" -initrd "$scratch/initrd" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable clocksource=tsc \
no_timer_check nohz=off init_on_alloc=0 audit=0 apparmor=0 nowatchdog random.trust_cpu=on" \
  -serial "file:$scratch/console" -chardev stdio,id=output,signal=off -serial chardev:output \
  -serial "file:$scratch/code" < /dev/null 2> "$scratch/errors" || true

code=$(tr -dc 0-9 2>/dev/null < "$scratch/code" || true)
if [ -z "$code" ]; then
  tail -25 "$scratch/console" "$scratch/errors" >&2 || true
  echo "vm-run: the guest ended without an exit code; it had $seconds s" >&2
  exit 125
fi
exit "$code"
