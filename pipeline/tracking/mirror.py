"""A tracking server as a mirror: it gets a copy of what the store on disk holds of an experiment.

Runs are logged to the store on disk alone, so none waits for a server or is lost with it. A thread
sends what is new, oldest run first, with the times it was logged at; what a server that was away
has missed is sent once it is back. A copy that has ended is tagged with the state it was sent in.
"""

import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from filelock import FileLock
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import UserError
from pipeline.tracking import bulk, copies
from pipeline.tracking.copies import OF_MODEL, PARENT, SENT, Copy
from pipeline.tracking.pages import OF_RUN, SERVED, masked, of_runs
from pipeline.tracking.reader import Reader

PAUSE = 3.0  # seconds from one look at what is new to the next
PATIENCE = 60.0  # seconds that a command waits in the end for a server that is away


class Mirror:
    """The copy of an experiment, or of some runs of it (`only`), on the server of a store."""

    def __init__(self, store: Reader, name: str, only: Set[str] | None = None) -> None:
        self.store, self.name, self.only = store, name, only
        self.client = MlflowClient(store.server)
        self.experiment = store.find_experiment(name)
        store.checkpoints.mkdir(parents=True, exist_ok=True)  # for a lock, and scratch folders
        self.there: str | None = None  # the experiment's id on the server, once it has answered
        self.away = False  # as far as anybody was told
        self.copies: dict[str, Copy] = {}  # by their originals' ids, as far as is known

    def send(self, *, closing: bool = False) -> None:
        """Send what is new; `closing`, the models too, and what is new in runs that ended before.

        Raises UserError where it can't all be sent.
        """
        lock = self.store.checkpoints / f"{self.name}.sending.lock"
        try:
            with sending_to(self.store), FileLock(lock):
                there = self.there or self._find()
                again = self._changed() if closing else set()
                for run_id, state in self.states().items():
                    if state == bulk.GONE:
                        self._delete(run_id)
                    elif run_id in again or not self._has(run_id, state):
                        self._send(there, run_id, state)
                if closing:
                    self._send_models(there)
        except UserError:
            # What was under way has arrived or has not: the server is asked, once it answers.
            self.there = None
            raise

    def remove(self) -> None:
        """Delete the copies; what others have in an experiment of that name stays."""
        with sending_to(self.store):
            found = self.client.get_experiment_by_name(self.name)
            if found is not None and found.lifecycle_stage != LifecycleStage.DELETED:
                self._find()
            for run_id in self.states():  # others may have theirs under the same name
                self._delete(run_id)

    def states(self) -> dict[str, str]:
        """The states of the runs that are sent, in their order."""
        found = bulk.states(self.store.client, self.experiment)
        return {run: state for run, state in found.items() if self.only is None or run in self.only}

    def missing(self) -> int:
        """How many runs aren't known to have arrived as they are."""
        states = self.states().items()
        return sum(state != bulk.GONE and not self._has(run, state) for run, state in states)

    def _has(self, run_id: str, state: str) -> bool:
        copy = self.copies.get(run_id)
        return copy is not None and copy.has(state)

    def _find(self) -> str:
        """Find the experiment on the server, or make it, and what is there of its runs."""
        there, self.copies = experiment_there(self.store, self.client, self.experiment), {}
        for run in bulk.search(self.client, there, "", ViewType.ALL):
            if (original := run.data.tags.get(OF_RUN)) is not None:
                state = run.data.tags.get(SENT, "")
                gone = run.info.lifecycle_stage == LifecycleStage.DELETED
                self.copies[original] = Copy(run.info.run_id, run.data.tags, state, gone=gone)
        self.there = there
        return there

    def _changed(self) -> set[str]:
        """The runs that are there with other tags than by now, and a study's own for its files."""
        changed = set()
        for row in bulk.rows(self.store.client, self.experiment):
            tags = {k.removeprefix("tags."): v for k, v in row.items() if k.startswith("tags.")}
            copy = self.copies.get(row["run_id"])
            if copy is None or copy.gone:
                continue
            other = any(copy.tags.get(key) != value for key, value in tags.items() if key != PARENT)
            if other or tags.get("phase") == "study":
                changed.add(row["run_id"])
        return changed

    def _delete(self, run_id: str) -> None:
        copy = self.copies.get(run_id)
        if copy is not None and not copy.gone:
            self.client.delete_run(copy.run_id)
            copy.gone = True

    def _send(self, there: str, run_id: str, state: str) -> None:
        """One run: what is new of its figures, and all else where it began, ended or goes on."""
        copy, own = self.copies.get(run_id), self.store.client
        ended = not state.startswith(bulk.OPEN)
        if copy is not None and copy.state:
            copies.reopen(self.client, copy)
        elif copy is not None and copy.upto is not None and not ended:
            copies.send_figures(own, self.client, copy, run_id)
            return
        run = own.get_run(run_id)
        above = run.data.tags.get(PARENT)
        if above is not None and above not in self.copies:  # begun later, by a clock set back since
            self.copies[above] = copies.begin(self.client, there, own.get_run(above), None)
        parent = None if above is None else self.copies[above]
        if copy is None:
            copy = self.copies[run_id] = copies.begin(self.client, there, run, parent)
        copies.send_all(own, self.client, copy, run, parent)
        if ended:
            copies.end(self.client, copy, run, state)

    def _send_models(self, there: str) -> None:
        """Every model of the runs that are sent, but for those that are there whole."""
        sent = set()
        for model in bulk.models(self.client, there):
            if str(model.status) == "READY":
                sent.add(model.tags.get(OF_MODEL))
            elif OF_MODEL in model.tags:  # it was under way
                self.client.delete_logged_model(model.model_id)
        for model in bulk.models(self.store.client, self.experiment):
            copy = self.copies.get(str(model.source_run_id))
            if model.model_id not in sent and copy is not None and not copy.gone:
                with TemporaryDirectory(dir=self.store.checkpoints) as folder:
                    copies.send_model(self.client, there, copy, model, Path(folder))


