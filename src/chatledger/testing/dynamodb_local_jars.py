"""Where DynamoDB Local's jars are, and how they get there: through Maven, once, for all projects.

Amazon publishes DynamoDB Local as a Maven artifact, so whatever mirror, proxy and certificates
Maven is set up for are used here too.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "2.6.1"
PATIENCE = 600
"""Seconds that Maven may take for 85 jars, 51 MB: 6 on a good network."""
# The plugin's version too: left out, each version of Maven takes another.
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chatledger</groupId>
  <artifactId>dynamodb-local</artifactId>
  <version>{VERSION}</version>
  <dependencies>
    <dependency>
      <groupId>com.amazonaws</groupId>
      <artifactId>DynamoDBLocal</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
NEEDED = {"java": ("Java 17 or newer", "default-jre-headless"), "mvn": ("Maven", "maven")}
"""What a program is to people, and in which package Debian has it."""


class CannotRun(RuntimeError):
    """DynamoDB Local cannot run here; the message says why and what to do."""


def folder() -> Path:
    """The cache that holds them: it exists only once they are all there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    return cache / "chatledger" / f"dynamodb-local-{VERSION}"


def is_installed() -> bool:
    return folder().is_dir()


def install() -> Path:
    """The folder with the jars; downloads them first where they are missing."""
    place = folder()
    if place.is_dir():
        return place / "lib"
    programs("java", "mvn")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(place.parent / "dynamodb-local.lock"):
            if not place.is_dir():  # while we waited, another process may have finished it
                download(place)
    except OSError as failed:
        raise CannotRun(
            f"DynamoDB Local cannot be kept in {place.parent} ({failed.strerror}): "
            "set XDG_CACHE_HOME to a folder that can be written."
        ) from failed
    return place / "lib"


def programs(*names: str) -> list[str]:
    """The paths of these programs; a sentence that says what to install if one is missing."""
    paths = {name: shutil.which(name) for name in names}
    missing = [NEEDED[name] for name, path in paths.items() if path is None]
    if missing:
        whats, packages = zip(*missing, strict=True)
        raise CannotRun(
            f"DynamoDB Local needs {' and '.join(whats)}: install what is missing (Debian: apt-get "
            f"install {' '.join(packages)}), or name the endpoint of one that runs already in "
            "CHATLEDGER_TEST_DYNAMODB."
        )
    return [path for path in paths.values() if path is not None]


def download(place: Path) -> None:
    """Made elsewhere and renamed, so that an interrupted download is not taken for complete."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        (part / "pom.xml").write_text(POM, encoding="utf-8")
        run_maven(part)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def run_maven(part: Path) -> None:
    (maven,) = programs("mvn")
    command = [maven, "-q", "-B", "--strict-checksums", "-f", str(part / "pom.xml"), COPY]
    command += [f"-DoutputDirectory={part / 'lib'}", "-DincludeScope=runtime"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise CannotRun(f"Maven did not end within {PATIENCE} s; is there a network?") from slow
    if done.returncode or not any((part / "lib").glob("DynamoDBLocal-*.jar")):
        said = "\n".join(done.stdout.strip().splitlines()[:20])
        raise CannotRun(f"Maven could not download DynamoDB Local {VERSION}. It said:\n{said}")


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    import fcntl  # only here, so that elsewhere an endpoint given by hand still works

    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
