"""What is looked at: the told sessions alone, and the very weights that the model computes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.made_runs import prompter, tiny_model

from personalign.data.dialogue import Dialogue, Turn
from personalign.methods.attention import Attended, attended, of_profile, picture
from personalign.methods.idl_sessions import Told


def session(name: str, *texts: str) -> Dialogue:
    roles = ("user", "assistant")
    messages = tuple(Turn(roles[at % 2], text) for at, text in enumerate(texts))  # type: ignore[arg-type]
    return Dialogue(name, ("i have a dog .", "i like tea ."), messages, person="ann")


TOLD = Told(
    "ann", session("3", "hello", "hello .", "pets ?", "dog"), (session("1", "tea ?", "yes tea ."),), ""
)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen2"])
def test_the_weights_are_the_models_own(shape: str) -> None:
    loaded = tiny_model(shape=shape)
    before = loaded.model.config._attn_implementation
    found = attended(loaded, prompter(), TOLD, turn=3, reply="a dog")
    assert loaded.model.config._attn_implementation == before
    # Nothing of the session that is answered.
    text = "".join(found.tokens).split()
    assert [word for word in text if word in ("tea", "yes", "hello", "pets", "dog")] == ["tea", "yes", "tea"]
    dialogue = TOLD.remembered().dialogue
    prompt = prompter().without_persona(dialogue, 5)
    target = prompter().reply_target("a dog")
    loaded.model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = loaded.model(torch.tensor([[*prompt, *target]]), output_attentions=True).attentions
    expected = np.zeros(len(found.tokens))
    heads = layers[0].shape[1]
    for layer in layers:
        for head in range(heads):
            for place in range(len(target)):
                expected += layer[0, head, len(prompt) - 1 + place, : len(expected)].numpy()
    np.testing.assert_allclose(found.weights, expected / (len(layers) * heads * len(target)), atol=1e-6)
    assert 0 < found.weights.sum() < 1


def test_words_of_the_profile_are_found_over_their_pieces() -> None:
    pieces = ["i", " have", " a d", "og", " .", " te", "a", " and do", "g", "mas ", "Dog"]
    found = of_profile(pieces, ("i have a dog .", "tea !"))
    assert [piece for piece, own in zip(pieces, found, strict=True) if own] == [
        " a d",
        "og",
        " te",
        "a",
        "Dog",
    ]


@given(st.lists(st.text("adgo ", max_size=4), min_size=1, max_size=12))
def test_a_piece_is_marked_where_it_has_a_letter_of_the_word(pieces: list[str]) -> None:
    found = of_profile(pieces, ("dog",))
    text = "".join(pieces)
    marked = {
        place
        for place in range(len(text) - 2)
        if text[place : place + 3] == "dog"
        and not text[:place][-1:].isalpha()
        and not text[place + 3 : place + 4].isalpha()
    }
    letters = {place + more for place in marked for more in range(3)}
    start = 0
    for piece, own in zip(pieces, found, strict=True):
        if piece:
            assert own == bool(letters & set(range(start, start + len(piece))))
        start += len(piece)


def test_the_picture_marks_the_most_attended_and_escapes() -> None:
    found = Attended("<b>", ["a", "<x>", "dog"], np.array([0.1, 0.5, 0.3]), np.array([False, False, True]))
    assert found.top(2).tolist() == [1, 2]
    assert found.shares(2) == (0.5, pytest.approx(1 / 3))
    drawn = picture(found, title="IDL", count=2)
    assert drawn.count("<mark") == 2
    assert "&lt;x&gt;" in drawn
    assert "<b>dog</b>" in drawn
    assert "<x>" not in drawn
