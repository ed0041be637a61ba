"""A headless Chromium, driven over the DevTools protocol through two pipes: no port, and no library."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import Any, Self

import pytest

PATIENCE = 60
MISSING = "Chromium is not installed; on Debian: apt-get install chromium"
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
)
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "Home": 36, "End": 35, "Backspace": 8}
_MODIFIERS = {"Alt": 1, "Control": 2, "Shift": 8}


class Browser:
    """A browser with a profile of its own."""

    def __init__(self) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip(MISSING)
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        pipes = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
        self.process = subprocess.Popen(
            ["sh", "-c", pipes, "sh", program, *_FLAGS, *sandbox, f"--user-data-dir={self.profile}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin, self.process.stdout
        self._last = 0
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.tabs: dict[str, Tab] = {}
        Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._to.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _listen(self) -> None:
        rest = b""
        while part := self._from.read(2**16):
            *messages, rest = (rest + part).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                elif message.get("sessionId") in self.tabs:
                    self.tabs[message["sessionId"]].events.append(message)
        self._answers.put(None)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=PATIENCE)
            assert answer is not None, "Chromium ended"
            if answer["id"] == self._last:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> "Tab":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": ("light", "dark")[dark]}]
        )
        tab.goto(url)
        return tab


class Tab:
    """A page that is open."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def goto(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.js(f"Boolean({condition})"):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)}).textContent"))

    def value(self, selector: str = "#editor") -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)}).value"))

    def shown(self, selector: str) -> bool:
        return bool(self.js(f"document.querySelector({json.dumps(selector)}).checkVisibility()"))

    def fill(self, selector: str, text: str) -> None:
        """Replace what an input or the editor holds, as typing would."""
        self.click(selector)
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        if text:
            self.type(text)
        else:
            self.press("Backspace")

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of the first line of an element."""
        place = self.js(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            " found.scrollIntoView({block: 'nearest'}); const box = found.getClientRects()[0];"
            " return [box.x + Math.min(box.width / 2, 400), box.y + Math.min(box.height / 2, 12)] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        """Press a key, with modifiers before it."""
        *held, key = keys
        code = f"Key{key.upper()}" if len(key) == 1 else key
        number = _KEYS.get(key) or ord(key.upper())
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        shared |= {"modifiers": sum(_MODIFIERS[name] for name in held)}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "") if not held else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def errors(self) -> list[str]:
        """What went wrong in the page, by its console."""
        bad = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                bad.append(params["exceptionDetails"]["text"])
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                bad.append(params["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                bad.append(str(params["args"]))
        return bad

    def requests(self) -> list[str]:
        """The addresses that the page asked for, but for data in the address itself."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def picture(self, path: Path, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(shot))
