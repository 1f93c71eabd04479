"""The jars of DynamoDB Local, downloaded once with Maven and cached for all projects.

Amazon publishes DynamoDB Local as a Maven artifact, so the mirrors, proxies and certificates that
Maven is configured for are used here too.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "2.6.1"
MAVEN_TIMEOUT = 600
"""The seconds that Maven may take for 85 jars (51 MB); it takes 6 on a good network."""
# With the version of the plugin, which otherwise depends on the version of Maven.
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
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
REQUIREMENTS = {"java": ("Java 17 or newer", "default-jre-headless"), "mvn": ("Maven", "maven")}
"""The programs needed: the usual name of each, and its Debian package."""


class CannotRun(RuntimeError):
    """DynamoDB Local cannot run here; the message says why and what to do."""


def cache_folder() -> Path:
    """Return the folder of the cached jars, which exists only when the download is complete."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    return cache / "chatledger" / f"dynamodb-local-{VERSION}"


def is_installed() -> bool:
    return cache_folder().is_dir()


def install() -> Path:
    """Return the folder with the jars; download them first if they are missing.

    Raises:
        CannotRun: Java or Maven is missing, the download failed, or the cache is not writable.
    """
    cache = cache_folder()
    if cache.is_dir():
        return cache / "lib"
    find_programs("java", "mvn")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache.parent / "dynamodb-local.lock"):
            if not cache.is_dir():  # another process may have downloaded it meanwhile
                download(cache)
    except OSError as failed:
        raise CannotRun(
            f"DynamoDB Local cannot be stored in {cache.parent} ({failed.strerror}); "
            "set XDG_CACHE_HOME to a writable folder."
        ) from failed
    return cache / "lib"


def find_programs(*names: str) -> list[str]:
    """Return the paths of these programs; raise ``CannotRun`` if one is missing."""
    paths = {name: shutil.which(name) for name in names}
    missing = [REQUIREMENTS[name] for name, path in paths.items() if path is None]
    if missing:
        titles, packages = zip(*missing, strict=True)
        raise CannotRun(
            f"DynamoDB Local needs {' and '.join(titles)}: install what is missing (on Debian: "
            f"apt-get install {' '.join(packages)}), or set CHATLEDGER_TEST_DYNAMODB to the "
            "endpoint of a DynamoDB Local that is running."
        )
    return [path for path in paths.values() if path is not None]


def download(cache: Path) -> None:
    """Download the jars to another folder, and rename it only when the download is complete."""
    part = cache.with_name(f"{cache.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        (part / "pom.xml").write_text(POM, encoding="utf-8")
        run_maven(part)
        part.rename(cache)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def run_maven(part: Path) -> None:
    (maven,) = find_programs("mvn")
    command = [maven, "-q", "-B", "--strict-checksums", "-f", str(part / "pom.xml"), COPY_GOAL]
    command += [f"-DoutputDirectory={part / 'lib'}", "-DincludeScope=runtime"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MAVEN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise CannotRun(
            f"Maven did not finish within {MAVEN_TIMEOUT} s; check the network."
        ) from slow
    if done.returncode or not any((part / "lib").glob("DynamoDBLocal-*.jar")):
        output = "\n".join(done.stdout.strip().splitlines()[:20])
        raise CannotRun(f"Maven could not download DynamoDB Local {VERSION}. Its output:\n{output}")


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    import fcntl  # not at the top: Windows lacks it, where a given endpoint should still work

    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
