import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.decoding.tiny_chat_models import PERSONA, chat_model, publish

import personalign
from personalign import Dialogue, PersonalignError, Turn
from personalign.api import Model
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import respond
from personalign.prompts import UNSELECTED, Unselected

DOCUMENT = Path(__file__).parents[1] / "docs" / "api.md"
MESSAGES = [
    {"role": "user", "content": "hello ?"},
    {"role": "assistant", "content": "yes ."},
    {"role": "user", "content": "any pets ?"},
]
DIALOGUE = Dialogue("chat", PERSONA, tuple(Turn(item["role"], item["content"]) for item in MESSAGES))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = publish(tmp_path_factory.mktemp("api") / "model", chat_model(), none_bias=0.2)
    return personalign.load(folder, device="cpu")


def one_by_one(model: Model, prompt: list[int], target: list[int]) -> list[float]:
    """Log-probabilities of the target's tokens, each from a forward pass of its own over plain tokens."""
    values = []
    for at in range(len(target)):
        with torch.no_grad():
            logits = model.loaded.model(input_ids=torch.tensor([prompt + target[:at]])).logits[0, -1]
        values.append(float(logits.double().log_softmax(-1)[target[at]]))
    return values


@pytest.mark.parametrize("line", [0, 2, None, UNSELECTED])
def test_scores_are_the_log_probabilities_of_each_reply_alone(
    model: Model, line: int | Unselected | None
) -> None:
    candidates = ["i have a dog .", "i have a cat .", "no", "i have a dog ."]
    scored = personalign.score(model, PERSONA, MESSAGES, candidates, line=line)
    assert [item.text for item in scored] == candidates
    for item in scored:
        prompt = model.prompter.reply(DIALOGUE, 3, line=line)
        alone = one_by_one(model, prompt, model.prompter.reply_target(item.text))
        assert item.token_log_probs == pytest.approx(alone, abs=1e-4)
        assert item.log_prob == pytest.approx(sum(alone), abs=1e-3)
        assert item.mean_log_prob == pytest.approx(sum(alone) / len(alone), abs=1e-4)


def test_the_choice_is_the_likeliest_line(model: Model) -> None:
    choice = personalign.select(model, list(PERSONA), MESSAGES)
    prompt = model.prompter.select(DIALOGUE, 3)
    sums = [
        sum(one_by_one(model, prompt, model.prompter.select_target(DIALOGUE, line)))
        for line in (0, 1, 2, None)
    ]
    sums[-1] += 0.2
    weights = np.exp(np.array(sums) - max(sums))
    assert choice.probabilities == pytest.approx(weights / weights.sum(), abs=1e-4)
    assert choice.line == [0, 1, 2, None][int(np.argmax(sums))]


def test_a_reply_is_that_of_respond(model: Model) -> None:
    [response] = respond(
        model.loaded,
        model.prompter,
        [DIALOGUE],
        selection=model.selection,
        decoding=model.decoding,
        turns=lambda dialogue: [len(dialogue.messages)],
    )
    pieces: list[str] = []
    turns = [Turn(item["role"], item["content"]) for item in MESSAGES]  # type: ignore[arg-type]
    reply = personalign.reply(model, PERSONA, turns, on_text=pieces.append)
    assert (reply.text, reply.tokens, reply.ended) == (response.text, response.tokens, response.ended)
    assert "".join(pieces) == reply.text
    assert personalign.reply(model, PERSONA, MESSAGES, strategy="unselected").choice is None
    short = personalign.reply(model, PERSONA, MESSAGES, decoding=replace(model.decoding, max_new_tokens=2))
    assert short.tokens == 2
    assert isinstance(model.decoding, DecodingSettings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"persona": "i have a dog ."}, "persona: is a string; write a list"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\].role: is 'bot'"),
        ({"messages": [{"role": "user", "content": " "}]}, r"messages\[0\].content: is empty"),
        ({"messages": [{"role": "user", "content": "hello " * 300}]}, "more than the 224 tokens"),
        ({"candidates": "yes ."}, "candidates: is 'yes .'; write a list of replies"),
        ({"candidates": None}, "candidates: is None; write a list of replies"),
        ({"messages": "hi"}, "messages: is a string; write a list"),
        ({"messages": ["hi"]}, r"messages\[0\]: is a string; write"),
        ({"messages": None}, "messages: is null; write a list"),
        ({"persona": 3}, "persona: is a number; write a list"),
        ({"persona": ["a \ud83d"]}, r"persona\[0\]: holds half a character"),
        ({"messages": [{"role": "user", "content": "\udcff"}]}, r"messages\[0\].content: holds half a char"),
        ({"candidates": ["yes .", "\ud83d"]}, r"candidates\[1\]: holds half a character"),
        ({"candidates": ["yes .", 3]}, r"candidates\[1\]: is a number; write a reply"),
        ({"line": 3}, "line: 3 is outside the persona's 3 lines"),
    ],
)
def test_what_cannot_be_scored_is_refused(model: Model, arguments: dict[str, Any], message: str) -> None:
    given = {"persona": PERSONA, "messages": MESSAGES, "candidates": ["yes ."]} | arguments
    with pytest.raises(PersonalignError, match=message):
        personalign.score(model, **given)


def test_who_learnt_from_sessions_is_told_them_and_highlights_nothing(model: Model) -> None:
    past = Dialogue("past", (), (Turn("user", "do you work ?"), Turn("assistant", "yes i work .")))
    learnt = replace(model, sessions=(past,), selection=replace(model.selection, strategy="unselected"))
    told = Dialogue("told", (), (*past.messages, *DIALOGUE.messages))
    prompt = model.prompter.reply(told, len(told.messages), line=UNSELECTED)
    [scored] = personalign.score(learnt, [], MESSAGES, ["no ."])
    alone = one_by_one(model, prompt, model.prompter.reply_target("no ."))
    assert scored.token_log_probs == pytest.approx(alone, abs=1e-4)
    answer = personalign.reply(learnt, [], MESSAGES)
    assert answer.choice is None
    assert answer.text == personalign.reply(model, [], list(told.messages), strategy="unselected").text
    # A persona that is given stands in for them.
    given = personalign.score(learnt, PERSONA, MESSAGES, ["no ."])
    assert given == personalign.score(model, PERSONA, MESSAGES, ["no ."])
    with pytest.raises(PersonalignError, match="learnt from sessions and has no lines to choose from"):
        personalign.select(learnt, PERSONA, MESSAGES)


def test_chance_is_another_in_every_conversation_and_the_same_in_one(model: Model) -> None:
    talks = [[{"role": "user", "content": f"{'yes ' * number}?"}] for number in range(1, 13)]
    drawn = [
        [personalign.reply(model, PERSONA, talk, strategy="random").choice for talk in talks]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert len({choice.line for choice in drawn[0] if choice is not None}) > 1


def test_no_candidates_have_no_scores(model: Model) -> None:
    assert personalign.score(model, PERSONA, MESSAGES, []) == []


def test_other_arguments_that_are_wrong_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="write predicted, random or unselected"):
        personalign.reply(model, PERSONA, MESSAGES, strategy="oracle")
    with pytest.raises(PersonalignError, match="neither a file nor a shipped recipe"):
        personalign.train("quikstart", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_example_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert (tmp_path / "runs" / "toy" / "model" / "personalign.json").is_file()
    assert len(names["scored"]) == 2
    assert len(names["said"]) == 4
    assert names["best"].text in capsys.readouterr().out
