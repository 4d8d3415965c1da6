"""The promises of deploy/libtorch, on a small wheel from a server on this machine. Needs no network.

    python3 -m unittest discover -s deploy/libtorch/tests
"""

import contextlib
import fcntl
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.parse

import fake  # First, for it makes the modules under test importable.

import existing
import fetch
import index
import source
import wheel as wheels
from errors import FetchError, NotInParts
from progress import Progress


class PipAt(index.Pip):
    """Stands in for pip: knows one address, and counts whole downloads."""

    def __init__(self, url, whole=fake.WHEEL_BYTES):
        super().__init__()
        self.url = url
        self.whole = whole
        self.downloads = 0
        self._settings = {}

    def locate(self, wheel):
        return self.url

    def download(self, wheel, into):
        self.downloads += 1
        path = os.path.join(into, wheel.filename)
        with open(path, "wb") as file:
            file.write(self.whole)
        return path

    def open(self, url):
        # No proxy of this machine's settings, and no waiting between tries.
        return source.RangeSource(url, None, {}, wait=lambda _: None)


def quiet():
    return Progress(io.StringIO())


def files_below(folder):
    found = []
    for here, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(here, name), folder) for name in names]
    return sorted(found)


class Case(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.parent = holder.name
        self.folder = os.path.join(holder.name, "libtorch")
        self.server = self.enterContext(fake.Server()) if hasattr(self, "enterContext") else self._server()

    def _server(self):
        server = fake.Server()
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def fetch(self, pip=None, pin=None):
        pip = pip or PipAt(self.server.wheel_url)
        fetch.fetch(self.folder, pip, quiet(), [pin or fake.pin()])
        return pip

    def assert_whole(self):
        for path in fake.WANTED_FILES:
            with open(os.path.join(self.folder, path), "rb") as file:
                self.assertEqual(file.read(), fake.FILES[path], path)
        made = ["torch/build-version", "torch/lib/libtorch.so", fake.RECORD]
        self.assertEqual(files_below(self.folder), sorted(fake.WANTED_FILES + made))
        self.assertEqual(sorted(os.listdir(self.parent)), ["libtorch", "libtorch.lock"])

    def assert_nothing(self):
        self.assertEqual(os.listdir(self.parent), ["libtorch.lock"])


class Fetching(Case):
    def test_only_the_wanted_members_are_fetched(self):
        pip = self.fetch()
        self.assert_whole()
        self.assertEqual(pip.downloads, 0)
        unwanted = len(fake.FILES["torch/lib/libtorch_cuda.so"])
        self.assertLess(self.server.served_bytes, len(fake.WHEEL_BYTES) - unwanted + 3 * 65536 * 2)

    def test_what_is_there_is_not_fetched_again(self):
        self.fetch()
        asked = len(self.server.requests)
        self.fetch()
        self.assertEqual(len(self.server.requests), asked)

    def test_a_folder_that_lost_a_file_is_fetched_anew(self):
        self.fetch()
        os.remove(os.path.join(self.folder, "torch/include/a.h"))
        self.assertFalse(fetch.is_whole(self.folder, [fake.pin()]))
        self.fetch()
        self.assert_whole()

    def test_without_range_pip_downloads_the_whole_wheel(self):
        self.server.ranges = False
        self.assertEqual(self.fetch().downloads, 1)
        self.assert_whole()

    def test_an_index_that_pip_does_not_name_is_left_to_pip(self):
        self.assertEqual(self.fetch(PipAt(None)).downloads, 1)
        self.assert_whole()

    def test_a_refusal_is_left_to_pip(self):
        self.server.statuses = [403]
        self.assertEqual(self.fetch().downloads, 1)
        self.assert_whole()

    def test_a_cut_connection_goes_on_where_it_stopped(self):
        # The first three answers are for one byte, the tail and the directory.
        self.server.cut_after = [1 << 30] * 4 + [1000, 200_000]
        self.assertEqual(self.fetch().downloads, 0)
        self.assert_whole()
        self.assertLess(self.server.served_bytes, len(fake.WHEEL_BYTES))

    def test_a_busy_server_is_asked_again(self):
        self.server.statuses = [503, 429]
        self.fetch()
        self.assert_whole()

    def test_a_server_that_gives_nothing_is_given_up_with_a_hint_and_nothing_stays(self):
        self.server.cut_after = [1 << 30] * 4 + [0] * 50
        with self.assertRaises(FetchError) as raised:
            self.fetch()
        self.assertIn("LIBTORCH", raised.exception.hint)
        self.assert_nothing()
        self.assertEqual(len(self.server.requests), 4 + source.FRUITLESS_TRIES)

    def test_leftovers_of_a_killed_fetch_do_not_matter(self):
        os.makedirs(os.path.join(self.folder + ".partial", "torch"))
        self.fetch()
        self.assert_whole()

    def test_two_fetches_at_once_do_the_work_once(self):
        # The first holds the lock as another process would; the second may only go on when it is let go.
        with open(self.folder + ".lock", "w", encoding="utf-8") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            said = _Said("waiting")
            second = threading.Thread(
                target=fetch.fetch, args=(self.folder, PipAt(self.server.wheel_url), Progress(said), [fake.pin()])
            )
            second.start()
            self.assertTrue(said.heard.wait(10))
            self.assertEqual(self.server.requests, [])
        second.join(10)
        self.assert_whole()


class _Said(io.StringIO):
    """Tells when a word was printed."""

    def __init__(self, word):
        super().__init__()
        self.word = word
        self.heard = threading.Event()

    def write(self, text):
        if self.word in text:
            self.heard.set()
        return super().write(text)


class Verification(Case):
    def assert_refused(self, wheel_bytes, pin=None, because=""):
        self.server.wheel = wheel_bytes
        with self.assertRaises(FetchError) as raised:
            self.fetch(PipAt(self.server.wheel_url, wheel_bytes), pin)
        self.assertIn(because, raised.exception.message)
        self.assert_nothing()

    def test_another_record_is_refused(self):
        other = dict(fake.FILES, **{"torch/include/a.h": b"#error\n"})
        self.assert_refused(fake.zip_of(other, fake.record_of(other)), because="RECORD")

    def test_an_altered_member_is_refused(self):
        other = dict(fake.FILES, **{"late/library.so": b"LATE" * 1000})
        self.assert_refused(fake.zip_of(other, fake.record_of(fake.FILES)), because="late/library.so has another hash")

    def test_flipped_bytes_are_refused(self):
        at = fake.WHEEL_BYTES.index(fake.FILES["torch/lib/libtorch_cpu.so"][:64]) + 5000
        flipped = bytearray(fake.WHEEL_BYTES)
        flipped[at] ^= 1
        self.assert_refused(bytes(flipped), because="libtorch_cpu.so")

    def test_a_missing_member_is_refused(self):
        fewer = {path: data for path, data in fake.FILES.items() if path != "torch/lib/libtorch_cpu.so"}
        self.assert_refused(fake.zip_of(fewer, fake.record_of(fake.FILES)), because="libtorch_cpu.so is missing")

    def test_a_path_that_leads_outside_is_refused(self):
        evil = {**fake.FILES, "torch/include/../../../evil": b"x"}
        record = fake.record_of(evil)
        self.assert_refused(fake.zip_of(evil, record), fake.pin(record), because="evil")
        self.assertFalse(os.path.exists(os.path.join(os.path.dirname(self.parent), "evil")))

    def test_what_is_no_wheel_is_refused(self):
        for text in (b"x", b"x" * 100_000, fake.WHEEL_BYTES[:-400]):
            self.assert_refused(text)


class TheServer(unittest.TestCase):
    def said_about(self, error):
        said = io.StringIO()
        with fake.Server() as server, contextlib.redirect_stderr(said):
            try:
                raise error
            except type(error):
                server.handle_error(None, ("127.0.0.1", 1))
        return said.getvalue()

    def test_says_nothing_of_a_client_that_goes_away_early_but_does_of_a_defect(self):
        for error in (ConnectionResetError(), BrokenPipeError(), ConnectionAbortedError()):
            self.assertEqual(self.said_about(error), "")
        self.assertIn("ZeroDivisionError", self.said_about(ZeroDivisionError()))


class AskingPip(unittest.TestCase):
    def test_the_real_pip_tells_where_a_wheel_is_and_downloads_it(self):
        with fake.Server() as server, tempfile.TemporaryDirectory() as folder:
            pip = index.Pip()
            clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and "proxy" not in k.lower()}
            pip.environment = dict(clean, PIP_INDEX_URL=server.root + "/simple", PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1")
            self.assertEqual(pip.locate(fake.pin()), server.wheel_url)
            self.assertEqual(server.requests, [], "the wheel is not downloaded to find it")
            with open(pip.download(fake.pin(), folder), "rb") as file:
                self.assertEqual(file.read(), fake.WHEEL_BYTES)

    def test_links_are_found_in_what_pip_says(self):
        name = "torch-1-py3-none-any.whl"
        for said in ("Found link %s (from x), version: 1", "Skipping link: tags: %s#sha256=00 (from x)", "a\n  %s\nb"):
            for url in ("https://host/a/b/" + name, "file:///opt/wheels/" + name):
                self.assertEqual(index.find_link(said % url, name), url)
        self.assertIsNone(index.find_link("https://host/%s.metadata" % name, name))

    def test_a_pip_that_cannot_connect_is_told_from_one_that_finds_nothing(self):
        nothing = "ERROR: No matching distribution found for torch===2.11.0\n"
        retry = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': /simple/torch/\n"
        self.assertEqual(index.reason(nothing), nothing.strip())
        self.assertIn("cannot reach its package index ('NewConnectionError'", index.reason(retry + nothing))

    def test_settings_of_pip_are_read(self):
        said = "global.cert='/a.pem'\n:env:.cert='/b.pem'\nglobal.proxy='http://p:1'\nnonsense\n"
        self.assertEqual(index.parse_settings(said), {"cert": "/b.pem", "proxy": "http://p:1"})

    def test_an_index_whose_password_pip_hides_is_left_to_pip(self):
        with self.assertRaises(NotInParts):
            index.Pip().open("https://user:****@host/x.whl")

    def test_a_wheel_in_a_folder_of_the_user_is_read_from_there(self):
        with tempfile.TemporaryDirectory(prefix="a b") as folder:
            path = os.path.join(folder, fake.FILENAME)
            with open(path, "wb") as file:
                file.write(fake.WHEEL_BYTES)
            opened = index.Pip().open("file://" + urllib.parse.quote(path))
            self.assertIn("torch/include/a.h", wheels.directory(fake.pin(), opened))


class Existing(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = os.path.join(holder.name, "torch")

    def make(self, numbers=(2, 11, 0)):
        for path in existing._NEEDED + (existing._VERSION_HEADER,):
            os.makedirs(os.path.dirname(os.path.join(self.folder, path)), exist_ok=True)
            with open(os.path.join(self.folder, path), "w", encoding="utf-8") as file:
                for part, number in zip(("MAJOR", "MINOR", "PATCH"), numbers):
                    file.write("#define TORCH_VERSION_%s %d\n" % (part, number))
        with open(os.path.join(self.folder, "__init__.py"), "w", encoding="utf-8") as file:
            file.write("raise ImportError('torch is not to be imported to be found')\n")

    def script(self, *arguments, **environment):
        path = os.path.join(os.path.dirname(fetch.__file__), "fetch.py")
        environment = dict(os.environ, HOME="/nonexistent", **environment)
        return subprocess.run([sys.executable, path, *arguments], env=environment, capture_output=True, text=True, check=False)

    def test_a_folder_of_the_user_is_taken_and_nothing_is_fetched(self):
        self.make()
        done = self.script("--print", LIBTORCH=self.folder, SPOTSWEEP_PYTHON_TORCH="no-such-python")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, self.folder + "\n", ""))

    def test_the_torch_of_a_python_is_taken_and_nothing_is_fetched(self):
        self.make()
        done = self.script("--print", LIBTORCH="", SPOTSWEEP_PYTHON_TORCH=sys.executable, PYTHONPATH=os.path.dirname(self.folder))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, self.folder + "\n", ""))

    def test_another_version_is_refused_in_words(self):
        self.make((2, 10, 0))
        done = self.script("--print", LIBTORCH=self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("names libtorch 2.10.0, and 2.11.0 is needed\nhint: unset LIBTORCH", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_a_folder_without_libtorch_is_refused_in_words(self):
        for folder, words in ((os.path.dirname(self.folder), "does not look like libtorch"), ("/nonexistent", "no folder")):
            with self.assertRaises(FetchError) as raised:
                existing.chosen({"LIBTORCH": folder})
            self.assertIn(words, raised.exception.message)

    def test_a_libtorch_without_headers_or_libraries_is_refused_in_words(self):
        self.make()
        os.remove(os.path.join(self.folder, "lib/libc10.so"))
        with self.assertRaises(FetchError) as raised:
            existing.check(self.folder, "LIBTORCH")
        self.assertIn("lacks lib/libc10.so", raised.exception.message)


class Caching(unittest.TestCase):
    def test_the_cache_is_where_xdg_says(self):
        self.assertEqual(fetch.cache_root({"XDG_CACHE_HOME": "/c"}), "/c/spotsweep")
        below_home = os.path.expanduser("~/.cache/spotsweep")
        self.assertEqual(fetch.cache_root({"XDG_CACHE_HOME": "relative"}), below_home)
        self.assertEqual(fetch.cache_root({}), below_home)


_HANGING = """
import os, sys
sys.path[:0] = [{tests!r}]
import fake, fetch, io, signal, test_fetch
from progress import Progress
class Hanging(test_fetch.PipAt):
    def locate(self, wheel):
        print("begun", flush=True)
        signal.pause()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
fetch.fetch({folder!r}, Hanging(None), Progress(io.StringIO()), [fake.pin()])
"""


class Interrupted(Case):
    def test_an_interrupted_fetch_leaves_nothing(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            code = _HANGING.format(tests=os.path.dirname(os.path.abspath(__file__)), folder=self.folder)
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
                self.assertEqual(child.stdout.readline(), b"begun\n")
                self.assertTrue(os.path.exists(self.folder + ".partial"))
                child.send_signal(number)
                child.wait(10)
            self.assert_nothing()


if __name__ == "__main__":
    unittest.main()
