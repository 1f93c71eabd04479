"""Fetches the libraries of the page and of its tests: ``python scripts/vendor.py [--check]``.

It downloads the packages below with npm, stops if the hash of one is not the expected one, and
writes their files and ``LICENSES.md`` to the folder ``vendor`` of the page, or of its tests. With
``--check`` it downloads nothing: it compares the files with the hashes in ``LICENSES.md``.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT = Path(__file__).parents[1]
LIST_NAME = "LICENSES.md"
INTRODUCTION = """\
# Libraries of {user}

`scripts/vendor.py` writes this folder; do not edit it. `scripts/vendor.py --check` compares the
files with the hashes below.
"""


@dataclass(frozen=True, slots=True)
class Library:
    """An exact version of an npm package.

    Attributes:
        integrity: The hash of the package, as npm writes it.
        files: The name here of each file that is copied, and its path in the package.
        part_of: The library here whose file contains this package, if it has no file of its own.
    """

    package: str
    version: str
    license: str
    integrity: str
    files: tuple[tuple[str, str], ...] = ()
    part_of: str | None = None


PAGE_LIBRARIES: Final = (
    Library(
        "markdown-it",
        "15.0.3",
        "MIT",
        "sha512-+Az7Ojz3iRGu8KYMvJ6xVhvrxP3eE+vEtJX75Ow88XBpcQNV/0lGX5ZynIIBftREo4DC2jsveAMDaeltmm8QvQ==",
        files=(("markdown-it.js", "dist/browser/markdown-it.esm.min.mjs"),),
    ),
    Library(
        "entities",
        "8.1.0",
        "BSD-2-Clause",
        "sha512-kxL7msIffSuh9aaFAMD7rxAIuTRMAHMeBtgHW2yUdWw732ZNh4MehkF2gdjvtdmikkaIP9bFDDJOPlsvm7avrA==",
        part_of="markdown-it",
    ),
    Library(
        "linkify-it",
        "6.1.0",
        "MIT",
        "sha512-wJ/TwpSDTLepCrQoYWYIExIKg5Zchex2Nn5yk2mFnB+6PtdkHtyLx742md9csRjjOnGkKIS/RrbY7l8D6gT9Vw==",
        part_of="markdown-it",
    ),
    Library(
        "mdurl",
        "2.1.0",
        "MIT",
        "sha512-1+HBaOx0zi/dQWht8rNv9MYf9qqpqL/kxI0hXImU6Y547zM6Sni8BQibt7ifgMcYtQg41ao3Ivd6cnSM86inpg==",
        part_of="markdown-it",
    ),
    Library(
        "punycode.js",
        "2.3.1",
        "MIT",
        "sha512-uxFIHU0YlHYhDQtV4R9J6a52SLx28BCjT+4ieh7IGbgwVJWO+km431c4yRlREUAsAmt/uMjQUyQHNEPf0M39CA==",
        part_of="markdown-it",
    ),
    Library(
        "uc.micro",
        "3.0.0",
        "MIT",
        "sha512-U3PppEkleoTnIfi8BozMx3yju3qc/L6SwqWo2Sw+54PX+PX0q9I+r1Um5HCmqD7n9VDX5/v3vQH/AjA6deDdtw==",
        part_of="markdown-it",
    ),
    Library(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        "sha512-KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw==",
        files=(("highlight.js", "es/highlight.min.js"),),
    ),
    Library(
        "oauth4webapi",
        "3.8.8",
        "MIT",
        "sha512-8N28E+a/oxfXWBgOMt+ZP/JUf/XR+IFbvkAEPP3gznXOMv9BpAAwiIj0TFNz3tGTPc0ZQ8zmWBNgN1nAys0gng==",
        files=(("oauth4webapi.js", "build/index.js"),),
    ),
)
TEST_LIBRARIES: Final = (
    Library(
        "axe-core",
        "4.11.1",
        "MPL-2.0",
        "sha512-BASOg+YwO2C+346x3LZOeoovTIoTrRqEsqMa6fmfAV0P+U9mFr9NsyOEpiYvFjbc64NMrSswhV50WdXzdb/Z5A==",
        files=(("axe.js", "axe.min.js"),),
    ),
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of libraries, and what uses them."""

    path: Path
    user: str
    libraries: tuple[Library, ...]


FOLDERS: Final = (
    Folder(ROOT / "src/chatledger/http/page/vendor", "the page", PAGE_LIBRARIES),
    Folder(ROOT / "tests/http/vendor", "the page's tests", TEST_LIBRARIES),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare the files with their hashes")
    if parser.parse_args(arguments).check:
        problems = [problem for folder in FOLDERS for problem in differences(folder.path)]
        print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
        return 1 if problems else 0
    for folder in FOLDERS:
        fetch(folder)
    return 0


def fetch(folder: Folder) -> None:
    """Write the files of the folder's libraries, and the list of them."""
    folder.path.mkdir(exist_ok=True)
    rows, licenses = [], []
    for library in folder.libraries:
        contents = download(library)
        for name, path in library.files:
            (folder.path / name).write_bytes(contents[path])
            rows.append((f"`{name}`", library, f"`{sha256(contents[path]).hexdigest()}`"))
        if library.part_of:
            rows.append((f"in {library.part_of}", library, ""))
        texts = [
            text.decode().strip()
            for path, text in contents.items()
            if re.fullmatch(r"licen[cs]e[\w-]*(\.\w+)?", path, re.IGNORECASE)
        ]
        text = "\n\n".join(texts)
        licenses.append(f"## {library.package}\n\n```text\n{text}\n```\n")
    table = ["| file | package | version | license | SHA-256 |", "|---|---|---|---|---|"]
    table += [
        f"| {file} | {library.package} | {library.version} | {library.license} | {digest} |"
        for file, library, digest in rows
    ]
    parts = [INTRODUCTION.format(user=folder.user), "\n".join(table) + "\n", *licenses]
    (folder.path / LIST_NAME).write_text("\n".join(parts), encoding="utf-8")


def download(library: Library) -> dict[str, bytes]:
    """Return the contents of the package's files; stop if its hash is not the expected one."""
    with TemporaryDirectory() as folder:
        name = f"{library.package}@{library.version}"
        done = subprocess.run(
            ["npm", "pack", "--json", name], cwd=folder, capture_output=True, text=True, check=True
        )
        (packed,) = json.loads(done.stdout)
        if packed["integrity"] != library.integrity:
            raise SystemExit(f"{name} has another hash than expected: {packed['integrity']}")
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            return {
                member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.isfile()
            }


def differences(folder: Path) -> list[str]:
    """Return a sentence for each file of ``folder`` that is not the one listed."""
    listed = dict(
        re.findall(
            r"^\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|$",
            (folder / LIST_NAME).read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    found = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != LIST_NAME
    }
    return [
        f"{name} is not the file that {LIST_NAME} lists; run scripts/vendor.py."
        for name in sorted(listed.keys() | found.keys())
        if listed.get(name) != found.get(name)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
