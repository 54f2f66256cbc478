"""Several threads ask one prompter: what one of them has remembered is never given to another."""

from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from tests.prompts.prompt_tokenizers import dialogue, gpt2_like

from personalign.prompts import UNSELECTED, Prompter, PromptSettings, Window
from personalign.prompts.plain import PlainTrunk
from personalign.prompts.segments import SegmentEncoder

SETTINGS = PromptSettings(max_tokens=100_000)
MINE = dialogue("u: Any pets ?", "a: Yes , a dog .", "u: work ?", "a: at night .")
THEIRS = dialogue("u: hello", "a: hi", "u: tea ?", "a: no", persona=["I like tea ."])


def always(value: Any) -> property:
    """An attribute that another thread sets again at once, whatever this one sets."""
    return property(lambda _: value, lambda _, mine: None)


def test_a_dialogue_is_not_taken_for_that_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    prompter = Prompter(gpt2_like(), SETTINGS)
    expected = prompter.reply(MINE, 3, line=UNSELECTED)
    prompter.reply(THEIRS, 3, line=UNSELECTED)
    trunk = prompter._layout.trunk  # type: ignore[attr-defined]
    monkeypatch.setattr(PlainTrunk, "_latest", always(trunk._latest))
    assert prompter.reply(MINE, 3, line=UNSELECTED) == expected


def test_a_window_is_not_taken_from_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    prompter = Prompter(gpt2_like(), SETTINGS)
    monkeypatch.setattr(Prompter, "_windows", always((THEIRS, {3: Window(2, 0, 2, True)})), raising=False)
    assert prompter.window(MINE, 3) == Window(0, 0, 0, True)


class SlowCore:
    """A tokenizer's core that waits in the middle of what people wrote, and then says how it reads that."""

    encode_special_tokens = False

    def __init__(self) -> None:
        self.begun, self.overtaken = Event(), Event()

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        if text == "written":
            self.begun.set()
            self.overtaken.wait(0.3)
        return SimpleNamespace(ids=[int(self.encode_special_tokens)])


def test_special_tokens_stay_text_while_another_thread_writes_the_template() -> None:
    core = SlowCore()
    tokenizer: Any = SimpleNamespace(is_fast=True, backend_tokenizer=core)
    # Two prompters for one tokenizer.
    one, other = SegmentEncoder(tokenizer), SegmentEncoder(tokenizer)

    def overtake() -> None:
        core.begun.wait()
        other.structure("template")
        core.overtaken.set()

    thread = Thread(target=overtake)
    thread.start()
    content = one.content("written")
    thread.join()
    assert content == (1,)
    assert other.structure("template") == (0,)
