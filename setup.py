"""Package metadata. Exact versions that are tested together stand in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Importing the package would need torch.
(VERSION,) = re.findall(r'__version__ = "(.+)"', (HERE / "octvideo/__init__.py").read_text())

setup(
    name="octvideo",
    version=VERSION,
    description="Video action recognition with 3D Octave Convolutions",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["octvideo", "octvideo.*"]),
    package_data={"octvideo": ["py.typed", "weights/*.csv", "weights/*.txt"]},
    install_requires=[
        "torch>=2.4",
        "pytorchvideo>=0.1.5",
        "decord>=0.6.0",
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
    extras_require={
        "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18", "openvino>=2024.3"],
    },
)
