"""People who run weightsmith against the hub on loopback."""

import os
import pty
import select
import subprocess
import sys
from typing import Any

from tests.support.hub.client import Client, usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT

ENDS = """
import os
from weightsmith.cli.main import main
from weightsmith.engine.receipts import Receipt
write = Receipt.write
Receipt.write = lambda *args: (write(*args), os._exit(9))
main()
"""
"""weightsmith, which ends hard after its first receipt."""


class Person:
    """Somebody with a cache and a folder of their own, and nothing in either."""

    def __init__(self, hub: Hub, client: Client) -> None:
        self.hub = hub
        self.client = client
        self.cache = client.cache
        self.place = client.home.parent / "here"
        self.place.mkdir()
        self.env = {**usual_env(hub), "HF_HOME": str(client.home), "PYTHONPATH": str(ROOT)}

    def start(self, *args: str, script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", script, *args],
            cwd=self.place,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *args: str) -> tuple[int, str, str]:
        done = self.client.command(*args, cwd=self.place, whole_env=self.env)
        return done["code"], done["out"], done["err"]

    def weights_in_cache(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("pytorch_model*.bin"))


class ShellUser:
    """Somebody at a shell."""

    def __init__(self, hub: Hub, client: Client) -> None:
        self.client = client
        self.env = {**usual_env(hub), "HF_HOME": str(client.home), "TERM": "xterm"}
        self.cwd = client.home.parent
        self.command = [sys.executable, "-m", "weightsmith"]
        self.env["PYTHONPATH"] = str(ROOT)

    def start(self, *args: str, **streams: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.command, *args], cwd=self.cwd, env=self.env, text=True, **streams
        )

    def run(self, *args: str) -> "subprocess.CompletedProcess[str]":
        done = self.client.command(*args, cwd=self.cwd, whole_env=self.env)
        return subprocess.CompletedProcess(args, done["code"], done["out"], done["err"])

    def at_terminal(self, *args: str, answers: list[str]) -> str:
        """What the screen shows; an answer is typed at each prompt, a line that ends in ``?``."""
        ours, theirs = pty.openpty()
        process = self.start(*args, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        screen = unanswered = b""
        while select.select([ours], [], [], 240)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end has gone
                break
            screen += piece
            unanswered += piece
            if answers and unanswered.rstrip().endswith((b"as it is", b"[y/N]")):
                os.write(ours, answers.pop(0).encode() + b"\n")
                unanswered = b""
        process.wait(240)
        os.close(ours)
        return screen.decode()
