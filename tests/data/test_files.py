"""Hashing with a cache, and downloads from servers that misbehave."""

import gzip
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from diffusion_lab import files
from diffusion_lab.data.download import download
from diffusion_lab.errors import DataError
from diffusion_lab.files import sha256


def test_sha256_is_cached_by_size_and_time(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) == known
    with monkeypatch.context() as patch:
        patch.setattr(files.hashlib, "file_digest", None)  # hashing again would fail
        assert sha256(path) == known
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert sha256(path) != known


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_broken_cache_is_ignored(tmp_path, content):
    cache = files.user_cache_dir() / "sha256.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path).startswith("ba7816bf")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        packed = gzip.compress(b"content")
        if self.path == "/silent":
            time.sleep(3)
        elif self.path == "/portal":
            self.reply(b"<html>please log in</html>")
        elif self.path == "/short":
            self.reply(packed, length=len(packed) + 10)
        elif self.path == "/drip":
            self.reply(packed[:1], length=1000)
            for _ in range(30):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path == "/good":
            self.reply(packed)
        else:
            self.send_error(404)

    def reply(self, body, length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients that hang up are what is tested


@pytest.fixture
def server():
    server = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fault", ["silent", "portal", "short", "drip", "gone"])
def test_a_bad_server_costs_a_timeout_and_leaves_nothing(server, tmp_path, fault):
    target = tmp_path / "sub" / "file"
    start = time.monotonic()
    with pytest.raises(DataError, match=f"file could not be downloaded.*{fault}"):
        download([f"{server}/{fault}"], target, timeout=0.4)
    assert time.monotonic() - start < 2.5
    assert not list(tmp_path.rglob("*file*"))
    download([f"{server}/{fault}", f"{server}/good"], target, timeout=0.4)
    assert target.read_bytes() == b"content"


def test_what_was_sent_is_checked_before_it_is_written(tmp_path):
    source = tmp_path / "sent.gz"
    source.write_bytes(gzip.compress(b"content"))
    right = ("sha256", hashlib.sha256(source.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"file could not be downloaded.*md5.*expected 00"):
        download([source.as_uri()], tmp_path / "file", 5.0, ("md5", "00"))
    assert not (tmp_path / "file").exists()
    download([source.as_uri()], tmp_path / "file", 5.0, right)
    assert (tmp_path / "file").read_bytes() == b"content"
    download([source.as_uri()], tmp_path / "whole", 5.0, right, packed=False)
    assert (tmp_path / "whole").read_bytes() == source.read_bytes()


def test_no_network_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="could not be downloaded"):
        download(["http://host.invalid/x.gz"], tmp_path / "x", timeout=1)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]
