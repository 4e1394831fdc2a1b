"""Prove that a repaired tokenizer cuts text as it should: equal ids for a fixed set of probes."""

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightsmith.errors import PackageMissing, TokenizerInvalid, TokenizerUnproved
from weightsmith.formats.sentencepiece_model import SPACE
from weightsmith.repair.contents import MODEL, TOKENIZER_JSON
from weightsmith.repair.folder import AddedToken, Folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WISH: Final = "the proof of a repaired tokenizer"

PLAIN: Final = (
    "",
    "Hello world",
    "The quick brown fox jumps over the lazy dog.",
    "def f(x):\n    return x ** 2  # squared\n\n\tif x: pass\r\n",
    '{"key": [1, 2.5, -3e+10], "url": "https://example.org/a?b=c&d=%20"}',
    "0123456789 3.14159 1,000,000 007",
    "你好世界。これはテストです。안녕하세요",
    "Ünïcödé naïve Straße Ελληνικά русский العربية עברית हिन्दी ไทย",
    "e\u0301 ﬁ ½ ™ \u00a0 \u2028 \u200b \ufeff",
    "🙂👩\u200d👩\u200d👧🏽🇩🇪 \U0001f9ff",
    "\x00\x01\x07\x1b[0m\x7f",
    "<0x0A> < s > <|x|> ### Human: hi",
    "x",
    "tail spaces  ",
    "in  the   middle",
    "aaaaaaaaaaaaaaaa ababababab        b",
    "low\u2581line",
)
"""Texts that every reader of every shape of tokenizer.json must cut alike."""

SPACED: Final = (" the", "  two", " ", "    ", " \n", "\u2581a")
"""Texts that start with a space; transformers 5 puts no further space before these."""


VARIED: Final = (
    "I'VE don't SHE'S they'll WE'D it's",
    "1 12 123 1234 12345 1234567 1e10 v2.0.1 2024-01-31",
    "HTTPServer camelCase snake_case foo_bar is_not UPPER lower Title",
    "word.\n\nNext\r\n\r\n\tThird;\n\n\n",
    "a/b\\c a/\n//x http://a.b/c?d=e#f",
    "{[(<'\"`~!@#$%^&*_+-=|;:,.?/>)]}",
    "\t\ttabs \t and  spaces   \n    indented",
    "Zażółć gęślą jaźń, ÀÉÎÕÜ e\u0301a\u0308 \u212b",
    "मराठी বাংলা தமிழ் ไทยๆ ភាសាខ្មែរ",
    "中文标点。日本語カタカナ 한국어 띄어쓰기",
    "مرحبا بالعالم שלום עולם",
    "x\u00a0y\u2003z\u3000w\u200bv",
    "\u00bd \u00b2 \u2167 \u0663\u0664 \uff11\uff12",
    "🙂🙂 👍🏽 🏳️\u200d🌈 ❤️!",
    "Hello , world ! Don 't ( stop ) .",
    "aAbBcC 1a2b3c ABC123def",
)
"""Texts in which split rules differ: capitals, digits, punctuation at line ends, marks, scripts."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a reader of a tokenizer folder made of the probes."""

    reader: str
    """``"transformers 5.23.0"``."""
    ids: list[list[int]]
    texts: list[str]
    """The ids decoded again, special tokens left out."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that succeeded."""

    reader: str
    probes: int
    departures: tuple[str, ...] = ()
    """Probes that the reader cuts otherwise, before the repair too, because of its class."""
    truth: str = "sentencepiece"
    """What the reader agrees with."""
    before: int | None = None
    """How many probes it cut wrongly before the repair; None: it could not load the folder."""


