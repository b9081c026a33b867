"""The weights that ship; README.md says what they were trained on and what they do."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "diffuir-t.safetensors"
