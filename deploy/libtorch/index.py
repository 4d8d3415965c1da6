"""Where a wheel is, asked of pip, so that no index is named here and the user's own settings count.

Owns every call of pip and the reading of its settings. It must not read or check what is in a wheel.
"""

import ast
import os
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from typing import Dict, List, Optional

from errors import OWN_LIBTORCH_HINT, FetchError, NotInParts
from pins import PLATFORMS, PYTHON_VERSION, Wheel
from source import FileSource, RangeSource

NO_PIP_HINT = "install pip (Debian: apt-get install python3-pip); " + OWN_LIBTORCH_HINT


class Pip:
    """The pip of one Python."""

    def __init__(self, python: str = sys.executable) -> None:
        self.command = [python, "-m", "pip", "--disable-pip-version-check"]
        # `--target` and `--user` exclude each other, and colours or prompts would be in the way.
        self.environment = dict(os.environ, PIP_USER="0", PIP_NO_INPUT="1", PIP_NO_COLOR="1", PIP_QUIET="0", PIP_VERBOSE="0")
        self._settings: Optional[Dict[str, str]] = None

    def _run(self, arguments: List[str]) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self.command + arguments,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if "No module named pip" in done.stderr:
            raise FetchError("%s has no pip" % self.command[0], NO_PIP_HINT)
        return done

    def locate(self, wheel: Wheel) -> Optional[str]:
        """The address of the wheel, or None where pip does not tell."""
        # `install --dry-run --report` tells it too, but downloads the wheel first where the index does not
        # serve its metadata apart. Found links are listed at this verbosity by every pip since 21.2.
        done = self._run(["index", "versions", "-vv", *_target(), wheel.project])
        return find_link(done.stdout + done.stderr, wheel.filename)

    def download(self, wheel: Wheel, into: str) -> str:
        """Has pip download the whole wheel into the folder `into`; its path."""
        done = self._run(
            ["download", "--no-deps", "--progress-bar=off", "--dest", into, *_target(), "%s===%s" % (wheel.project, wheel.version)]
        )
        path = os.path.join(into, wheel.filename)
        if done.returncode != 0 or not os.path.exists(path):
            raise FetchError(
                "pip cannot get %s: %s" % (wheel.filename, reason(done.stderr)),
                "check the network and `pip config list`; " + OWN_LIBTORCH_HINT,
            )
        return path

    def settings(self) -> Dict[str, str]:
        """pip's settings from its files and environment, by name without section."""
        if self._settings is None:
            self._settings = parse_settings(self._run(["config", "list"]).stdout)
        return self._settings

    def open(self, url: str):
        """The wheel at `url`, readable in parts. Raises `NotInParts` where that is not to be had."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "file":
            return FileSource(urllib.request.url2pathname(parts.path))
        if "*" in parts.netloc:
            raise NotInParts("pip keeps the index's password to itself")
        proxy = self.settings().get("proxy")
        proxies = {"http": proxy, "https": proxy} if proxy else None
        return RangeSource(url, self._trust() if parts.scheme == "https" else None, proxies)

    def _trust(self) -> ssl.SSLContext:
        """The certificates that pip trusts: its own setting, the usual variables, else what it brings along."""
        context = ssl.create_default_context()
        named = self.settings().get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if not named and not os.environ.get("SSL_CERT_FILE"):
            where = "from pip._vendor import certifi; print(certifi.where())"
            asked = subprocess.run([self.command[0], "-c", where], capture_output=True, text=True, check=False)
            named = asked.stdout.strip()
        if named:
            try:
                if os.path.isdir(named):
                    context.load_verify_locations(capath=named)
                else:
                    context.load_verify_locations(cafile=named)
            except (OSError, ssl.SSLError) as error:
                raise NotInParts("cannot read the certificates in %s" % named) from error
        return context


def _target() -> List[str]:
    options = ["--only-binary=:all:", "--python-version", PYTHON_VERSION]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    return options


def reason(said: str) -> str:
    """Why pip failed, out of all that it says. Where it cannot connect, its last error is that it found nothing."""
    lines = [line.strip() for line in said.splitlines()]
    retries = [line for line in lines if line.startswith("WARNING: Retrying")]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    if retries:
        return "it cannot reach its package index (%s)" % retries[-1].partition("connection broken by ")[2][:200]
    return errors[-1] if errors else "it got another file"


def find_link(text: str, filename: str) -> Optional[str]:
    """The address that ends in `filename` in what pip says."""
    found = re.search(r"((?:https?|file)://\S*/%s)(?=[\s#]|$)" % re.escape(filename), text)
    return found.group(1) if found else None


def parse_settings(text: str) -> Dict[str, str]:
    """What `pip config list` prints, `section.name='value'` a line; later lines win, as in pip."""
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            try:
                settings[key.rsplit(".", 1)[-1]] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return settings
