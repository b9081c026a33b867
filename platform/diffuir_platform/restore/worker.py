"""The process in which a command restores photos one by one, as seen from inside it.

A decoder or a model that crashes takes this process with it and not the command, which starts another.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from diffuir_core.errors import UserError

from .messages import Failed, Loaded, LoadModel, Passes, Prepare, Refused
from .worker_process import SECONDS_TO_STOP

if TYPE_CHECKING:
    from ..inference import RestoresPixels
    from .inputs import Item
    from .stages import Photo


def main(descriptor: int) -> NoReturn:
    """Answer requests, which are `LoadModel` and items, over a socket until its other end is closed."""
    signal.signal(signal.SIGTERM, _exit)
    connection = Connection(descriptor)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    # The longest part of the start, while the command lists its inputs and the first photo is read.
    importing = threading.Thread(target=import_module, args=("diffuir_core.restorer",), daemon=True)
    importing.start()
    try:
        worker = _Worker(pickle.loads(requests.get()), connection, importing)
        while True:
            request = pickle.loads(requests.get())
            if isinstance(request, Prepare):
                worker = _Worker(request, connection, importing)
                continue
            answer: object
            try:
                answer = worker.load() if isinstance(request, LoadModel) else worker.restored(request)
            except Exception:  # noqa: BLE001 - raised again in the command
                answer = Failed(traceback.format_exc())
            connection.send(answer)
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


class _Worker:
    """A model, loaded when it is first needed, and the settings of the photos."""

    def __init__(self, prepare: Prepare, connection: Connection, importing: threading.Thread) -> None:
        self._prepare, self._connection, self._importing = prepare, connection, importing
        self._restorer: RestoresPixels | None = None

    def load(self) -> Loaded | Refused:
        """Load the model if it is not loaded."""
        try:
            restorer = self._loaded()
        except UserError as error:
            return Refused(str(error))
        import torch

        gpus = 0 if self._prepare.options.device == "cpu" else torch.cuda.device_count()
        return Loaded(precision=restorer.precision, gpus=gpus)

    def restored(self, item: Item) -> Photo | Refused:
        """Read, restore and write one photo; a model is loaded only for one that can be read."""
        from . import stages

        prepare, options = self._prepare, self._prepare.options
        photos = stages.read([item], options.exif, options.truncated, options.max_pixels)
        if photos[0].image is not None:
            self._tell(0, 0)
            try:
                restorer = self._loaded()
            except UserError as error:
                return Refused(str(error))
            photos = stages.restore(photos, restorer)
        (photo,) = stages.write(
            photos,
            prepare.target,
            options.quality,
            overwrite=options.overwrite,
            journaled=prepare.is_collection,
        )
        return photo

    def _loaded(self) -> RestoresPixels:
        if self._restorer is None:
            self._importing.join()
            make = pickle.loads(self._prepare.make)
            with self._prepare.weights.as_file() as file:
                self._restorer = restorer = make(file)
            from diffuir_core import Restorer

            if isinstance(restorer, Restorer) and not self._prepare.is_collection:
                restorer.on_pass = self._tell
        return self._restorer

    def _tell(self, done: int, total: int) -> None:
        if not self._prepare.is_collection:
            self._connection.send(Passes(done, total))
