"""Sort out changes of an input embedding and an output layer that are tied."""

from collections.abc import Iterator
from dataclasses import replace

from weightsmith.plan.adapter_steps import Change
from weightsmith.plan.merging import Adapter, Merging


def parted(
    merging: Merging, adapter: Adapter, changes: dict[str, Change], *, as_peft: bool
) -> Iterator[tuple[str, Change]]:
    """The changes in order, those of a tied input embedding and output layer sorted out."""
    if merging.tied is None or not changes.keys() & set(merging.tied):
        yield from changes.items()
        return
    embedding, head = merging.tied
    ours = changes.pop(embedding, Change("", {}))
    heads = changes.pop(head, Change("", {}))
    yield from changes.items()
    # What a tied pair was trained on is one matrix, even where it was saved twice.
    stored = [each.parts.pop("base_layer", None) for each in (ours, heads)]
    matrix = stored[0] or stored[1]
    start = Change(ours.module, {"base_layer": matrix} if matrix else {})
    if adapter.same_head and stored[0] and heads.parts.keys() == {"whole"}:
        heads.parts.clear()
    wholes = [each.parts.get("whole") for each in (ours, heads)]
    resized = wholes[0] is not None and wholes[0].shape != merging.chains[embedding].output.shape
    if ours.parts and heads.parts and "token_rows" in ours.parts.keys() | heads.parts.keys():
        problem = f"{embedding} and {head} are tied, and one has token rows, the other a change"
        merging.problems.append(problem)
    elif as_peft and wholes == [None, None] and (ours.is_product or heads.is_product):
        note = f"{adapter.role} changes {embedding}, and with it the output layer, as in peft"
        merging.notes.append(note)
        yield from ((embedding, each) for each in (start, ours, heads) if each.parts)
    elif adapter.same_head and ours.parts.keys() == heads.parts.keys() == {"whole"}:
        yield embedding, ours
    elif not heads.parts and not ours.is_product and (wholes[0] is None or resized):
        yield from ((embedding, each) for each in (start, ours) if each.parts)
    else:
        merging.notes.append(f"{head} is no longer tied to {embedding}: {adapter.role} changes one")
        chain = merging.chains[embedding]
        merging.chains[head] = replace(chain, output=replace(chain.output, name=head))
        merging.vocabulary |= {head}
        merging.tied, merging.parted = None, True
        pairs = ((embedding, start), (head, start), (embedding, ours), (head, heads))
        yield from ((target, each) for target, each in pairs if each.parts)
