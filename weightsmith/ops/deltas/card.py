"""The model card of a delta on the hub: what it is, what it was made from, how to apply it."""

import shlex
from collections.abc import Mapping
from string import Template
from typing import Any, Final

from weightsmith.checkpoint.sidecars import CARD
from weightsmith.engine.manifest import Manifest, target_card
from weightsmith.errors import NoTargetName
from weightsmith.hub.translate_errors import page_of
from weightsmith.ops.apply_delta import target_name
from weightsmith.plan.base_record import BaseRecord
from weightsmith.plan.exact_record import FORMS, DeltaRecord
from weightsmith.units import format_percent, format_size

# The hub knows the relations adapter, finetune, merge and quantized. "Adapter" comes nearest: a
# delta cannot be loaded by itself, as a finetune can. The library is named because the hub would
# otherwise infer transformers from the config.
_CARD: Final = Template("""\
---
base_model: $base_repo
base_model_relation: adapter
library_name: weightsmith
tags:
- delta
- weightsmith
---

# $name

This is a delta, not a model: it holds how a model differs from its base,
[$base_repo]($base_page)$base_revision. By itself it is of no use.
$restores

To get the model, with Python 3.11 or newer:

```sh
pip install weightsmith
$command
```

This fetches base and delta, checks them, and writes the model ($model_size) to `$target`, where it
can be loaded like any other.

| | size | fingerprint |
| --- | --- | --- |
$rows

A fingerprint is a hash of all tensors, however they are spread over files; `weightsmith verify`
prints it.
`weightsmith.json` holds the digest of every tensor$sha256.
$target_card""")

_EXACT: Final = (
    "With its base it gives the model back, every tensor bit for bit; a wrong base is refused."
)
_ADD: Final = (
    "Added to its base it gives the model back up to rounding: $share of the weights come back"
    " with other bits, off by up to $largest. A wrong base is refused."
    "\nThe format is FastChat's."
)
_TARGET_CARD: Final = "`$file` is the model's own card, which comes back as `README.md`.\n"


def delta_card(
    manifest: Manifest, *, repo_id: str, revision: str, nbytes: int, target_nbytes: int
) -> str:
    """The model card of a delta, for the repository and revision that it will be pushed to.

    `nbytes` is the size of the delta's weight files, `target_nbytes` that of the model. The text
    holds nothing of this machine: no path, no time, no name.
    """
    record: Mapping[str, Any] = manifest.delta or {}
    base_id = record["base"]["id"]
    base_repo, _, base_revision = base_id.partition("@")
    source = repo_id if revision == "main" else f"{repo_id}@{revision}"
    target = _target(repo_id)
    base_quoted, delta_quoted, target_quoted = map(shlex.quote, (base_id, source, target))
    command = (
        f"weightsmith apply-delta --base {base_quoted} --delta {delta_quoted}"
        f" --target {target_quoted}"
    )
    exact = record["form"] in FORMS
    rows = [
        ("base", format_size(_nbytes(record["base"])), record["base"]["fingerprint"]),
        ("delta", format_size(nbytes), manifest.fingerprint),
        ("model", format_size(target_nbytes), record["target"]["fingerprint"] if exact else ""),
    ]
    files = record["target"]["files"] if exact else []
    card, has_card = target_card(manifest.sidecars), CARD in manifest.sidecars
    return _CARD.substitute(
        base_repo=base_repo,
        base_page=page_of(base_repo),
        base_revision=f" at `{base_revision}`" if base_revision else "",
        name=repo_id.partition("/")[2],
        restores=_exact(record) if exact else _sum_of(record["loss"]),
        command=command,
        model_size=format_size(target_nbytes),
        target=target,
        rows="\n".join(
            f"| {what} | {size} | {f'`{digest}`' if digest else 'rounded, so none'} |"
            for what, size, digest in rows
        ),
        sha256=" and the sha256 of every file that it restores byte for byte" if files else "",
        target_card=Template(_TARGET_CARD).substitute(file=card) if has_card else "",
    )


def _exact(record: Mapping[str, Any]) -> str:
    """The sentences on what an exact delta restores, and how many matrices are a merged LoRA's."""
    low_rank = DeltaRecord.from_document(record).low_rank
    return f"{_EXACT}\n{low_rank}, as after a LoRA was merged." if low_rank else _EXACT


def _sum_of(loss: Mapping[str, Any]) -> str:
    """The sentences on what an additive delta restores, and how much is off by rounding."""
    share = loss["changed"] / loss["weights"] if loss["weights"] else 0.0
    return Template(_ADD).substitute(share=format_percent(share), largest=f"{loss['largest']:.2g}")


def _nbytes(base: Mapping[str, Any]) -> int:
    """Bytes of the base's tensors."""
    return sum(each.info.nbytes for each in BaseRecord.from_document(base).tensors)


def _target(repo_id: str) -> str:
    """The directory that the card's command writes the model to."""
    try:
        return f"./{target_name(repo_id)}"
    except NoTargetName:
        return f"./{repo_id.partition('/')[2]}"
