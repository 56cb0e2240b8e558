"""Chromium without a window, spoken to over a pipe in its DevTools protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --remote-debugging-pipe "
    "about:blank"
)


class Chromium:
    """A browser with one page. `log` collects what the page's console, security policy and scripts complain of."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp()
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def take_places() -> None:
            # The browser reads commands from 3 and writes answers to 4, whatever numbers the pipes have here.
            os.dup2(os.dup(to_read), 3)
            os.dup2(os.dup(to_write), 4)

        self._process = subprocess.Popen(
            ["chromium", *_FLAGS.split(), f"--user-data-dir={self._folder}"],
            preexec_fn=take_places,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.log: list[str] = []
        self._rest, self._number, self._session = b"", 0, ""
        pages = [one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self._ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        """Press and let go of a key."""
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def until(self, expression: str, value: Any, seconds: float = 60) -> None:
        """Wait until an expression has a value. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while (found := self.evaluate(expression)) != value:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} is {found!r} and not {value!r}")
            time.sleep(0.02)

    def screenshot(self, file: Path, width: int, height: int, *, dark: bool) -> int:
        """Write a picture; returns how many pixels of the page's width are beyond it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))
        return self.evaluate("Math.max(0, document.documentElement.scrollWidth - innerWidth)")

    def close(self) -> None:
        """End the browser and remove its profile."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(asked | session).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']['message']}")
                return told["result"]
            if told.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.log.append(json.dumps(told["params"])[:300])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 2**20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
