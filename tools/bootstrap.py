"""Make a virtual environment that has pip, on any machine with Python >= 3.11.

    python3.11 tools/bootstrap.py .venv

`python -m venv` is enough nearly everywhere, but Debian and Ubuntu ship Python without `ensurepip`, the module that
puts pip into a new environment, and often without pip too; the cure, `apt-get install python3-venv`, needs root. So
five ways are tried in turn, the plainest first, and none needs root:

1. `python -m venv`, where `ensurepip` is there;
2. `python -m venv --without-pip`, then a pip of this machine installs pip into it (`pip --python`, pip >= 22.3);
3. `virtualenv` or `uv`, where one is on the PATH;
4. a pip wheel that the distribution keeps on this disk (a wheel runs as a program: `python pip-X.whl/pip install ...`);
5. the same wheel from the distribution's own package `python3-pip-whl`, downloaded with apt-get and unpacked into a
   temporary folder, without installing it.

What must stay true: only the standard library is imported; no package index is named, so the user's own pip
configuration decides; a way counts as working only when the new environment's pip answers; a folder that is not a
virtual environment is never removed. Why these ways, in this order: docs/decisions/0003-pip-without-ensurepip.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

WHEEL_FOLDERS = ("usr/share/python-wheels", "usr/share/python3-wheels")
"""Where distributions keep pip's wheel, relative to the root of a file system (Debian, Ubuntu, Fedora)."""

ADVICE = """\
bootstrap: no way to get pip into a new environment worked (each attempt is above). One of these helps:
  Debian, Ubuntu    sudo apt-get install python3-venv
  Fedora            sudo dnf install python3-pip
  openSUSE          sudo zypper install python3-pip
  any system        put uv or virtualenv on the PATH, or name another Python >= 3.11: make PYTHON=/path/to/python3
then run the same command again."""


class NotPossible(Exception):
    """This way cannot be gone on this machine; the text says why, and the next way is tried."""


def main(arguments: Sequence[str]) -> int:
    """Make the environment named by the one argument; 0 when its pip answers, else 1 with advice."""
    if len(arguments) != 1:
        print("usage: python tools/bootstrap.py FOLDER", file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is run before any installer could check)
        print(f"bootstrap: needs Python >= 3.11, this is {sys.version.split()[0]} ({sys.executable})", file=sys.stderr)
        return 1
    target = Path(arguments[0]).absolute()
    if target.exists() and any(target.iterdir()) and not (target / "pyvenv.cfg").exists():
        print(f"bootstrap: {target} is no virtual environment: move it away, or name another folder", file=sys.stderr)
        return 1
    refusals = []
    for way in WAYS:
        name = way.__doc__
        try:
            shutil.rmtree(target, ignore_errors=True)  # a former environment, or what the last way left
            way(target)
            run([interpreter(target), "-m", "pip", "--version"])
        except NotPossible as reason:
            refusals.append(f"bootstrap: not by {name}: {reason}")
        else:
            print(f"bootstrap: made {target} with Python {sys.version.split()[0]} by {name}", file=sys.stderr)
            return 0
    shutil.rmtree(target, ignore_errors=True)
    print(*refusals, ADVICE, sep="\n", file=sys.stderr)
    return 1


# ── the ways, in the order in which they are tried; the docstring completes "by ..." ──


def venv_with_ensurepip(target: Path) -> None:
    """python -m venv"""
    require("venv", "ensurepip")
    run([sys.executable, "-m", "venv", str(target)])


def venv_and_a_pip_of_this_machine(target: Path) -> None:
    """python -m venv --without-pip and a pip of this machine"""
    require("venv")
    pips = [[sys.executable, "-m", "pip"]] if importlib.util.find_spec("pip") else []
    pips += [[path] for name in ("pip3", "pip") if (path := shutil.which(name))]
    if not pips:
        raise NotPossible("no pip here")
    run([sys.executable, "-m", "venv", "--without-pip", str(target)])
    first_that_works([*pip, "--python", interpreter(target), *INSTALL_PIP] for pip in pips)


