#!/bin/bash
# Cargo's runner for x86_64-pc-windows-gnu: a headless Wine with its own prefix, into which the
# bcryptprimitives shim is put once (without it every Rust program ends with exit code 53).
export WINEDEBUG=-all WINEDLLOVERRIDES="winemenubuilder.exe,mscoree,mshtml="
export SWITCHBOARD_UNDER_WINE=1 # tests/common has what that changes
export WINEPREFIX=${WINEPREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/wine-rust}
unset DISPLAY WAYLAND_DISPLAY
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
server=$(command -v wineserver || echo /usr/lib/wine/wineserver)
shim=$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll
source=$(dirname "$0")/bcryptprimitives.c

mkdir -p "$WINEPREFIX"
if [ ! -f "$shim" ]; then
  (
    flock 9
    if [ ! -f "$shim" ]; then
      "$wine" wineboot -i >/dev/null 2>&1
      x86_64-w64-mingw32-gcc -shared -O2 -s -o "$shim" "$source" -ladvapi32
    fi
  ) 9> "$WINEPREFIX.lock"
fi

# The server and its processes start on /dev/null: else they inherit our stdout, and whoever reads
# that waits for them too. They end by themselves after 20 idle seconds.
if ! "$server" -k0 2>/dev/null; then
  (
    flock 9
    { "$server" -p20; "$wine" cmd /c exit; } </dev/null >/dev/null 2>&1 9>&- || true
  ) 9> "$WINEPREFIX.lock"
fi
exec timeout -k 5 "${WINE_TIMEOUT:-300}" "$wine" "$@"
