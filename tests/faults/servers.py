"""A real MLflow server on a real PostgreSQL, both on loopback, to be stopped and started again."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import free_port, is_open

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))  # Debian's, the newest last
MISSING = "PostgreSQL isn't installed (Debian: apt-get install postgresql)"
needs_postgres = pytest.mark.skipif(not PROGRAMS, reason=MISSING)


def wait(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not is_open(port):
        assert process.poll() is None, f"{process.args!r} ended: {process.returncode}"
        assert time.monotonic() < ends, f"{process.args!r} doesn't answer"
        time.sleep(0.1)


@dataclass
class Postgres:
    """A database `mlflow` in a folder of its own, served as a user without privileges."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._call("initdb", "--auth=trust", "--username=mlflow", "-D", str(self.data))
        self.start()
        self._call("createdb", "-h127.0.0.1", f"-p{self.port}", "-Umlflow", "mlflow")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow:secret@127.0.0.1:{self.port}/mlflow"

    def start(self) -> None:
        own = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command = [str(PROGRAMS[-1]), "-D", str(self.data), "-p", str(self.port), *own]
        self.process = subprocess.Popen(
            unprivileged(*command), cwd=self.folder, stderr=subprocess.DEVNULL
        )
        wait(self.port, self.process)

    def stop(self) -> None:
        """As a machine that fails: those connected to it are cut off."""
        if self.process is not None:
            self._call("pg_ctl", "stop", "--mode=immediate", "-D", str(self.data))
            self.process.wait()
            self.process = None

    def _call(self, program: str, *arguments: str) -> None:
        command = unprivileged(str(PROGRAMS[-1].with_name(program)), *arguments)
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)


def unprivileged(*command: str) -> list[str]:
    """A command as a user without privileges, Debian's own: PostgreSQL won't run as root."""
    if os.geteuid() != 0:
        return [*command]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


@dataclass
class Server:
    """`mlflow server` with its runs in a database and its artifacts in a folder."""

    database: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers=1", "--host=127.0.0.1"]
        command += [f"--port={self.port}", f"--backend-store-uri={self.database}"]
        command += [f"--artifacts-destination={self.folder / 'artifacts'}"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        wait(self.port, self.process)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
