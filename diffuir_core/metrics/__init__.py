"""Full-reference image quality on uint8 photos; needs scikit-image (the extra `diffuir[metrics]`)."""

from diffuir_core.metrics.fidelity import Channel, luma, psnr, ssim

__all__ = ["Channel", "luma", "psnr", "ssim"]
