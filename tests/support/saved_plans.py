"""Saved plans of small models, and edits of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.support.folders import copied
from weightsmith import Job, Options, plan_apply_delta
from weightsmith.checkpoint.digest import bytes_digest

SHARDS: Final = 30_000
"""Bytes of a shard: four are made."""


class Shared:
    """A base and a delta, and a plan of four files saved for any processes."""

    def __init__(self, vectors: Path, home: Path) -> None:
        vector = vectors / "vicuna_v1_1"
        self.base = copied(vector / "base", home / "base", tokenizer=False)
        self.delta = copied(vector / "delta", home / "delta", tokenizer=False)
        self.target = home / "out"
        self.plan = home / "plan.json"

    def job(self, target: Path | None = None) -> Job:
        return plan_apply_delta(
            self.base, self.delta, target=target or self.target, max_shard_nbytes=SHARDS
        )

    def save(self, **options: Any) -> Path:
        self.job().save(self.plan, Options(workers=1, **options))
        return self.plan


def reseal(plan: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a saved plan as somebody does who knows how it is sealed."""
    document = json.loads(plan.read_bytes())
    edit(document)
    document.pop("seal", None)
    seal = bytes_digest(_canonical(document))
    plan.write_bytes(_canonical({**document, "seal": seal}))


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
