"""What a command line said when it was run in this process."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The page without its line breaks."""
        return " ".join(self.out.split())

    def verdict(self, check: str) -> str:
        """Of a check on the page: pass, FAIL, not checked; empty where it was not made."""
        line = next((x for x in self.out.splitlines() if x.strip().startswith(f"{check}  ")), "")
        words = line.strip().removeprefix(check).strip()
        return next((v for v in ("pass", "warn", "FAIL", "not checked") if words.startswith(v)), "")


Weightsmith = Callable[..., Said]
