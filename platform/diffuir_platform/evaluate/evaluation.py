"""An evaluation: images are staged, restored as a collection is, and measured; killed and run again, it goes on.

In the folder of an evaluation, `restored/` is what the restore made, with its ledger, and `images.parquet` holds
the scores of each image. `_diffuir/` has the settings and, while it runs, the staged images and scores so far.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from diffuir_core.errors import UserError
from diffuir_core.imaging import decode
from diffuir_core.metrics import DEFAULT_PROTOCOL, MetricError, ProtocolName, check_pair

from ..data.building import threaded_map
from ..restore.ledger import Ledger
from ..restore.record import Record
from ..storage import OWN_FOLDER, Lock, exists, list_files
from .measures import Measure, Meter, Photos, fidelity
from .report import PairScores, Report, Settings
from .rows import FILE, MeasuredImage, Parts, read_images, write_images
from .sets import Condition, ImageSet, pair_sets
from .staging import THREADS, Staged, StagedSet, is_same, load, stage

RestoreFolder = Callable[[Path, Path], dict[str, str]]
"""Restores every picture below the first folder into the second; returns {relative path: reason} of failures."""

RESTORED = "restored"
"""Folder of the restored pictures in that of an evaluation."""
REMEDY = "evaluate into another folder with --out, or replace them with --restart"


def evaluate(folder: Path, restore: RestoreFolder, settings: Settings, out: Path | None = None) -> Report:
    """Restore the degraded side of every pair under `folder`, and measure it before and after.

    The pictures go through `restore` as PNG, so that no second lossy encoding is measured. With `out`, the
    restored pictures are kept in `out/restored/<set>/<key>.png`, and the same call goes on where an earlier one
    was stopped. A pair that can't be found, decoded, restored or measured, whose sides differ in size, or whose
    degraded picture fits the truth of another pair of its set better, is in the report's `failed` and does not
    stop the others; a truth that is a JPEG is in its `notes`. Raises `UserError` where there is no set of pairs
    under `folder`, and where `out` holds an evaluation of other settings.
    """
    protocol = settings.protocol or DEFAULT_PROTOCOL
    sets = pair_sets(folder, fidelity(protocol), Condition(steps=settings.steps or 0))
    return evaluate_sets(sets, lambda condition: restore, settings, out=out, source=str(folder.absolute()))


def evaluate_sets(
    sets: Sequence[ImageSet],
    restore_under: Callable[[Condition], RestoreFolder],
    settings: Settings,
    meter: Meter | None = None,
    *,
    out: Path | None = None,
    source: str = "",
    restart: bool = False,
) -> Report:
    """Restore and measure sets of images as `evaluate` does.

    restore_under: the restore under a condition. source: where the images are from, which is one of the settings
    that a resumed evaluation must agree on. restart: forget what an earlier evaluation made in `out`.
    """
    meter = meter or Meter()
    sets = [_measurable(one, meter) for one in sets]
    for name, times in Counter(one.name for one in sets).items():
        if times > 1:
            raise UserError(f"two sets are both named {name}: rename the folder of one of them")
    meter.check(measure for one in sets if one.cases for measure in one.measures)
    with ExitStack() as stack:
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diffuir-evaluate-")))
        out = out.absolute()
        own = out / OWN_FOLDER
        stack.enter_context(Lock(str(own), f"evaluates into {out}", "choose another --out"))
        work = _Work(out, own, settings, meter)
        work.begin({"source": source, **_identity(settings)}, restart)
        staged = [stage(one, work.degraded(one.condition), work.known) for one in sets]
        for condition in dict.fromkeys(one.condition for one in sets):
            work.restore(condition, [one for one in staged if one.of.condition == condition], restore_under)
        images = work.measure(staged)
        work.finish(images)
    failed = {name: reason for one in staged for name, reason in one.failed.items()}
    measured = {image.name for image in images}
    notes = {
        name: note
        for one in staged
        for name, note in one.notes.items()
        if name in measured or name == one.of.name
    }
    return Report(
        settings=settings,
        images=[pair for image in images for pair in _pairs(image)],
        failed=failed,
        notes=notes,
        measured=images,
    )


class _Work:
    """The folder of an evaluation while it runs."""

    def __init__(self, out: Path, own: Path, settings: Settings, meter: Meter) -> None:
        self._out, self._own = out, own
        self._settings = settings
        self._meter = meter
        self._parts = Parts(own / "scores")
        self.known: dict[str, MeasuredImage] = {}
        """Images that an earlier run measured, by name."""

    def begin(self, settings: Mapping[str, Any], restart: bool) -> None:
        """Check and write the record of the settings, and read what an earlier run measured."""
        folder = str(self._own)
        record = Record(dict(settings))
        if restart:
            for name in ("scores", "degraded"):
                shutil.rmtree(self._own / name, ignore_errors=True)
            (self._out / FILE).unlink(missing_ok=True)
        elif (found := Record.read(folder)) is not None:
            record.check(found, str(self._out), REMEDY)
        record.write(folder)
        finished = read_images(str(self._out / FILE)) if (self._out / FILE).is_file() else []
        self.known = {image.name: image for image in (*finished, *self._parts.read())}

    def degraded(self, condition: Condition) -> Path:
        """Return the folder of the staged images of a condition."""
        return self._own / "degraded" / condition.folder

    def restored(self, condition: Condition) -> Path:
        """Return the folder of the results of a condition."""
        return self._out / RESTORED / condition.folder

    def restore(
        self,
        condition: Condition,
        staged: Sequence[StagedSet],
        restore_under: Callable[[Condition], RestoreFolder],
    ) -> None:
        """Restore the images of a condition that are not measured yet, and note failures in their sets."""
        waiting = {piece: (one, i) for one in staged for i in one.images for piece in self._pieces(i)}
        folder = self.degraded(condition)
        _keep_only(folder, waiting)
        if not waiting:
            return
        target = self.restored(condition)
        for path, reason in restore_under(condition)(folder, target).items():
            if path in waiting:
                one, image = waiting[path]
                one.failed.setdefault(image.case.name, reason)

    def _pieces(self, image: Staged) -> tuple[str, ...]:
        return () if is_same(image, self.known.get(image.case.name)) else image.pieces

    def measure(self, staged: Sequence[StagedSet]) -> list[MeasuredImage]:
        """Measure the restored images, in the order of the sets; failures go into their sets."""
        conditions = dict.fromkeys(one.of.condition for one in staged)
        seconds = {condition: _seconds(self.restored(condition)) for condition in conditions}
        found = []
        for one in staged:
            waiting = [image for image in one.images if image.case.name not in one.failed]
            work = partial(self._measured, of=one.of, seconds=seconds[one.of.condition])
            for image, result in threaded_map(work, waiting, THREADS, 2 * THREADS):
                if isinstance(result, str):
                    one.failed[image.case.name] = result
                    continue
                if result is not self.known.get(result.name):
                    self._parts.add(result)
                found.append(result)
        self._parts.flush()
        return found

    def _measured(
        self, image: Staged, of: ImageSet, seconds: Mapping[str, float]
    ) -> tuple[Staged, MeasuredImage | str]:
        known = self.known.get(image.case.name)
        if known is not None and is_same(image, known) and _measures(known) == set(of.measures):
            return image, known
        case, target = image.case, self.restored(of.condition)
        try:
            degraded = decode(case.degraded.read()).pixels
            restored = np.concatenate([load(target / piece) for piece in image.pieces], axis=1)
            check_pair(degraded, restored)
            clean = None if case.clean is None else decode(case.clean.read()).pixels
            photos = Photos(degraded=degraded, restored=restored, clean=clean)
            scores = tuple(self._meter.score(measure, photos) for measure in of.measures)
        except FileNotFoundError:
            return image, f"it was not restored: see report.html in {target / OWN_FOLDER}"
        except (UserError, MetricError, OSError) as error:
            return image, str(error)
        times = [seconds[piece] for piece in image.pieces if piece in seconds]
        return image, MeasuredImage(
            set_name=case.set_name,
            key=case.key,
            scores=scores,
            width=image.width,
            height=image.height,
            weights_sha256=self._settings.weights_sha256,
            steps=of.condition.steps,
            equalise=of.condition.equalise,
            seconds=sum(times) if len(times) == len(image.pieces) else None,
            degraded_sha256=image.degraded_sha256,
            clean_sha256=image.clean_sha256,
            degraded=case.degraded,
            clean=case.clean,
            restored=tuple((target / piece).relative_to(self._out).as_posix() for piece in image.pieces),
        )

    def finish(self, images: Sequence[MeasuredImage]) -> None:
        """Write the rows of all images, and remove what only a run that goes on needs."""
        write_images(str(self._out / FILE), images)
        for name in ("scores", "degraded"):
            shutil.rmtree(self._own / name, ignore_errors=True)


def _identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that a resumed evaluation must agree on, none of them nested."""
    values = asdict(settings)
    values["weights"] = values.pop("weights_sha256")
    nested = values.pop("files"), values.pop("restore")
    return values | nested[0] | nested[1]


