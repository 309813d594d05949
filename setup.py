"""Package metadata. Exact versions that are tested together stand in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Importing the package would need torch.
(VERSION,) = re.findall(r'__version__ = "(.+)"', (HERE / "octvideo/__init__.py").read_text())

# Top-level folders that an installed package carries inside (octvideo.files.shipped_folder).
SHIPPED = {"octvideo.configs": "configs", "octvideo.data_lists": "data_lists"}

DECORD_HAS_A_WHEEL = (
    "(sys_platform == 'linux' and platform_machine == 'x86_64') or sys_platform == 'win32'"
)

EXTRAS = {
    "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18", "openvino>=2024.3"],
    "int8": ["openvino>=2024.3", "nncf>=3.0"],
    "serve": ["fastapi>=0.110", "uvicorn>=0.29"],
    "parquet": ["pyarrow>=14"],
    "ray": ["ray[data]>=2.9"],
    # 0.14 and later load only beside a torch with CUDA; docs/decoders.md.
    "torchcodec": ["torchcodec>=0.11,<0.14"],
    "hub": ["huggingface_hub>=0.23"],
}

setup(
    name="octvideo",
    version=VERSION,
    description="Video action recognition with 3D Octave Convolutions",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["octvideo", "octvideo.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        "octvideo": ["py.typed", "weights/*.csv", "weights/*.txt"],
        "octvideo.configs": ["README.md", "*/*.yaml"],
        "octvideo.data_lists": ["README.md", "*.txt"],
    },
    entry_points={"console_scripts": ["octvideo = octvideo.cli:main"]},
    install_requires=[
        "torch>=2.4",
        # Source distributions of pure Python, which every platform can install.
        "pytorchvideo>=0.1.5",
        f"decord>=0.6.0; {DECORD_HAS_A_WHEEL}",
        "av>=12",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.10",
        "tensorboard>=2.14",
        "numpy>=1.26",
        "tqdm>=4.64",
        "matplotlib>=3.8",
        "pillow>=10.1",
        "pyyaml>=6",
        "safetensors>=0.4",
    ],
    extras_require=EXTRAS
    | {"all": [package for packages in EXTRAS.values() for package in packages]},
)
