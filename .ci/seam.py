"""Counts what an echo costs with the seam and without it: see seam.sh.

The seam is taken out of a copy of the sources: `K: Kernel` becomes `MioKernel`, its implementation
becomes plain methods, the trait is gone. Instructions are those of the server's process
under valgrind, system calls those that strace counts: the difference between a long run and a short
one, by the messages that it has more. How many messages a poll finds depends on the moment, and so
do looks of the sentinel: of several runs the lowest figure counts.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

SIZE = 64
MESSAGES = 20_000
RUNS = 4


def take_out(root):
    """Takes the seam out of the sources under root."""
    kernel = "crate::sys::MioKernel"
    rules = [
        (r", K: Kernel( = MioKernel)?>", ">"),
        (r"<K: Kernel( = MioKernel)?>", ""),
        (r"\bK::Stream\b", "::mio::net::TcpStream"),
        (r"\bK::Listener\b", "crate::sys::Listener"),
        (r"\bK::", kernel + "::"),
        (r", K>", ">"),
        (r"(?<=\w)<K>", ""),
        (r"(: |&|&mut )K\b", r"\1" + kernel),
        (r"\b(?!Vec)(\w+)<MioKernel>", r"\1"),
        (re.escape(f"<{kernel} as Kernel>::Stream"), "::mio::net::TcpStream"),
        (re.escape("<MioKernel as Kernel>::Stream"), "::mio::net::TcpStream"),
        (re.escape(f"Entry<{kernel}>"), "Entry"),
        (r"use crate::sys::Kernel;\n", ""),
        (r"(use crate::sys::\{[^}]*?)\bKernel, ", r"\1"),
        (r"(use crate::sys::\{[^}]*?), Kernel\}", r"\1}"),
    ]
    for path in root.glob("src/**/*.rs"):
        text = path.read_text()
        if "/front/sim/" in str(path) or "/sys/" in str(path) or "Kernel" not in text:
            continue
        for pattern, instead in rules:
            text = re.sub(pattern, instead, text)
        path.write_text(text)
    path = root / "src/sys/mio.rs"
    head, body = path.read_text().split("impl Kernel for MioKernel {\n")
    body, tail = body.split("\n}\n", 1)
    body = re.sub(r"    type .*;\n", "", body)
    body = re.sub(r"(?m)^    (fn|const) ", r"    pub(crate) \1 ", body)
    stepped = "    pub(crate) const STEPPED: bool = false;\n"
    text = f"{head}impl MioKernel {{\n{stepped}{body}\n}}\n{tail}"
    path.write_text(text.replace("Kernel, ", ""))
    path = root / "src/sys/kernel.rs"
    head, event = path.read_text().split("/// One readiness event.")
    path.write_text(head.split("\n")[0] + "\n/// One readiness event." + event)
    path = root / "src/sys/mod.rs"
    path.write_text(path.read_text().replace("kernel::{Event, Kernel}", "kernel::Event"))
    path = root / "src/lib.rs"
    path.write_text("#![allow(warnings)]\n" + path.read_text().replace("#![deny(missing_docs)]", ""))


def build_without():
    """A server without the seam."""
    root = pathlib.Path("target/seam")
    shutil.rmtree(root / "src", ignore_errors=True)
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(list_files, text=True).split("\0"):
        if name and pathlib.Path(name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, root / name)
    take_out(root)
    subprocess.check_call(
        ["cargo", "build", "--quiet", "--release", "--example", "echo", "--target-dir", "target"],
        cwd=root,
    )
    return root / "target/release/examples/echo"


def serve(wrapper, binary, connections, rounds):
    """Runs a server that echoes so many rounds on each of its connections."""
    options = ["--addr", "127.0.0.1:0", "--reactors", "1", "--workers", "0"]
    server = subprocess.Popen(
        [*wrapper, binary, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    host, port = server.stdout.readline().split()[-1].rsplit(":", 1)
    clients = [socket.create_connection((host, int(port))) for _ in range(connections)]
    message = b"x" * SIZE
    for _ in range(rounds):
        for client in clients:
            client.sendall(message)
        for client in clients:
            assert len(client.recv(SIZE, socket.MSG_WAITALL)) == SIZE
    for client in clients:
        client.close()
    # strace has it for a child, and keeps signals for itself; valgrind is the process.
    children = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    os.kill(int(children[0]) if children else server.pid, signal.SIGTERM)
    server.wait(60)


def instructions(binary, connections, rounds):
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        serve(tool, binary, connections, rounds)
        return int(re.search(r"(?m)^(?:totals|summary): (\d+)", pathlib.Path(out).read_text())[1])


def calls(binary, connections, rounds):
    with tempfile.TemporaryDirectory() as folder:
        serve(["strace", "-f", "-c", "-o", f"{folder}/out"], binary, connections, rounds)
        count = {}
        for line in pathlib.Path(f"{folder}/out").read_text().splitlines():
            row = line.split()
            if len(row) >= 5 and row[3].isdigit():
                count[row[-1]] = int(row[3])
        return sum(count.get(name, 0) for name in ("recvfrom", "read", "sendto", "write", "writev"))


def per_message(count, binary, connections):
    short = MESSAGES // 4 // connections
    long = MESSAGES // connections
    counts = [(count(binary, connections, long), count(binary, connections, short))
              for _ in range(RUNS)]
    more = min(many for many, _ in counts) - min(few for _, few in counts)
    return more / ((long - short) * connections)


if __name__ == "__main__":
    servers = {"with the seam": sys.argv[1], "without": sys.argv[2] if sys.argv[2:] else None}
    servers["without"] = servers["without"] or build_without()
    print("| connections | | instructions per message | reads and writes per message |")
    print("| ---: | --- | ---: | ---: |")
    for connections in (1, 1_000):
        for name, binary in servers.items():
            user = per_message(instructions, str(binary), connections)
            system = per_message(calls, str(binary), connections)
            print(f"| {connections:,} | {name} | {user:,.0f} | {system:.2f} |", flush=True)
