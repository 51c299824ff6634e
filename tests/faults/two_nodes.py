"""Run a study on a Ray cluster of two nodes, of which one joins after the first run and is killed
half-way: `FOLDER OVERRIDE …`.

To be started in a network and process namespace of its own, where nobody else hears Ray and all of
it ends with this process. The second node doesn't see this one's cache of images.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ADDRESS = "127.0.0.1:6379"
QUIET = ("--num-cpus=1", "--disable-usage-stats")
RAY = Path(sys.executable).with_name("ray")
KILLED_AFTER = 9  # runs of 12


def node(*arguments: str, hides: str = "") -> "subprocess.Popen[bytes]":
    """A node of the cluster, as the process group that it is killed with."""
    command = [str(RAY), "start", "--block", *QUIET, *arguments]
    if hides:  # a mount of its own over it
        shell = f'mount -t tmpfs none {hides} && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", shell, "sh", *command]
    return subprocess.Popen(command, start_new_session=True, stdout=sys.stderr)


def main(folder: str, *overrides: str) -> int:
    """Exit as the study does; prints what it prints."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "HOME": folder}
    head = node("--head", "--port=6379", "--include-dashboard=false")
    while not answers() and head.poll() is None:
        time.sleep(0.2)
    command = [sys.executable, "-m", "studies.cli", "run", *overrides]
    command += ["launcher=ray", f"launcher.address={ADDRESS}"]
    study = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert study.stdout is not None
    for line in study.stdout:
        print(line, end="", flush=True)
        if line.startswith("[1/"):
            other = node(f"--address={ADDRESS}", hides=f"{folder}/data/cache")
        if line.startswith(f"[{KILLED_AFTER}/"):
            os.killpg(other.pid, signal.SIGKILL)
            print("KILLED a node", flush=True)
    status = study.wait()
    head.terminate()
    return status


def answers() -> bool:
    """Whether the head does."""
    try:
        socket.create_connection(("127.0.0.1", 6379), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
