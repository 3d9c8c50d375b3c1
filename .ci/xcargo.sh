#!/bin/bash
# xcargo.sh TARGET check|clippy|build|test|run [cargo's arguments...]
#
# Runs cargo with Debian's rustc and a std built for TARGET from source (about 40 s of CPU the first
# time in a target folder: XTARGET_DIR, default target/x). Tests run under Wine (windows-gnu), under
# qemu-user (arm64, s390x) or natively (i686, musl); other targets can be checked only.
# Needs xsetup.sh first.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$1 command=$2
shift 2
# Debian's tools, not rustup's, which a developer's PATH finds first.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
unset RUSTUP_TOOLCHAIN CARGO

prefix=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')
case $target in
  x86_64-pc-windows-gnu)
    export "${prefix}_RUNNER=$here/wine-run.sh"
    ;;
  aarch64-unknown-linux-gnu)
    export "${prefix}_LINKER=aarch64-linux-gnu-gcc"
    export "${prefix}_RUNNER=qemu-aarch64-static -L /usr/aarch64-linux-gnu"
    ;;
  s390x-unknown-linux-gnu)
    export "${prefix}_LINKER=s390x-linux-gnu-gcc"
    export "${prefix}_RUNNER=qemu-s390x-static -L /usr/s390x-linux-gnu"
    ;;
  i686-unknown-linux-gnu)
    lib=/usr/i686-linux-gnu/lib
    export "${prefix}_LINKER=i686-linux-gnu-gcc"
    export "${prefix}_RUNNER=$lib/ld-linux.so.2 --library-path $lib"
    ;;
  x86_64-unknown-linux-musl)
    # std wants libunwind.a; gcc's libgcc_eh.a does, but for one function of glibc.
    unwind=${XDG_CACHE_HOME:-$HOME/.cache}/musl-unwind
    if [ ! "$unwind/libunwind.a" -nt "$here/musl-find-object.c" ]; then
      mkdir -p "$unwind"
      (
        cd "$unwind"
        musl-gcc -O2 -Wall -c "$here/musl-find-object.c"
        cp "$(gcc -print-file-name=libgcc_eh.a)" part.a
        ar r part.a musl-find-object.o 2>/dev/null
        mv part.a libunwind.a
      )
    fi
    export "${prefix}_LINKER=musl-gcc"
    export "${prefix}_RUSTFLAGS=-Clink-self-contained=no -L$unwind"
    ;;
esac

set -- -Zbuild-std=std,panic_unwind,test --target "$target" \
  --target-dir "${XTARGET_DIR:-target/x}" "$@"
if [ "$command" = clippy ]; then
  export CARGO=/usr/bin/cargo
  exec /usr/bin/cargo-clippy clippy "$@"
fi
exec cargo "$command" "$@"
