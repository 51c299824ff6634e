"""optstudy ui [study=NAME] [port=5000] [host=127.0.0.1]

Serve the MLflow UI on this project's store, and open it in the browser, if there is one, on the
study's runs; Ctrl-C stops it. Of a tracking server only the address is opened and printed.

  optstudy ui
  optstudy ui study=batchnorm
  optstudy ui port=5001
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError
from studies.commands.arguments import of_study
from studies.commands.screen import loading

# The server's process group, workers included, ends when its standard input does: however this
# process dies, kill -9 included, the port is free.
OUTLIVES_NOBODY = 'exec 3<&0; (cat <&3; kill -9 0) >/dev/null & exec "$@" </dev/null 3<&-'

# MLflow would start eight processes more, a gigabyte of them, to judge language models with.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main(arguments: list[str]) -> None:
    """Serve it until Ctrl-C; says the address once it answers."""
    study, config = of_study(arguments)
    host, port = config.host, config.port
    with loading("mlflow"):
        from pipeline.tracking import Reader

    store = Reader(config.tracking.uri, config.mlruns_dir, make=False)
    address = store.shown(study, f"http://{host}:{port}").runs
    if store.server is not None:  # which serves its UI itself
        print(f"MLflow UI: {address}")
        return show(address)
    check_free(host, port)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    command += ["--workers", "1"]
    environment = QUIET | os.environ | {"MLFLOW_BACKEND_STORE_URI": store.uri}  # with its password
    folder = Path(config.mlruns_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    serve(command, environment, folder / "ui.log", (host, port), address)


def serve(
    command: list[str], environment: dict[str, str], log: Path, place: tuple[str, int], address: str
) -> None:
    """Run a server until Ctrl-C, and show a page of it once it answers at (host, port) `place`.

    Raises UserError where it ends by itself. What it says is in `log`.
    """
    with log.open("w") as output:
        server = subprocess.Popen(
            ["/bin/sh", "-c", OUTLIVES_NOBODY, "sh", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            print("starting the MLflow UI …", flush=True)
            while socket_closed(*place):
                if server.poll() is not None:
                    raise UserError(f"mlflow ui ended (exit code {server.returncode}); see {log}")
                time.sleep(0.2)
            print(f"MLflow UI: {address}  (Ctrl-C stops it)", flush=True)
            show(address)
            server.wait()
        except KeyboardInterrupt:
            print("\nstopped")
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait()


def show(address: str) -> None:
    """Open a page in the browser, where somebody looks at a screen that has one."""
    screen = sys.platform == "darwin" or os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}
    if screen and sys.stdout.isatty():
        with suppress(webbrowser.Error, OSError):
            webbrowser.open(address)


def check_free(host: str, port: int) -> None:
    """Raise UserError where nothing could be served there."""
    try:
        with socket.create_server((host, port)):
            return
    except PermissionError:
        raise UserError(f"port={port}: not yours to serve at; optstudy ui port=5000") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = f"optstudy ui port={port + 1}"
            raise UserError(f"port={port}: in use on {host}; {free}") from None
        own = "an address of this machine, as 127.0.0.1"
        raise UserError(f"host={host}: allowed is {own}") from None


def socket_closed(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) != 0
