"""The core imports neither the platform nor what only that needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import diffuir_core

CODE = """
import sys
import diffuir_core, diffuir_core.imaging, diffuir_core.degradations, diffuir_core.restorer
for name in diffuir_core.__all__:
    getattr(diffuir_core, name)
foreign = {name.partition(".")[0] for name in sys.modules} & {"ray", "mlflow", "pyarrow", "diffuir_platform"}
assert not foreign, foreign
"""


def test_the_core_loads_no_ray_mlflow_or_platform() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=120)


def test_reading_photos_does_not_load_torch() -> None:
    code = "import sys, diffuir_core.imaging; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_loading_weights_does_not_load_the_compiler_of_torch() -> None:
    """It takes as long as torch itself."""
    code = (
        "import sys, diffuir_core; diffuir_core.load_weights(); "
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_metrics_of_pixels_do_not_load_torch() -> None:
    code = "import sys, diffuir_core.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_type_of_pixels_loads_numpy_alone() -> None:
    code = "import sys, diffuir_core.pixels; assert not {'torch', 'PIL', 'skimage'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_platform_folder_is_not_a_package() -> None:
    """With an __init__.py it would hide Python's own `platform` module."""
    root = Path(diffuir_core.__file__).parents[1]
    assert not (root / "platform" / "__init__.py").exists()
