#!/bin/sh
# The seam at which the simulation is put in costs the real build nothing.
#
#   .ci/seam.sh           a release build contains no simulation, and no table of calls to the kernel
#   .ci/seam.sh --count   ... and instructions and system calls per message, beside a build from
#                         which the seam was taken out (Linux, with python3, valgrind and strace)
set -eu
cd "$(dirname "$0")/.."

cargo build --quiet --release --example echo
echo=target/release/examples/echo
# Line tables name inlined functions, too; symbols name what is left of them.
if nm -C $echo | grep -E 'front::sim|SimKernel|SimStream|vtable.*Kernel'; then
    echo "what is above stands in the release build"
    exit 1
fi
# The trait has constants, so that the compiler refuses this anyway.
if grep -rn 'dyn Kernel' src; then
    echo "a call to the kernel goes through a table"
    exit 1
fi
echo "$echo: no simulation, no table of calls to the kernel"
if [ "${1:-}" = --count ]; then
    exec python3 .ci/seam.py $echo
fi
