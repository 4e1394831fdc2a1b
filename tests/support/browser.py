"""A headless Chromium, spoken to over pipes: pages as they are shown, and what they say and ask."""

import base64
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
"""Debian's and others' name of it; None where there is none."""
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"),
)
_PATIENCE_S: Final = 120


@dataclass
class Browser:
    """One page of one browser, and all that it said since it was opened.

    Source: the Chrome DevTools Protocol; messages are JSON, each with a NUL behind it.
    """

    to_it: int
    from_it: int
    session: str = ""
    said: list[str] = field(default_factory=list)
    """Console messages, uncaught errors and what the browser itself has to complain of."""
    asked: list[str] = field(default_factory=list)
    """Addresses of all requests."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _read: bytes = b""

    def call(self, method: str, **params: Any) -> Any:
        """What a method answers; events that come before the answer are noted."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_it, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, page: Path, *, width: int, dark: bool, height: int = 900) -> None:
        """Open a file on a screen of that width."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.said.clear()
        self.asked.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        loaded = "new Promise(done => document.readyState === 'complete' ? done(true)"
        self.value(f"{loaded} : addEventListener('load', () => done(true)))")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives on the page, a promise its outcome."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """A key, by the name that the page gets."""
        codes = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowRight": 39, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text,
            )  # fmt: skip
            text = {}

    def sheets(self) -> list[bytes]:
        """What is painted on each sheet when the page is printed, as a PDF says it."""
        params = {"preferCSSPageSize": True, "printBackground": True}
        pdf = base64.b64decode(self.call("Page.printToPDF", **params)["data"])
        streams = re.findall(rb"/FlateDecode.*?>>\s*stream\r?\n(.*?)endstream", pdf, re.DOTALL)
        return [text for text in map(zlib.decompress, streams) if b" Tf" in text]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self.from_it], [], [], _PATIENCE_S)
            assert ready, "the browser says nothing"
            part = os.read(self.from_it, 1 << 20)
            assert part, "the browser has ended"
            self._read += part
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.said.append(json.dumps(params))
            case "Log.entryAdded":
                self.said.append(json.dumps(params["entry"]))
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in `folder`, with one empty page."""
    assert CHROMIUM
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It reads from 3 and writes to 4, wherever the pipes' ends lie here.
    script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", script, CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (theirs_in, theirs_out):
        os.close(end)
    try:
        page = Browser(ours_out, ours_in)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        for end in (ours_out, ours_in):
            os.close(end)
        process.terminate()
        process.wait(_PATIENCE_S)
