"""The weights that ship; README.md is their model card."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "diffuir-t.safetensors"
"""Path of the weights that ship."""
