"""What IDL learns from: sessions before sessions, and triples behind them."""

import pytest
from tests.methods.made_runs import prompter

from personalign.data.dialogue import Dialogue, Turn
from personalign.methods.idl import (
    Aligned,
    alignment_triples,
    mutual_supervised_learning,
    remember,
    without_criterion,
)
from personalign.methods.pal import Dropped
from personalign.training.examples import Example, grow


def session(name: str, *texts: str) -> Dialogue:
    roles = ("user", "assistant")
    messages = tuple(Turn(roles[at % 2], text) for at, text in enumerate(texts))  # type: ignore[arg-type]
    return Dialogue(name, ("i am a secret .",), messages, person="ann")


PAST = [session("1", "tea ?", "yes"), session("2", "any pets ?", "a dog")]
NOW = session("3", "hello", "hello .", "you work ?", "work at night")


def text(example: Example, *, path: int = 0) -> str:
    return str(prompter().tokenizer.decode(example.paths[path].prompt))


def test_a_session_is_told_after_the_others() -> None:
    told = remember(NOW, PAST)
    assert (told.past, told.turns()) == (4, (5, 7))
    assert told.dialogue.persona == ()
    assert [turn.content for turn in told.dialogue.messages][:5] == [
        "tea ?",
        "yes",
        "any pets ?",
        "a dog",
        "hello",
    ]
    assert (told.dialogue.id, told.dialogue.person) == ("3", "ann")
    assert remember(NOW, ()).turns() == (1, 3)


def test_the_last_reply_is_learnt_or_every_one() -> None:
    dropped = Dropped()
    told = remember(NOW, PAST)
    [last] = mutual_supervised_learning([told], prompter(), dropped=dropped)
    assert (last.turn, last.dialogue) == (7, "3")
    assert prompter().decode_reply(list(last.paths[0].target)) == "work at night"
    prompt = text(last)
    places = [prompt.index(said) for said in ("tea ?", "a dog", "hello", "hello .", "you work ?")]
    assert places == sorted(places)
    # Neither the profile nor the reply itself.
    assert "secret" not in prompt
    assert "work at night" not in prompt
    every = mutual_supervised_learning([told], prompter(), dropped=dropped, every_turn=True)
    assert [example.turn for example in every] == [5, 7]
    assert every[1] == last
    assert not dropped.counts
    # The sessions are stored once.
    [tree] = grow(every, budget=1000)
    assert len(tree) < len(every[1].paths[0]) + len(every[0].paths[0].target) + 10


def test_over_long_prompts_lose_the_oldest_messages_and_never_the_current_turn() -> None:
    dropped = Dropped()
    many = [session(f"p{at}", "tea ?", "a dog") for at in range(30)]
    short = prompter(max_tokens=80, reserve=20)
    [example] = mutual_supervised_learning([remember(NOW, many)], short, dropped=dropped)
    assert len(example.paths[0].prompt) <= 60
    prompt = text(example)
    assert "you work ?" in prompt
    assert dropped.counts == {"kept, oldest turns trimmed": 1}


TOLD = remember(NOW, PAST)


def test_triples_are_three_branches_of_one_prompt() -> None:
    dropped = Dropped()
    [example] = alignment_triples([(TOLD, [Aligned(7, "work at tea", "no")])], prompter(), dropped=dropped)
    assert [path.kind for path in example.paths] == ["chosen", "criterion", "rejected"]
    assert len({tuple(path.prompt) for path in example.paths}) == 1
    said = [prompter().decode_reply(list(path.target)) for path in example.paths]
    assert said == ["work at night", "work at tea", "no"]
    [pair] = without_criterion([example])
    assert [path.kind for path in pair.paths] == ["chosen", "rejected"]
    assert not dropped.counts


@pytest.mark.parametrize(
    ("criterion", "rejected", "reason"),
    [
        ("", "no", "empty criterion or rejected reply"),
        ("work at tea", " ", "empty criterion or rejected reply"),
        ("work  at night", "no", "two replies of a triple are equal"),
        ("no", "no", "two replies of a triple are equal"),
        ("work at tea", "no " * 400, "target longer than the room for it"),
    ],
)
def test_triples_that_teach_a_wrong_order_are_dropped_and_counted(
    criterion: str, rejected: str, reason: str
) -> None:
    dropped = Dropped()
    assert alignment_triples([(TOLD, [Aligned(7, criterion, rejected)])], prompter(), dropped=dropped) == []
    assert dropped.counts == {reason: 1}
