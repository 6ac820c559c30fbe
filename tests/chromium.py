"""Chromium without a window, driven through its debugging pipe: what a page shows and does in a real browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def path() -> str:
    """The browser's program; the test is skipped where there is none."""
    found = next((place for name in NAMES if (place := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here ({', '.join(NAMES)})")
    return found


class Tab:
    """One page. `log` has its errors."""

    def __init__(self, reading: Any, writing: Any) -> None:
        self._reading, self._writing, self._last, self._session = reading, writing, 0, None
        self.log: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")
        self._writing.flush()
        while True:
            said = json.loads(self._next())
            thrown, entry = said.get("method") == "Runtime.exceptionThrown", said.get("params", {}).get("entry", {})
            if thrown or entry.get("level") == "error":
                self.log.append(json.dumps(said["params"]))
            if said.get("id") == self._last:
                assert "error" not in said, said
                return said["result"]

    def _next(self) -> bytes:
        data = bytearray()
        while (letter := self._reading.read(1)) != b"\0":
            assert letter, "the browser has ended"
            data += letter
        return bytes(data)

    def eval(self, text: str) -> Any:
        """The value of an expression of JavaScript, which may be a promise."""
        found = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for a condition of JavaScript."""
        waiting = f"""new Promise((yes, no) => {{ const end = Date.now() + {seconds * 1000};
            (function look() {{ if ({condition}) yes(true); else if (Date.now() > end) no(new Error("too late"));
            else setTimeout(look, 30); }})(); }})"""
        self.eval(waiting)

    def window(self, width: int, height: int, dark: bool) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def drop(self, file: Path, x: int, y: int) -> None:
        """Drag a file from elsewhere and let it go at a point of the page."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self, file: Path) -> None:
        """Of the whole page."""
        said = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(said["data"]))


@contextmanager
def tab() -> Iterator[Tab]:
    program = path()
    to_them, writing = os.pipe()
    reading, from_them = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [
            "bash", "-c", f'exec 3<&{to_them} 4>&{from_them}; exec "$@"', "-", program, "--headless", "--no-sandbox",
            "--disable-gpu", "--no-first-run", "--disable-extensions", "--remote-debugging-pipe",
            "--disable-background-networking", f"--user-data-dir={home}",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, pass_fds=(to_them, from_them), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_them)
        os.close(from_them)
        with os.fdopen(writing, "wb") as out, os.fdopen(reading, "rb") as into:
            try:
                found = Tab(into, out)
                yield found
                found._session = None
                found.call("Browser.close")
            finally:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
