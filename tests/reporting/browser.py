"""A headless Chromium for tests, driven by the DevTools protocol over a pair of pipes.

No package is needed for it: messages are JSON, each ended by a zero byte.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
PATIENCE = 60.0
"""Seconds until a browser that does not answer is given up."""


class Browser:
    """One browser with one page; what the page says on the console is collected."""

    def __init__(self, profile: Path) -> None:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # The protocol's pipes are file descriptors 3 and 4 of the browser
        flags = (
            f"--headless=new --no-sandbox --disable-gpu --no-first-run --user-data-dir={profile}"
        )
        line = f'exec "$0" --remote-debugging-pipe {flags} about:blank 3<&{read} 4>&{write}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, str(CHROMIUM)],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._rest = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._events.append(answer)

    def open(self, path: Path, width: int = 1100, height: int = 900) -> None:
        """Show a file in a window of a given size; what was said before is forgotten."""
        self._events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def move(self, selector: str, share: float, kind: str = "mouseMoved", clicks: int = 0) -> None:
        """Move the mouse over an element, `share` of the way from its left to its right.

        With the kind "mousePressed" or "mouseReleased" its left button does so there.
        """
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            f"return [b.left + {share} * b.width, b.top + b.height / 2]; }})()"
        )
        button = "left" if clicks else "none"
        mouse = {"type": kind, "x": x, "y": y, "button": button, "clickCount": clicks}
        self.call("Input.dispatchMouseEvent", **mouse)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def complaints(self) -> list[str]:
        """Console messages, script errors, violations of the policy, and requests over the net."""
        self.call("Runtime.evaluate", expression="0")  # lets what is on its way come in
        found = []
        for event in self._events:
            name, what = event.get("method"), event.get("params", {})
            if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(what))
            elif name == "Network.requestWillBeSent":
                url = what["request"]["url"]
                found += [] if url.startswith(("file:", "data:")) else [url]
            elif name == "Page.javascriptDialogOpening":
                found.append(json.dumps(what))
        return found

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        try:
            self.call("Browser.close")
        except (OSError, AssertionError):
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
