"""The tables in docs/reference/version-skew.md: what becomes of each case, what each reader reads.

python -m tests.support.skew_page     write it anew; fetches older versions of transformers
"""

import functools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from tests.support.ask import ask_transformers, wrong
from tests.support.paths import ROOT
from tests.support.real_files import python_with_transformers
from tests.support.real_folders import texts
from tests.support.real_skew import REAL
from tests.support.skew_cases import ORACLES, folder_of
from tests.support.skew_readers import by_config, by_tokenizers, by_transformers
from tests.support.tokenizer_folders import write
from weightsmith.catalogue.repairs import load_repairs
from weightsmith.ops.fix_tokenizer import TokenizerResult, check_tokenizer, fix_tokenizer
from weightsmith.repair.contents import Reader

PAGE: Final = ROOT / "docs" / "reference" / "version-skew.md"
OLDER: Final = ("5.3.0", "4.57.6", "4.46.3", "4.33.3")
"""Versions of transformers beside the one that is installed."""
ASKED: Final[Mapping[str, Reader | None]] = {
    "leading-space-v5": None,
    "cleanup-spaces": "transformers-4",
    "merges-pairs": "transformers-4",
    "padding-side": "transformers-5",
}
"""Remarks that are mended when asked: for whom, or None for the exact class."""
_TEXTS: Final = texts()


@functools.cache
def pythons() -> dict[str, str]:
    """The Python of each version of transformers, this one's first."""
    from importlib.metadata import version

    made = {version("transformers"): sys.executable}
    return made | {each: python_with_transformers(each) for each in OLDER}


def render(page: str) -> str:
    """The page with its tables made anew."""
    with tempfile.TemporaryDirectory() as scratch:
        made = {"cases": _cases, "asked": _asked, "real": _real}
        for name, rows in made.items():
            begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
            before, _, rest = page.partition(begin)
            after = rest.partition(end)[2]
            table = "\n".join(rows(Path(scratch) / name))
            page = f"{before}{begin}\n{table}\n\n{end}{after}"
    return page


def _cases(scratch: Path) -> Iterator[str]:
    before = {case: folder_of(case) for case in ORACLES}
    after = {case: Path(shutil.copytree(path, scratch / case)) for case, path in before.items()}
    found = {case: check_tokenizer(path) for case, path in after.items()}
    done = {case: fix_tokenizer(path) for case, path in after.items()}
    first, then = _verdicts(before), _verdicts(after)
    yield _line(
        "folder", "kind", "found", "written", "proved", "config.json", "tokenizers", *pythons()
    )
    yield _line(*["---"] * (7 + len(pythons())))
    for case, oracle in ORACLES.items():
        ids = dict.fromkeys(fault.id for fault in (*found[case].faults, *found[case].remarks))
        readers = (
            _change(first[case].get(reader, ""), then[case].get(reader, ""))
            for reader in ("config.json", "tokenizers", *pythons())
        )
        yield _line(case, oracle["kind"], *_done(ids, done[case]), *readers)


def _asked(scratch: Path) -> Iterator[str]:
    after = {}
    for case, reader in ASKED.items():
        after[case] = Path(shutil.copytree(folder_of(case), scratch / case))
        fix_tokenizer(after[case], reader=reader, exact_class=reader is None)
    first, then = _verdicts({case: folder_of(case) for case in ASKED}), _verdicts(after)
    yield _line("folder", "option", "tokenizers", *pythons())
    yield _line(*["---"] * (3 + len(pythons())))
    for case, reader in ASKED.items():
        option = "`--exact-class`" if reader is None else f"`--for {reader}`"
        readers = (
            _change(first[case][each], then[case][each]) for each in ("tokenizers", *pythons())
        )
        yield _line(case, option, *readers)


def _real(scratch: Path) -> Iterator[str]:
    yield _line("folder", "found", "written", "proved", *pythons())
    yield _line(*["---"] * (4 + len(pythons())))
    for name, files in REAL.items():
        for exact in (False, True) if name == "Llama 2" else (False,):
            title = f"{name}, `--exact-class`" if exact else name
            before = write(scratch / title / "before", files())
            after = write(scratch / title / "after", files())
            found = check_tokenizer(after, exact_class=exact)
            done = fix_tokenizer(after, exact_class=exact)
            ids = dict.fromkeys(fault.id for fault in (*found.faults, *found.remarks))
            yield _line(title, *_done(ids, done), *_counts(before, after))
            shutil.rmtree(scratch / title)


def _counts(before: Path, after: Path) -> Iterator[str]:
    """For each transformers: of how many texts it gets other ids than the mended tokenizer.json."""
    tokenizer = Tokenizer.from_file(str(after / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    right = [encoding.ids for encoding in tokenizer.encode_batch(_TEXTS)]
    for python in pythons().values():
        answers = ask_transformers([before, after], _TEXTS, python=python)
        yield _change(*(str(wrong(answers[each], right)) for each in (before, after)))


def _verdicts(folders: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """By case and reader."""
    asked = {path: ORACLES[case] for case, path in folders.items()}
    told: dict[str, dict[str, str]] = {
        case: {
            "config.json": by_config(path, ORACLES[case]),
            "tokenizers": by_tokenizers(path, ORACLES[case]),
        }
        for case, path in folders.items()
    }
    for version, python in pythons().items():
        answers = by_transformers(asked, python)
        for case, path in folders.items():
            told[case][version] = answers.get(path, "")
    return told


def _done(found: Sequence[str] | Mapping[str, None], done: TokenizerResult) -> tuple[str, ...]:
    """What was found, which files were written, and what the proof says."""
    verdicts = {repair.id: repair.verdict for repair in load_repairs()}
    mended = {fault.id for fault in done.faults}
    said = [f"{each} ({verdicts[each]})" if each not in mended else each for each in found]
    proofs = [
        f"{proof.reader}: {proof.probes - len(proof.departures)} of {proof.probes}"
        for proof in done.proofs
    ]
    return (
        ", ".join(said),
        ", ".join(
            change.file if change.after is not None else f"{change.file} goes"
            for change in done.changes
        ),
        "; ".join(proofs),
    )


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Ask all readers and write the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
