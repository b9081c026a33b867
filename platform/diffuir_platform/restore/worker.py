"""A process that restores photos, as seen from inside it.

A decoder or a model that crashes takes this process with it and not the one that has started it, which starts
another. Pixels never leave this process: it reads, decodes, restores, encodes and writes.
"""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from diffuir_core.errors import UserError

from .messages import Failed, Loaded, LoadModel, Passes, Prepare, Refused, Restore, Restored, Stage
from .worker_process import SECONDS_TO_STOP

if TYPE_CHECKING:
    from ..inference import RestoresPixels

ResultT = TypeVar("ResultT")
Tell = Callable[[Passes | Stage], None]
"""Sends a report on the request that is worked on."""
SECONDS_BETWEEN_REPORTS = 1.0
"""Shortest interval between two reports of passes that nobody sees, seconds."""


def main(descriptor: int, turn: int | None = None) -> NoReturn:
    """Answer requests, which are `LoadModel` and `Restore`, over a socket until its other end is closed.

    turn: file whose lock is held while the model works.
    """
    signal.signal(signal.SIGTERM, _exit)
    connection = Connection(descriptor)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    # The longest part of the start, while the command lists its inputs and the first photo is read.
    importing = threading.Thread(target=import_module, args=("diffuir_core.restorer",), daemon=True)
    importing.start()
    try:
        _Server(connection, requests, importing, turn).run()
    except (OSError, SystemExit):
        pass  # the command has ended, or wants this process to
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)  # without the clean-up of libraries, which may take long or crash


def _receive(connection: Connection, requests: queue.SimpleQueue[bytes]) -> None:
    """Pass on messages; where the command has ended, end this process, whatever it is doing."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(SECONDS_TO_STOP)
        os._exit(1)


def _exit(number: int, frame: FrameType | None) -> None:
    # Where the interpreter would drop what is raised here, as in a destructor, nothing is to be said.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.unraisablehook = lambda _: os._exit(0)
    sys.exit(0)  # raised in the main thread, so that files which are being written are removed


class _Server:
    """Answers requests, as many at the same time as `Prepare` says."""

    def __init__(
        self,
        connection: Connection,
        requests: queue.SimpleQueue[bytes],
        importing: threading.Thread,
        turn: int | None,
    ) -> None:
        self._connection, self._requests, self._importing, self._turn = connection, requests, importing, turn
        self._sending = threading.Lock()
        self._worker: _Worker | None = None
        self._calls = 1

    def run(self) -> None:
        """Answer until the process is to end, which is raised."""
        while True:
            number, request = pickle.loads(self._requests.get())
            if isinstance(request, Prepare):
                self._worker = _Worker(request, self._importing, self._turn)
                for _ in range(self._calls, request.calls):
                    threading.Thread(target=self.run, daemon=True).start()
                self._calls = max(self._calls, request.calls)
                continue
            assert self._worker is not None, "the first message is Prepare"
            answer: object
            try:
                answer = self._worker.answer(request, partial(self._send, number))
            except Exception:  # noqa: BLE001 - raised again in the command
                answer = Failed(traceback.format_exc())
            self._send(number, answer)

    def _send(self, number: int, message: object) -> None:
        with self._sending:
            self._connection.send((number, message))


class _Worker:
    """A model, loaded when it is first needed, and the settings of the photos."""

    def __init__(self, prepare: Prepare, importing: threading.Thread, turn: int | None) -> None:
        self._prepare, self._importing, self._turn = prepare, importing, turn
        self._restorer: RestoresPixels | None = None
        self._thread = ThreadPoolExecutor(1)  # the model's, which works for one request at a time

    def answer(self, request: LoadModel | Restore, tell: Tell) -> Loaded | Refused | Restored:
        """Answer a request; a model is loaded only for a photo that can be read."""
        try:
            if isinstance(request, Restore):
                return self._restored(request, tell)
            precision = self._with_model(lambda restorer: restorer.precision, tell)
        except UserError as error:
            return Refused(str(error))
        import torch

        gpus = 0 if self._prepare.options.device == "cpu" else torch.cuda.device_count()
        return Loaded(precision=precision, gpus=gpus)

    def _restored(self, request: Restore, tell: Tell) -> Restored:
        from . import stages

        prepare, options = self._prepare, self._prepare.options
        finished: list[stages.FinishedPhoto] = []
        while waiting := request.items[len(finished) :]:  # those with many pixels come in several parts
            tell(Stage.READS)
            photos = stages.read(waiting, options.exif, options.truncated, options.max_pixels)
            if any(photo.image is not None for photo in photos):
                self._with_model(partial(stages.restore, photos), tell)
            tell(Stage.WRITES)
            written = stages.write(
                photos,
                prepare.target,
                options.quality,
                overwrite=options.overwrite,
                journaled=prepare.is_collection,
            )
            finished += [stages.FinishedPhoto(photo, 1) for photo in written]
        photos = [one.photo for one in finished]
        restoring = sum(photo.seconds_restore for photo in photos)
        total = restoring + sum(photo.seconds_read + photo.seconds_write for photo in photos)
        return Restored(pickle.dumps(finished, protocol=5), restoring / total if total else 1.0)

    def _with_model(self, use: Callable[[RestoresPixels], ResultT], tell: Tell) -> ResultT:
        """The result of `use` with the model, once no other request and no other process uses theirs."""
        tell(Stage.WAITS)
        return self._thread.submit(self._in_turn, use, tell).result()

    def _in_turn(self, use: Callable[[RestoresPixels], ResultT], tell: Tell) -> ResultT:
        if self._turn is not None:
            fcntl.lockf(self._turn, fcntl.LOCK_EX)
        try:
            restorer = self._loaded(tell)
            tell(Stage.RESTORES)
            return use(restorer)
        finally:
            if self._turn is not None:
                fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def _loaded(self, tell: Tell) -> RestoresPixels:
        from diffuir_core import Restorer

        from ..inference.other_restorer import OtherRestorer, adapted

        if self._restorer is None:
            tell(Stage.LOADS)
            self._importing.join()
            if self._prepare.threads is not None:
                import torch

                torch.set_num_threads(self._prepare.threads)
            make = pickle.loads(self._prepare.make)
            with self._prepare.weights.as_file() as file:
                made = make(file)
            self._restorer = made if isinstance(made, Restorer) else adapted(made)
            gc.freeze()  # or all that was loaded would be searched for garbage again and again
        if isinstance(self._restorer, Restorer | OtherRestorer):
            self._restorer.on_pass = self._reports(tell)
        return self._restorer

    def _reports(self, tell: Tell) -> Callable[[int, int], None]:
        """A function that reports passes: all of a photo by itself, one a second of a collection's."""
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if not self._prepare.is_collection or now - last > SECONDS_BETWEEN_REPORTS:
                last = now
                tell(Passes(done, total))

        return report
