"""The wheel contains all files of the packages."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_has_every_file_of_every_package_and_no_other(tmp_path: Path) -> None:
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # or removed files would be packed again
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    packages = ("interpolants", "backbones", "objectives", "samplers", "recipes")
    files = [
        file
        for package in packages
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".toml", ".typed") or file.parent.name == "templates"
    ]
    assert packed == {f"sitkit/{file.relative_to(ROOT).as_posix()}" for file in files} | {
        f"sitkit/{package}/py.typed" for package in packages
    }
    assert any(name.endswith("presets/digits.toml") for name in packed)
    assert any(name.endswith("samplers/official-ode.toml") for name in packed)
    assert any(name.endswith("templates/base.html") for name in packed)
    assert "License-Expression: MIT" in metadata


def test_the_root_folders_are_the_packages() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    files = [*ROOT.glob("*/__init__.py"), *ROOT.glob("recipes/*/**/__init__.py")]
    folders = [".".join(("sitkit", *file.relative_to(ROOT).parts[:-1])) for file in files]
    assert sorted(listed) == sorted(folders)
