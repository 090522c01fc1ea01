"""Build the wheel, and a Debian package each for agent and server, into dist: `make dist`.

A package holds the wheel, the versions of everything it needs, and uv. On the machine uv makes an
environment with a Python of its own: ROS, and what else uses the system's Python, is left alone.
docs/decisions/0023-packages.md says why.
"""

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UV = ROOT / ".venv-tools" / "bin" / "uv"  # the Makefile puts it there
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's names, and the kernel's
SCRIPTS = ("postinst", "prerm", "postrm")


@dataclass(frozen=True)
class Package:
    """One of the two packages."""

    name: str
    program: str  # the command, and the unit
    folder: str  # of the service; it stays when the package is removed
    page: str  # of docs
    about: str


PACKAGES = (
    Package("fleetlearn-agent", "edge-agent", "/var/lib/edge-agent", "operate-robot.md",
            "federated learning on a robot: weights travel, camera frames never do"),
    Package("fleetlearn-server", "cloud-server", "/var/lib/cloud-server", "operate-server.md",
            "server of a fleet of robots that learn together"),
)  # fmt: skip


def main() -> None:
    """Build what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--arch", choices=ARCHITECTURES, default=None, help="default: this one")
    parser.add_argument("--revision", default="1", help="of the package; raise it for a new build")
    parser.add_argument("--only", choices=[package.name for package in PACKAGES])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    here = next(name for name, machine in ARCHITECTURES.items() if machine == platform.machine())
    command = [UV, "build", "--quiet", "--wheel", "--out-dir", options.out.absolute()]
    subprocess.run(command, cwd=ROOT, check=True)
    wheel = max(options.out.glob("fleetlearn-*.whl"), key=lambda file: file.stat().st_mtime)
    arch = options.arch or here
    with tempfile.TemporaryDirectory() as folder:
        uv = UV.resolve() if arch == here else fetch_uv(arch, Path(folder))
        for package in PACKAGES:
            if options.only not in (None, package.name):
                continue
            tree = Path(folder) / package.name
            fill(tree, package, wheel, uv, arch, options.revision)
            version = f"{wheel.name.split('-')[1]}-{options.revision}"
            target = options.out / f"{package.name}_{version}_{arch}.deb"
            # gzip: dpkg of every distribution reads it.
            build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z6", "--build", tree, target]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
            print(target)


def fetch_uv(arch: str, folder: Path) -> Path:
    """Return the uv program of another processor, of the version that is here."""
    version = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True)
    platform_tag = f"manylinux_2_28_{ARCHITECTURES[arch]}"
    wanted = f"uv=={version.stdout.split()[1]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
               ":all:", "--platform", platform_tag, "--platform", platform_tag.replace("28", "17"),
               "--dest", folder, wanted]  # fmt: skip
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("uv-*.whl")
    shutil.unpack_archive(wheel, folder / "uv", "zip")
    (program,) = (folder / "uv").glob("*.data/scripts/uv")
    return program


def fill(tree: Path, package: Package, wheel: Path, uv: Path, arch: str, revision: str) -> None:
    """Lay out the files of one package."""
    name, library = package.name, tree / "usr/lib" / package.name
    for folder in ("DEBIAN", "usr/bin", "usr/lib/systemd/system", "usr/lib/sysusers.d",
                   "usr/lib/tmpfiles.d", f"usr/share/doc/{name}", f"usr/lib/{name}"):  # fmt: skip
        (tree / folder).mkdir(parents=True)
    shutil.copy(wheel, library)
    shutil.copy(uv, library / "uv")
    (library / "uv").chmod(0o755)
    constraints = (ROOT / "constraints.txt").read_text()
    (library / "constraints.txt").write_text(constraints)
    (library / "overrides.txt").write_text("\n".join(overrides()) + "\n")
    content = hashlib.sha256(wheel.read_bytes() + constraints.encode()).hexdigest()[:8]
    version = f"{wheel.name.split('-')[1]}-{revision}"
    words = {
        "NAME": name, "PROGRAM": package.program, "EXTRA": name.partition("-")[2],
        "FOLDER": package.folder, "ABOUT": package.about, "VERSION": version, "ARCH": arch,
        "ENVIRONMENT": f"{version}-{content}",
    }  # fmt: skip
    (tree / "DEBIAN/control").write_text(filled(HERE / "control", words))
    for script in SCRIPTS:
        write_program(tree / "DEBIAN" / script, filled(HERE / script, words))
    write_program(library / "make-environment", filled(HERE / "make-environment", words))
    units = ROOT / "deploy/systemd"
    for unit in units.glob(f"{package.program}*.service"):
        shutil.copy(unit, tree / "usr/lib/systemd/system")
    for kind in ("sysusers", "tmpfiles"):
        target = tree / f"usr/lib/{kind}.d/{name}.conf"
        shutil.copy(units / f"{package.program}.{kind}", target)
    shutil.copy(ROOT / "docs" / package.page, tree / f"usr/share/doc/{name}")
    shutil.copy(ROOT / "LICENSE", tree / f"usr/share/doc/{name}/copyright")
    program = tree / "usr/bin" / package.program
    program.symlink_to(f"/opt/{name}/current/bin/{package.program}")


def overrides() -> list[str]:
    """Return what pyproject.toml tells uv to leave out: flwr asks for uv and does not need it."""
    text = (ROOT / "pyproject.toml").read_text()
    (found,) = re.findall(r'^override-dependencies = \["(.+)"\]$', text, re.MULTILINE)
    return [found]


def filled(template: Path, words: dict[str, str]) -> str:
    """Return a template with every @WORD@ replaced."""
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], template.read_text())


def write_program(path: Path, text: str) -> None:
    """Write a file that can be run."""
    path.write_text(text)
    path.chmod(0o755)


if __name__ == "__main__":
    main()
