"""Bytes from somewhere: a file on this disk, or one on a server that honours HTTP Range.

Owns reading from a given byte to a given byte, with retries that go on where the last try stopped. It must
not know what the bytes mean, nor name any host.
"""

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import Callable, Iterator, Optional

from errors import OWN_LIBTORCH_HINT, FetchError, NotInParts

BLOCK_BYTES = 1 << 18
TIMEOUT_S = 60.0
# Tries in a row that bring not one byte, before giving up.
FRUITLESS_TRIES = 5
FIRST_WAIT_S = 1.0
# Answers that a later try may well improve: request timeout, too many requests, and errors of the server.
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class FileSource:
    """A file on this machine."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.path.getsize(path)

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in blocks."""
        with open(self.path, "rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(BLOCK_BYTES, end - start))
                if not block:
                    raise FetchError("%s ends early" % self.path, "delete it and try again")
                start += len(block)
                yield block


class RangeSource:
    """A file on a server, read in parts. Raises `NotInParts` where the server does not give parts."""

    def __init__(
        self,
        url: str,
        context: Optional[ssl.SSLContext] = None,
        proxies: Optional[dict] = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.wait = wait
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context),
            urllib.request.ProxyHandler(proxies),
        )
        self.size = 0
        for _ in self.stream(0, 1):
            pass

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in blocks."""
        fruitless = 0
        while start < end:
            try:
                with self._open(start, end) as answer:
                    while start < end:
                        block = answer.read(min(BLOCK_BYTES, end - start))
                        if not block:
                            raise ConnectionError("the connection was cut")
                        start += len(block)
                        fruitless = 0
                        yield block
            except (OSError, http.client.HTTPException) as error:
                _raise_if_final(error)
                fruitless += 1
                if fruitless >= FRUITLESS_TRIES:
                    raise FetchError(
                        "the download stopped and %d more tries brought nothing: %s" % (fruitless, error),
                        "check the network and run the same command again; " + OWN_LIBTORCH_HINT,
                    ) from error
                self.wait(FIRST_WAIT_S * 2 ** (fruitless - 1))

    def _open(self, start: int, end: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers={"Range": "bytes=%d-%d" % (start, end - 1)})
        answer = self.opener.open(request, timeout=TIMEOUT_S)
        given = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or given is None or int(given.group(1)) != start:
            answer.close()
            raise NotInParts("the server does not honour HTTP Range")
        self.size = int(given.group(3))
        return answer


def _raise_if_final(error: Exception) -> None:
    """Raises `NotInParts` for an error that trying again cannot mend."""
    if isinstance(error, urllib.error.HTTPError) and error.code not in PASSING_STATUS:
        raise NotInParts("the server answered %d" % error.code) from error
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise NotInParts("the server's certificate is not trusted: %s" % reason.verify_message) from error