@contextmanager
def sending_to(store: Reader) -> Iterator[None]:
    """What a store's server, the way to it or the store raises, as one UserError line."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        line = f"{store.server_key}: can't be sent to ({reason(error)})"
        raise UserError(line) from error


def experiment_there(store: Reader, client: MlflowClient, experiment: str) -> str:
    """The id on a server of a store's experiment: of its name and tags, made where there is none.

    Where the server shows it is written down in the store. Raises UserError where it was deleted.
    """
    own = store.client.get_experiment(experiment)
    found = client.get_experiment_by_name(own.name)
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"{store.server_key}: study={own.name} is deleted there; to have it back: "
            f"mlflow experiments restore -x {found.experiment_id}"
        )
    there = str(client.create_experiment(own.name) if found is None else found.experiment_id)
    for key, value in own.tags.items():
        if key != SERVED and (found is None or found.tags.get(key) != value):
            client.set_experiment_tag(there, key, value)
    page = f"{masked(str(store.server)).rstrip('/')}/{of_runs(client.get_experiment(there))}"
    if own.tags.get(SERVED) != page:
        store.client.set_experiment_tag(experiment, SERVED, page)
    return there


def reason(error: BaseException) -> str:
    """Why a request failed: what the innermost cause says, the system's if it is its, in one line.

    MLflow's own text is that of all layers on the way.
    """
    innermost: BaseException | None = error
    while innermost is not None:
        error = innermost
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        inner = getattr(error, "reason", None)  # urllib3's
        innermost = (
            inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
        )
    return masked((str(error).splitlines() or [type(error).__name__])[0])


@contextmanager
def mirroring(
    store: Reader, name: str, say: Callable[[str], None], only: Set[str] | None = None
) -> Iterator[None]:
    """Send an experiment to the store's server while the block lasts, or those runs of it that are
    in `only` then; in the end wait until all has arrived, for PATIENCE seconds at most.

    `say` is told that the server is away or back. A block that raises ends at once. Raises
    UserError where something is missing in the end: how much, and how to send it.
    """
    mirror, ended = Mirror(store, name, only), Event()
    thread = Thread(target=_follow, args=(mirror, ended, say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
    if mirror.away:
        say(f"{store.server_key}: waiting for it, {PATIENCE:g} s at most")
    arrive(mirror, PATIENCE, thread)
    if mirror.away:
        say(f"{store.server_key}: is back")


def arrive(mirror: Mirror, patience: float, after: Thread | None = None) -> int:
    """Send all that is missing, once a thread has ended that does so too, and wait so many seconds
    for a server that is away; returns how many runs there are. Raises UserError.
    """
    began = time.monotonic()
    try:
        if after is not None:
            after.join()
        while True:
            try:
                mirror.send(closing=True)
                return sum(state != bulk.GONE for state in mirror.states().values())
            except UserError:
                if time.monotonic() - began >= patience:
                    raise
                time.sleep(PAUSE)
    except (UserError, KeyboardInterrupt) as error:
        key = f" {mirror.store.server_key}"
        key = key if key.startswith(" tracking.uri") else ""
        raise UserError(
            f"{str(error) or 'interrupted'}; {mirror.missing()} of {len(mirror.states())} runs "
            f"haven't arrived there, all are kept in {mirror.store.place}; to send them: "
            f"optstudy sync study={mirror.name}{key}"
        ) from None


def _follow(mirror: Mirror, ended: Event, say: Callable[[str], None]) -> None:
    """Send what is new every PAUSE seconds until `ended`."""
    while not ended.is_set():
        try:
            mirror.send()
        except UserError as error:
            if not mirror.away:
                say(f"{error}; training goes on, and what is logged is sent once it is back")
            mirror.away = True
        else:
            if mirror.away:
                say(f"{mirror.store.server_key}: is back")
            mirror.away = False
        ended.wait(PAUSE)
