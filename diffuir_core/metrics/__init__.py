"""Full-reference image quality metrics for uint8 photos. Needs scikit-image (the extra `diffuir[metrics]`)."""

from diffuir_core.metrics.fidelity import Channel, luma, psnr, ssim

__all__ = ["Channel", "luma", "psnr", "ssim"]
