"""optstudy ui [port=5000] [host=127.0.0.1]

Serve the MLflow UI on this project's store; Ctrl-C stops it.

  optstudy ui
  optstudy ui port=5001
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from pipeline.compose import compose, typed
from pipeline.errors import UserError
from studies.commands.screen import loading


def main(arguments: list[str]) -> None:
    """Serve it until Ctrl-C; says the address once it answers."""
    config = typed(compose(arguments))
    host, port, uri = config.host, config.port, config.tracking.uri
    if uri is not None:
        raise UserError(f"tracking.uri={uri}: that server has its UI at the same address")
    with loading("mlflow"):
        from pipeline.tracking import Store

    store = Store(None, config.mlruns_dir)
    if not socket_closed(host, port):
        raise UserError(f"port={port}: in use on {host}; optstudy ui port={port + 1}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    log = Path(config.mlruns_dir).resolve() / "ui.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            print("starting the MLflow UI …", flush=True)
            while socket_closed(host, port):
                if server.poll() is not None:
                    raise UserError(f"mlflow ui ended (exit code {server.returncode}); see {log}")
                time.sleep(0.2)
            print(f"MLflow UI: http://{host}:{port}  (Ctrl-C stops it)", flush=True)
            server.wait()
        except KeyboardInterrupt:
            print("\nstopped")
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait()


def socket_closed(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) != 0