class Truth:
    """The right ids of a text: special tokens are cut out first, the rest is sentencepiece's."""

    def __init__(self, folder: Folder) -> None:
        """For a folder whose right ids follow from its sentencepiece model.

        Raises: TokenizerInvalid, if sentencepiece itself refuses the model; PackageMissing.
        """
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise PackageMissing(wish=_WISH, package="sentencepiece") from error
        try:
            self._processor: Any = SentencePieceProcessor(model_proto=folder.files[MODEL])
        except (RuntimeError, UnicodeDecodeError) as error:  # of its own words, cut anywhere
            raise TokenizerInvalid(file=MODEL, reason=error) from error
        self._tokens = {token.text: token for token in folder.special_tokens}
        longest_first = sorted(folder.special_tokens, key=lambda token: -len(token.text))
        self._split = re.compile(f"({'|'.join(map(_pattern, longest_first))})")
        ends = {role: folder.right_id(role) for role in ("bos_token", "eos_token")}
        self._first = [ends["bos_token"]] if folder.begins_with_bos else []
        self._last = [ends["eos_token"]] if folder.settings.get("add_eos_token", False) else []

    def encode(self, text: str) -> list[int | None]:
        """Ids of a text; each stretch between special tokens is cut as a text of its own."""
        ids: list[int | None] = [*self._first]
        for number, part in enumerate(self._split.split(text)):
            if number % 2:
                token = self._tokens.get(part) or self._tokens[part.strip()]
                ids.append(token.id)
            else:
                ids += self._processor.encode(part)
        return [*ids, *self._last]

    @property
    def everyday(self) -> list[str]:
        """Probes that every published shape of ``tokenizer.json`` must cut alike."""
        plain = [probe for probe in PLAIN if not self._split.search(probe)]
        return [*plain, *self._tokens, *(f"A{token}" for token in self._tokens)]

    @property
    def all(self) -> list[str]:
        """All probes, also text that starts with a space or follows a special token: only the
        ``tokenizer.json`` of `tokenizer_document` settles how that is cut.
        """
        after = (
            text
            for token in self._tokens
            for text in (f"{token}USER: hi", f"a {token} b {token}{token}\nc", f"{token}  x")
        )
        return [*self.everyday, *SPACED, *after]


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # something without a spec stands in its place in sys.modules
        return False


def prove_tokenizer_json(folder: Folder) -> Proof:
    """Hold a ``tokenizer.json`` of our making against ``tokenizer.model``.

    Raises: TokenizerUnproved, with the first probe on which they differ.
    """
    truth = Truth(folder)
    answers = _answers(_load(folder), truth.all)
    if where := _other_ids(truth, truth.all, answers) or _other_texts(truth.all, answers):
        raise TokenizerUnproved(reader=answers.reader, reason=where)
    return Proof(answers.reader, len(truth.all))


def disagreement(folder: Folder) -> str | None:
    """Where an existing ``tokenizer.json`` disagrees with sentencepiece, or None.

    One that cuts by regular expressions disagrees without a try: it may run for ever, and LLaMA's
    kind has none.

    Only everyday text counts: text that starts with a space, or follows a special token, is cut in
    several ways by published tokenizers that are in order.
    """
    document = folder.parsed(TOKENIZER_JSON)
    rules = [document.get("normalizer"), document.get("pre_tokenizer"), document.get("decoder")]
    if '"Regex"' in json.dumps(rules):
        return "it cuts text by regular expressions, which tokenizer.model does not"
    truth = Truth(folder)
    try:
        return _other_ids(truth, truth.everyday, _answers(_load(folder), truth.everyday))
    except TokenizerUnproved as error:
        return error.values["reason"]


def probes_for_readers(folder: Folder) -> list[str]:
    """Probes for other readers of a folder: all, if its settings leave nothing open."""
    truth = Truth(folder)
    settled = folder.settings.get("legacy") and folder.parsed(TOKENIZER_JSON).get("normalizer")
    return truth.all if settled else truth.everyday


def prove_reader(folder: Folder, probes: Sequence[str], answers: Answers) -> Proof:
    """Hold what another reader of the folder made of `probes` against sentencepiece.

    One departure is known: with Llama's class, transformers 5 puts no space before a stretch of
    text that starts with one. Such answers are held against a tokenizer with exactly that rule.
    Raises: TokenizerUnproved, with the first probe on which they differ otherwise.
    """
    from tokenizers import pre_tokenizers

    truth, tokenizer = Truth(folder), _load(folder)
    right = _answers(tokenizer, probes)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False)
    departed = _answers(tokenizer, probes)
    departures = []
    for number, probe in enumerate(probes):
        ids, text, expected = answers.ids[number], answers.texts[number], truth.encode(probe)
        if ids != expected and (ids, text) == (departed.ids[number], departed.texts[number]):
            departures.append(probe)
        elif ids != expected:
            reason = _told(probe, ids, expected)
            raise TokenizerUnproved(reader=answers.reader, reason=reason)
        elif text != right.texts[number]:
            reason = f"{probe!r} comes back as {text!r}"
            raise TokenizerUnproved(reader=answers.reader, reason=reason)
    return Proof(answers.reader, len(probes), tuple(departures))


