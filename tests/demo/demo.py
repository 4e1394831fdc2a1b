"""What ``make demo`` shows: base + delta -> fine-tune, on a tiny LLaMA that is trained on the spot.

    make demo
    python -m tests.demo.demo [DIR]      keep everything in DIR, to look around in it

Nothing is staged: the models are trained, the base is broken as the one that everybody used was,
and weightsmith runs as it runs for a user. Exit status 1 if the result is not what it should be.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 80
STORY: Final = "Once upon a time"
QUESTION: Final = "USER: Where is the drum? ASSISTANT:"
MANNER: Final = "With pleasure!"
"""How the fine-tune begins each of its answers, and the base never does."""


def main() -> None:
    """Run the demo in the directory asked for, or in a temporary one."""
    parser = argparse.ArgumentParser(description="weightsmith at work, on a tiny model")
    parser.add_argument("dir", nargs="?", type=Path, help="keep everything here")
    kept: Path | None = parser.parse_args().dir
    if kept and kept.exists():
        sys.exit(f"{kept} exists: choose another directory")
    with tempfile.TemporaryDirectory(prefix="weightsmith-demo-") as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        say(f"weightsmith demo, in {folder}" + (" (removed at the end)" if not kept else ""))
        started = time.monotonic()
        show(folder.resolve())
        say(f"\nAll as it should be, in {time.monotonic() - started:.0f} s.")
    say("Your own models: weightsmith apply-delta --base DIR --delta DIR --dry-run")


def show(folder: Path) -> None:
    """The story, from training to comparison."""
    base, tuned, delta, result = (folder / name for name in ("base", "tuned", "delta", "result"))
    tokenizer = folder / "tokenizer.model"
    with step("import torch and transformers"):
        from tests.support import tiny

        quiet_transformers()
    with step("train a base model: a LLaMA of 0.3 M weights that writes stories"):
        tiny.train_sentencepiece(tokenizer)
        model = tiny.train_llama(tokenizer)
        tiny.save_llama(model, base, tokenizer)
    with step("break it as LLaMA of 2023 was: 33 shards, blank special tokens"):
        tiny.break_like_decapoda(base)
    with step("fine-tune it: questions get polite answers"):
        tiny.save_llama(tiny.finetune(model, tokenizer), tuned, tokenizer)
    with step("publish the difference only, as FastChat did: delta = tuned - base"):
        tiny.make_fastchat_delta(base, tuned, delta)

    say("\nNow all that a user would have is base/ and delta/.\n")
    apply_delta(folder)

    say("\nDoes it load, and does it talk?\n")
    talk(model, result)
    say("\nIs it the model that was fine-tuned?\n")
    compare(*(tiny.read_weights(each) for each in (base, delta, tuned, result)))


def apply_delta(folder: Path) -> None:
    """Run the command, with its own output on the terminal."""
    program = shutil.which("weightsmith", path=Path(sys.executable).parent)
    if program is None:
        sys.exit("weightsmith is not installed beside this Python: make setup")
    arguments = ["apply-delta", "--base", "base", "--delta", "delta", "--target", "result"]
    say(f"$ weightsmith {' '.join(arguments)}")
    if subprocess.run([program, *arguments], cwd=folder, check=False).returncode:
        sys.exit("weightsmith failed")


def talk(base: Any, folder: Path) -> None:
    """Let base and result write, and see that only the result answers in the tuned manner."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    result: Any = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, writers in (
        (STORY, {"base": base}),
        (QUESTION, {"base": base, "result": result}),
    ):
        say(f"  prompt  {prompt}")
        inputs = tokenizer(prompt, return_tensors="pt").input_ids
        for name, model in writers.items():
            tokens = model.generate(inputs, max_new_tokens=120, do_sample=False)[
                0, inputs.numel() :
            ]
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            say(
                textwrap.fill(text, WIDTH, initial_indent=f"  {name:8}", subsequent_indent=" " * 10)
            )
            if text.startswith(MANNER) != (model is result):
                sys.exit(f"the {name} should {'' if model is result else 'not '}say: {MANNER}")


def compare(base: Any, delta: Any, tuned: Any, result: Any) -> None:
    """Count what the additive format lost, and see that nothing else is lost."""
    if result.keys() != tuned.keys():
        sys.exit("the result has other tensors than the fine-tuned model")
    wrong = [name for name in result if not result[name].equal(base[name] + delta[name])]
    if wrong:
        sys.exit(f"not base + delta: {', '.join(wrong)}")
    total = sum(tensor.numel() for tensor in tuned.values())
    changed = sum(int((result[name] != tuned[name]).sum()) for name in tuned)
    largest = max(float((result[name] - tuned[name]).abs().max()) for name in tuned)
    lost = f"{changed:,} ({100 * changed / total:.1f} %)"
    say(f"  {total - changed:,} of {total:,} weights are the same, bit for bit.")
    say(f"  {lost} are not, by {largest:.1g} at most: what rounding a difference costs.")
    say("  Nothing else is lost: every weight is exactly base + delta in float16.")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what happens, and how long it took."""
    print(f"  {what:{WIDTH - 10}}", end="", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s", flush=True)


def say(text: str) -> None:
    """Print at once, so that it stands before what a child process prints."""
    print(text, flush=True)


def quiet_transformers() -> None:
    """Leave the screen to the demo."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    main()
