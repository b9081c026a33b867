"""Networks of others as restorers of photos: padded, tiled, and run in float32.

| loader            | file                                                                                  |
|-------------------|---------------------------------------------------------------------------------------|
| `torchscript_net` | TorchScript, as `torch.jit.save` writes it                                            |
| `exported_net`    | an exported program (`torch.export.save`), of one image of any height and width       |
| `spandrel_net`    | weights (.safetensors, .pth) of one of the architectures that the library spandrel has |

Each takes and returns RGB, float32 (1, 3, H, W) in [0, 1]. Height and width are padded to multiples of 16, or of
the decimal number in the extra file "multiple" of a TorchScript file or an exported program; spandrel knows the
multiples of its architectures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import UserError
from .memory_plan import SMALLEST_TILE, halved_tiles, is_out_of_memory, overlapping_tiles
from .pixels import Pixels
from .restorer import Restoration
from .tiling import Tiling
from .unet import MULTIPLE, pad_to_multiple

DEFAULT_TILE = 1024
"""Side of the tiles of larger images, pixels, where none is asked for: nobody knows the network's memory."""
MULTIPLE_FILE = "multiple"
"""Name of the extra file that holds the multiple."""


@dataclass(frozen=True)
class Network:
    """A network of somebody else."""

    run: Callable[[Tensor], Tensor]
    """RGB float32 (1, 3, H, W) in [0, 1] in, the same out."""
    multiple: int = MULTIPLE
    """Height and width are padded to multiples of this by reflection, pixels."""
    may_tile: bool = True
    """False for a network that must see the whole image."""


class NetworkRestorer:
    """Restores uint8 photos with a network, one after the other.

    device: the network's. tile: side of the tiles of larger images, pixels; None for `DEFAULT_TILE`. Where memory
    runs out, tiles are halved.
    """

    precision = "float32"

    def __init__(self, network: Network, device: torch.device, tile: int | None = None) -> None:
        self._network, self._device = network, device
        self._tile = tile or DEFAULT_TILE
        self.on_pass: Callable[[int, int], None] | None = None
        """Called after each pass of the network with the number of passes done and of all that an image needs."""

    @torch.inference_mode()
    def restorations(self, images: Sequence[Pixels]) -> list[Restoration]:
        """Restore uint8 (H, W, 3) RGB arrays; a network that returns other sizes than it gets is a `UserError`."""
        return [self._restoration(image) for image in images]

    def _restoration(self, image: Pixels) -> Restoration:
        height, width = image.shape[:2]
        levels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(self._device)
        degraded = levels.permute(2, 0, 1)[None].float().div_(255.0).contiguous()
        tiling = None
        if max(height, width) > self._tile and self._network.may_tile:
            tiling = overlapping_tiles(height, width, self._tile)
        while True:
            try:
                restored = self._run(degraded) if tiling is None else self._run_in_tiles(degraded, tiling)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not self._network.may_tile:
                    raise
            tiling = halved_tiles(height, width, tiling)
        levels = restored[0].mul(255.0).round_().byte().permute(1, 2, 0)
        return Restoration(levels.contiguous().cpu().numpy(), tiling)

    def _run_in_tiles(self, image: Tensor, tiling: Tiling) -> Tensor:
        done = 0

        def run_tile(rows: slice, columns: slice) -> Tensor:
            nonlocal done
            restored = self._run(image[..., rows, columns], report=False)
            done += 1
            self._report(done, len(tiling))
            return restored

        return tiling.blend(run_tile, image)

    def _run(self, image: Tensor, report: bool = True) -> Tensor:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self._network.multiple)
        restored = self._network.run(padded)
        if not isinstance(restored, Tensor) or restored.shape != padded.shape:
            found = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
            raise UserError(
                f"the network returned {found} for {tuple(padded.shape)}, and a result has the size of its photo: "
                "use a network that keeps it"
            )
        if report:
            self._report(1, 1)
        return restored.float()[..., :height, :width].clamp(0.0, 1.0)

    def _report(self, done: int, total: int) -> None:
        if self.on_pass is not None:
            self.on_pass(done, total)


def torchscript_net(file: Path, device: torch.device) -> Network:
    """Load TorchScript. Whoever made the file decides what it does: load only those of people you trust."""
    extra = {MULTIPLE_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(file, map_location=device, _extra_files=extra)
    return Network(module.eval(), _multiple(file, extra[MULTIPLE_FILE]))


def exported_net(file: Path, device: torch.device) -> Network:
    """Load an exported program, as `torchscript_net` loads TorchScript; the same caution holds."""
    extra: dict[str, Any] = {MULTIPLE_FILE: ""}
    program = torch.export.load(file, extra_files=extra)
    inputs = program.graph_signature.user_inputs
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == inputs[0])
    if len(inputs) != 1 or len(shape) != 4 or any(isinstance(side, int) for side in shape[2:]):
        raise UserError(
            f"{file.name} takes {len(inputs)} input(s), the first of shape {tuple(shape)}: export it for one "
            "image, with dynamic height and width"
        )
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return Network(program.module(), _multiple(file, extra[MULTIPLE_FILE]))


def _multiple(file: Path, said: str | bytes) -> int:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    if not text.strip():
        return MULTIPLE
    if not text.strip().isdecimal() or not 1 <= int(text) <= SMALLEST_TILE:
        raise UserError(
            f"{file.name} says {text[:20]!r} in its extra file {MULTIPLE_FILE!r}: it must be a number in "
            f"1 .. {SMALLEST_TILE}"
        )
    return int(text)


def spandrel_net(file: Path, device: torch.device) -> Network:
    """Load weights of an architecture that spandrel has, which is inferred from them; only tensors are unpickled.

    Raises `UserError` without the library, for another architecture, and for a network that changes the size of an
    image or works on other channels than RGB.
    """
    try:
        import spandrel
    except Exception as error:  # of torchvision, for example, where it does not fit torch
        raise UserError(
            f"the library spandrel can't be imported ({' '.join(str(error).split())[:120]}): install "
            "diffuir[spandrel], with the torchvision that fits this torch"
        ) from error
    if file.suffix == ".safetensors":
        state: Any = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    try:
        model = spandrel.ModelLoader(device).load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except spandrel.UnsupportedModelError as error:
        raise UserError(
            f"{file.name} holds weights of no architecture that spandrel {spandrel.__version__} knows: use "
            "module:factory for it"
        ) from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise UserError(f"{file.name} is a {model.architecture.name}, which needs a mask beside the image")
    if (model.input_channels, model.output_channels) != (3, 3):
        raise UserError(
            f"{file.name} takes {model.input_channels} and makes {model.output_channels} channels: use one for RGB"
        )
    if model.scale != 1:
        raise UserError(
            f"{file.name} enlarges images {model.scale} times, and a result has the size of its photo: use "
            "weights that restore without enlarging"
        )
    return Network(model.eval(), 1, model.tiling is spandrel.ModelTiling.SUPPORTED)
