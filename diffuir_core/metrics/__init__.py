"""Image quality metrics of uint8 photos, each under a named definition. Needs the extra `diffuir[metrics]`.

LPIPS and the cost of a variant are in `metrics.lpips` and `metrics.cost`, as they load torch.
"""

try:
    import scipy  # noqa: F401
    import skimage  # noqa: F401
except ImportError as error:
    raise ImportError(
        "diffuir_core.metrics needs SciPy and scikit-image: pip install 'diffuir[metrics]'"
    ) from error

from .errors import MetricError
from .fidelity import psnr, ssim
from .il_niqe import (
    IL_NIQE_VARIANTS,
    IlNiqeModel,
    fit_il_niqe,
    il_niqe,
    il_niqe_samples,
    read_il_niqe,
    write_il_niqe,
)
from .loe import LOE_VARIANTS, loe
from .niqe import NIQE_VARIANTS, fit_niqe, niqe, niqe_samples, read_niqe, write_niqe
from .pairs import MeanPsnr, Signature, better_truths, mean_psnr, signature, truth_note
from .protocols import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    Protocol,
    ProtocolName,
    check_pair,
    find_protocol,
    grey,
    luma,
)
from .scene_statistics import Gaussian

__all__ = [
    "DEFAULT_PROTOCOL",
    "IL_NIQE_VARIANTS",
    "LOE_VARIANTS",
    "NIQE_VARIANTS",
    "PROTOCOLS",
    "Gaussian",
    "IlNiqeModel",
    "MeanPsnr",
    "MetricError",
    "Protocol",
    "ProtocolName",
    "Signature",
    "better_truths",
    "check_pair",
    "find_protocol",
    "fit_il_niqe",
    "fit_niqe",
    "grey",
    "il_niqe",
    "il_niqe_samples",
    "loe",
    "luma",
    "mean_psnr",
    "niqe",
    "niqe_samples",
    "psnr",
    "read_il_niqe",
    "read_niqe",
    "signature",
    "ssim",
    "truth_note",
    "write_il_niqe",
    "write_niqe",
]