def virtualenv_or_uv(target: Path) -> None:
    """virtualenv or uv"""
    commands = []
    if importlib.util.find_spec("virtualenv"):
        commands.append([sys.executable, "-m", "virtualenv", "--python", sys.executable, str(target)])
    if virtualenv := shutil.which("virtualenv"):
        commands.append([virtualenv, "--python", sys.executable, str(target)])
    if uv := shutil.which("uv"):
        commands.append([uv, "venv", "--seed", "--clear", "--python", sys.executable, str(target)])
    if not commands:
        raise NotPossible("neither is on the PATH")
    first_that_works(commands)


def venv_and_a_wheel_on_this_disk(target: Path) -> None:
    """python -m venv --without-pip and the distribution's pip wheel on this disk"""
    require("venv")
    install_from_wheel(target, root=Path("/"))


def venv_and_a_wheel_from_apt(target: Path) -> None:
    """python -m venv --without-pip and the pip wheel of Debian's python3-pip-whl"""
    require("venv")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotPossible("this is no Debian-like system (no apt-get or dpkg-deb)")
    with tempfile.TemporaryDirectory(prefix="agent-graph-bootstrap-") as name:
        folder = Path(name)
        download_with_apt("python3-pip-whl", folder)
        for package in folder.glob("*.deb"):
            run(["dpkg-deb", "-x", str(package), str(folder / "root")])
        install_from_wheel(target, root=folder / "root")


WAYS: tuple[Callable[[Path], None], ...] = (
    venv_with_ensurepip,
    venv_and_a_pip_of_this_machine,
    virtualenv_or_uv,
    venv_and_a_wheel_on_this_disk,
    venv_and_a_wheel_from_apt,
)

INSTALL_PIP = ("install", "--quiet", "--disable-pip-version-check", "--ignore-installed", "pip")
"""--ignore-installed: the pip that runs is seen as installed and would otherwise be left where it is."""


# ── the parts they share ──


def install_from_wheel(target: Path, root: Path) -> None:
    """Let the newest pip wheel under `root` install pip into a new environment at `target`."""
    wheels = sorted(wheel for folder in WHEEL_FOLDERS for wheel in (root / folder).glob("pip-*.whl"))
    if not wheels:
        raise NotPossible(f"no pip-*.whl in {' or '.join(str(root / folder) for folder in WHEEL_FOLDERS)}")
    run([sys.executable, "-m", "venv", "--without-pip", str(target)])
    run([interpreter(target), str(wheels[-1] / "pip"), *INSTALL_PIP])


def download_with_apt(package: str, folder: Path) -> None:
    """Put the newest .deb of `package` into `folder`, signature-checked by apt, without root.

    First with the machine's package lists; where they are missing or name a file that is gone, with fresh lists in
    `folder`: everything that `apt-get update` writes is pointed there.
    """
    with contextlib.suppress(NotPossible):
        apt_get("download", package, options=(), folder=folder)
        return
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    options = (
        f"Dir::State::lists={folder / 'lists'}",
        f"Dir::Cache={folder / 'cache'}",
        "Acquire::Languages=none",  # package descriptions: not needed, and half of the download
    )
    apt_get("update", options=options, folder=folder)
    apt_get("download", package, options=options, folder=folder)


def apt_get(*arguments: str, options: Sequence[str], folder: Path) -> None:
    """Run apt-get in `folder`."""
    if os.geteuid() == 0:  # apt would hand the download to the user `_apt`, who cannot write into our folder
        options = ("APT::Sandbox::User=root", *options)
    run(["apt-get", "-qq", *(part for option in options for part in ("-o", option)), *arguments], folder)


def run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run `command`; NotPossible with the end of its output where it fails or is missing."""
    # A pip told to install for the user's home or into some folder would miss the new environment.
    elsewhere = {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME"}
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotPossible(f"{command[0]}: {error}") from error
    if done.returncode:
        last_lines = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise NotPossible(f"`{' '.join(command)}` exited {done.returncode}: {' / '.join(last_lines)}")


def first_that_works(commands: Iterator[list[str]] | list[list[str]]) -> None:
    """Run the commands until one succeeds; NotPossible with every reason where none does."""
    reasons = []
    for command in commands:
        try:
            return run(command)
        except NotPossible as reason:
            reasons.append(str(reason))
    raise NotPossible("; ".join(reasons))


def require(*modules: str) -> None:
    """NotPossible where this Python lacks one of the modules."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotPossible(f"this Python has no module {module}")


def interpreter(target: Path) -> str:
    """The path of the environment's Python."""
    return str(target / "bin" / "python")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