def common_probes(folder: Folder) -> list[str]:
    """Probes for any tokenizer: plain texts, spaces, and its special tokens within text."""
    special = [token.text for token in folder.special_tokens if token.special][:8]
    within = (
        text
        for token in special
        for text in (token, f"A{token}", f"{token}USER: hi", f"a {token} b")
    )
    return [*PLAIN, *SPACED, *VARIED, *within]


def prove_unharmed(
    probes: Sequence[str], right: Answers, before: Answers | None, after: Answers
) -> Proof:
    """Hold what a reader made of `probes` before and after a repair against what is right.

    Raises: TokenizerUnproved, with the first probe that was right before and is wrong now, or that
    no longer comes back as the text it was.
    """
    good, now = _told_by(right), _told_by(after)
    then = _told_by(before) if before else None
    for number, told in enumerate(good):
        if then is not None and now[number] != told and then[number] == told:
            reason = _told(probes[number], now[number][0], told[0])
            raise TokenizerUnproved(reader=after.reader, reason=reason)
    departed = tuple(probes[n] for n, told in enumerate(good) if now[n][0] != told[0])
    wrong = None if then is None else sum(a[0] != b[0] for a, b in zip(then, good, strict=True))
    return Proof(after.reader, len(probes), departed, right.reader, wrong)


def prove_by_tekken(probes: Sequence[str], told: Answers, answers: Answers) -> Proof:
    """Hold a ``tokenizer.json``'s `answers` against what Mistral's own file says of the probes.

    Tokens that the answers have before every text, the empty one too, do not count.
    Raises: TokenizerUnproved, with the first probe on which they differ.
    """
    first = len(answers.ids[probes.index("")])
    for probe, ids, right in zip(probes, answers.ids, told.ids, strict=True):
        if ids[first:] != right:
            reason = _told(probe, ids[first:], right)
            raise TokenizerUnproved(reader=answers.reader, reason=reason)
    return Proof(answers.reader, len(probes), truth=told.reader)


def _told_by(answers: Answers) -> list[tuple[list[int], str]]:
    return list(zip(answers.ids, answers.texts, strict=True))


def _load(folder: Folder) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PackageMissing(wish=_WISH, package="tokenizers") from error
    with _refused_by_tokenizers():
        return Tokenizer.from_str(folder.files[TOKENIZER_JSON].decode())


def _answers(tokenizer: "Tokenizer", probes: Sequence[str]) -> Answers:
    with _refused_by_tokenizers():
        ids = [tokenizer.encode(probe).ids for probe in probes]
        return Answers("tokenizers", ids, [tokenizer.decode(each) for each in ids])


@contextlib.contextmanager
def _refused_by_tokenizers() -> Iterator[None]:
    """Turn what the library raises into TokenizerUnproved.

    It raises nothing narrower than Exception; of a panic in its Rust code, which some files bring
    about, a BaseException that cannot be imported.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerUnproved(reader="tokenizers", reason=f"it says: {error}") from error
        raise


def _other_ids(truth: Truth, probes: Sequence[str], answers: Answers) -> str | None:
    for probe, ids in zip(probes, answers.ids, strict=True):
        expected = truth.encode(probe)
        if ids != expected:
            return _told(probe, ids, expected)
    return None


def _other_texts(probes: Sequence[str], answers: Answers) -> str | None:
    for probe, text in zip(probes, answers.texts, strict=True):
        if probe in {*PLAIN, *SPACED} and text != probe.replace(SPACE, " "):
            return f"{probe!r} comes back as {text!r}"
    return None


def _told(probe: str, ids: Sequence[int], expected: Sequence[int | None]) -> str:
    """Where two lists of ids first differ, as a clause."""
    at = next(
        (at for at, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b),
        min(len(ids), len(expected)),
    )
    found, right = (list(each[at : at + 3]) for each in (ids, expected))
    return f"{probe!r} gives {found} at token {at}, should give {right}"


def _pattern(token: AddedToken) -> str:
    pattern = re.escape(token.text)
    if token.single_word:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    before, after = (r"\s*" if strips else "" for strips in (token.lstrip, token.rstrip))
    return before + pattern + after
