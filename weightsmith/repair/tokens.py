"""Detectors for tokenizer_config.json, special_tokens_map.json and added_tokens.json."""

from collections.abc import Iterator

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import (
    ADDED,
    CONFIG,
    GENERATION,
    ROLES,
    SETTINGS,
    SPECIAL_MAP,
    TOKENIZER_JSON,
    token_text,
)
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder


def misspelt(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A name, or a list of names, that differs from a right one in upper and lower case only."""
    said = folder.parsed(known.file).get(known.key)
    names = said if isinstance(said, list) else [said]
    right = {name.casefold(): name for name in known.right}
    mended = [right.get(str(name).casefold(), name) for name in names]
    if mended != names:
        yield Fault(
            known.id,
            known.file,
            f'{known.key} is "{names[0]}", it should be "{mended[0]}"',
            (Edit(known.file, {known.key: mended if isinstance(said, list) else mended[0]}),),
        )


def no_tokenizer_class(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A LLaMA tokenizer whose class is named in no file."""
    if folder.llama and not folder.settings.get("tokenizer_class"):
        there = SETTINGS in folder.files
        evidence = "it names no tokenizer class" if there else "the file is missing"
        edit = Edit(SETTINGS, {"tokenizer_class": "LlamaTokenizer"})
        yield Fault(known.id, SETTINGS, evidence, (edit,))


def no_bos_rule(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """No ``add_bos_token``, and no ``tokenizer.json`` that has the rule instead."""
    if folder.llama and not folder.is_generic and folder.settings.get("add_bos_token") is None:
        if TOKENIZER_JSON in folder.files:
            return
        edit = Edit(SETTINGS, {"add_bos_token": True})
        yield Fault(known.id, SETTINGS, "add_bos_token is missing", (edit,))


def no_legacy_rule(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """No ``legacy``, unless ``tokenizer.json`` puts a space before the first piece of text only."""
    if folder.llama and not folder.is_generic and folder.settings.get("legacy") is None:
        rule = folder.parsed(TOKENIZER_JSON).get("pre_tokenizer")
        if isinstance(rule, dict) and rule.get("prepend_scheme") == "first":
            return
        yield Fault(known.id, SETTINGS, "legacy is missing", (Edit(SETTINGS, {"legacy": True}),))


def blank_tokens(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Special tokens whose text is empty, or null where there must be one."""
    for file, source in ((SETTINGS, folder.settings), (SPECIAL_MAP, folder.special_map)):
        blank = [
            role
            for role in (*ROLES, "pad_token")
            if token_text(source.get(role)) == ""
            or (role in ROLES and role in source and source[role] is None)
        ]
        if folder.llama and blank:
            yield _retold(folder, known, file, blank, "empty")


def wrong_tokens(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Special tokens that the vocabulary does not have, or that have another meaning there."""
    for file, source in ((SETTINGS, folder.settings), (SPECIAL_MAP, folder.special_map)):
        said = {role: token_text(source.get(role)) for role in (*ROLES, "pad_token")}
        wrong = [role for role, text in said.items() if text and not folder.may_be(role, text)]
        if folder.llama and wrong:
            yield _retold(folder, known, file, wrong, "wrong")


def special_tokens_map(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Two files that name different special tokens, each of which could be right."""
    differing = []
    for role in (*ROLES, "pad_token"):
        ours, theirs = (token_text(s.get(role)) for s in (folder.settings, folder.special_map))
        both = ours and theirs and folder.may_be(role, ours) and folder.may_be(role, theirs)
        if both and ours != theirs:
            differing.append(role)
    if folder.llama and differing:
        yield _retold(folder, known, SPECIAL_MAP, differing, f"not what {SETTINGS} says")


def missing_pad_row(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A model with one row more than there are tokens in all files together."""
    text = folder.unnamed_pad
    if text is None or folder.llama is None:
        return
    number = len(folder.llama.pieces)
    settings: dict[str, object] = {"pad_token": folder.right_token("pad_token")}
    decoder = folder.settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        settings["added_tokens_decoder"] = decoder | {str(number): added_entry(text)}
    edits = [Edit(ADDED, {text: number}), Edit(SETTINGS, settings)]
    if SPECIAL_MAP in folder.files:
        edits.append(Edit(SPECIAL_MAP, {"pad_token": settings["pad_token"]}))
    evidence = f"the model has {folder.rows} rows, the tokenizer {number} tokens"
    yield Fault(known.id, ADDED, evidence, tuple(edits))


def pad_without_row(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """An added pad token that the weights have no row for, and that nothing else uses."""
    pad = folder.idle_pad
    if pad is None:
        return
    edits = []
    if pad.text in folder.parsed(ADDED):
        gone = len(folder.parsed(ADDED)) == 1
        edits.append(Edit(ADDED, remove=(pad.text,), delete=gone))
    decoder = folder.settings.get("added_tokens_decoder")
    if isinstance(decoder, dict) and str(pad.id) in decoder:
        kept = {number: entry for number, entry in decoder.items() if number != str(pad.id)}
        edits.append(Edit(SETTINGS, {"added_tokens_decoder": kept}))
    if token_text(folder.settings.get("pad_token")) == pad.text:
        edits.append(Edit(SETTINGS, {"pad_token": None}))
    if token_text(folder.special_map.get("pad_token")) == pad.text:
        edits.append(Edit(SPECIAL_MAP, remove=("pad_token",)))
    listed = folder.parsed(TOKENIZER_JSON).get("added_tokens")
    if isinstance(listed, list):
        kept_tokens = [e for e in listed if not (isinstance(e, dict) and e.get("id") == pad.id)]
        if len(kept_tokens) < len(listed):
            edits.append(Edit(TOKENIZER_JSON, {"added_tokens": kept_tokens}))
    edits += [
        Edit(file, {"pad_token_id": None})
        for file in (CONFIG, GENERATION)
        if folder.parsed(file).get("pad_token_id") == pad.id
    ]
    evidence = f"{pad.text} has the id {pad.id}, the weights have {folder.embedding_rows} rows"
    yield Fault(known.id, edits[0].file, evidence, tuple(edits))


def added_entry(text: str, **flags: bool) -> dict[str, object]:
    """An added token as tokenizer_config.json and tokenizer.json describe it.

    Never ``normalized``: the normalizer would change the text before the token is looked for in it.
    """
    plain = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"content": text, **plain, "normalized": False, "special": True, **flags}


def _retold(folder: Folder, known: KnownRepair, file: str, roles: list[str], how: str) -> Fault:
    """The fault that `file` names wrong tokens for these roles, with the edit that corrects it."""
    right = {role: folder.right_token(role) for role in roles}
    told = {role: text for role, text in right.items() if text is not None}
    silent = tuple(role for role in roles if role not in told)
    are = "is" if len(roles) == 1 else "are"
    should = ", ".join(f'"{text}"' for text in told.values()) or "left out"
    evidence = f"{', '.join(roles)} {are} {how}: should be {should}"
    if file == SETTINGS and silent:  # null, as transformers writes it
        return Fault(known.id, file, evidence, (Edit(file, told | dict.fromkeys(silent)),))
    return Fault(known.id, file, evidence, (Edit(file, told, silent),))