def _measurable(image_set: ImageSet, meter: Meter) -> ImageSet:
    """Return the set with what can be measured of it; without images where that is nothing."""
    lacking = [reason for m in image_set.measures if (reason := meter.lacks(m)) is not None]
    able = meter.measured(image_set.measures)
    why = "; ".join(dict.fromkeys(lacking))
    if not able:
        failed = {**image_set.failed, image_set.name: why} if image_set.cases else image_set.failed
        return replace(image_set, cases=(), measures=(), failed=failed)
    notes = {**image_set.notes, image_set.name: why} if why and image_set.cases else image_set.notes
    return replace(image_set, measures=able, notes=notes)


def _measures(image: MeasuredImage) -> set[Measure]:
    return {score.measure for score in image.scores}


def _keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove other files than these, by their paths below `folder`: an earlier run may have staged others."""
    if folder.is_dir():
        wanted = {str(folder / name) for name in names}
        for uri, _ in list_files(str(folder)):
            if uri not in wanted:
                Path(uri).unlink()


def _seconds(folder: Path) -> dict[str, float]:
    """Return {path: seconds} of the restored photos, as the ledger of their folder has them; {} without one."""
    if not exists(str(folder / OWN_FOLDER / "ledger")):
        return {}
    with Ledger(str(folder / OWN_FOLDER)) as ledger:
        ledger.load()
        return {row.key: row.seconds_restore for row in ledger.rows("done")}


def _pairs(image: MeasuredImage) -> Iterable[PairScores]:
    """Yield PSNR and SSIM of an image, by each protocol that it was measured by."""
    by_measure = {(s.measure.metric, s.measure.protocol): s for s in image.scores}
    for (metric, protocol), found in by_measure.items():
        similar = by_measure.get(("ssim", protocol))
        if (
            metric == "psnr"
            and similar is not None
            and found.before is not None
            and similar.before is not None
        ):
            yield PairScores(
                set_name=image.set_name,
                key=image.key,
                protocol=cast(ProtocolName, protocol),
                psnr_before=found.before,
                psnr_after=found.after,
                ssim_before=similar.before,
                ssim_after=similar.after,
            )
