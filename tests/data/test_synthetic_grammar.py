import pytest

from personalign.data.synthetic import stated, tokens, vocabulary
from personalign.data.synthetic.grammar import PARTS, Grammar, Kind, Part, grammar
from personalign.errors import PersonalignError

LANGUAGES = ("en", "zh")


@pytest.fixture(params=LANGUAGES)
def rules(request: pytest.FixtureRequest) -> Grammar:
    return grammar(request.param)


def everything_of(kind: Kind, *, parts: tuple[Part, ...] = PARTS) -> list[str]:
    return [
        text
        for said in (kind.lines, kind.questions, kind.replies)
        for part in parts
        for text in said.of(part)
    ]


def words(rules: Grammar, texts: list[str]) -> set[str]:
    return {token for text in texts for token in tokens(text.replace("{}", " "), language=rules.language)}


def test_enough_of_everything(rules: Grammar) -> None:
    assert len(rules.kinds) >= 12
    for kind in rules.kinds:
        assert len(kind.seen) >= 15
        assert len(kind.unseen) >= 2
        for said in (kind.lines, kind.questions, kind.replies):
            assert len(set(said.train)) >= 4
            assert said.test
        assert kind.lines.stop
        assert kind.questions.stop


def test_both_languages_have_the_same_kinds() -> None:
    english, chinese = (grammar(language) for language in LANGUAGES)
    assert [kind.name for kind in english.kinds] == [kind.name for kind in chinese.kinds]


def test_english_values_are_one_word_that_suits_its_article() -> None:
    for kind in grammar("en").kinds:
        assert all(value.isalpha() and value.islower() for value in kind.seen + kind.unseen)
        if any(" a {}" in text for text in everything_of(kind)):
            assert not any(value[0] in "aeiou" for value in kind.seen + kind.unseen)


def test_no_value_belongs_to_two_kinds(rules: Grammar) -> None:
    values = [value for kind in rules.kinds for value in kind.seen + kind.unseen]
    assert len(values) == len(set(values))


def test_every_line_and_reply_states_its_value_and_nothing_else(rules: Grammar) -> None:
    for kind in rules.kinds:
        for part in PARTS:
            for wording in kind.lines.of(part) + kind.replies.of(part):
                assert wording.count("{}") == 1
                for value in kind.seen + kind.unseen:
                    assert stated(wording.format(value), language=rules.language) == {kind.name: (value,)}


def test_questions_and_small_talk_state_nothing(rules: Grammar) -> None:
    questions = [text for kind in rules.kinds for part in PARTS for text in kind.questions.of(part)]
    for text in questions + list(rules.talk()):
        assert stated(text, language=rules.language) == {}, text


def test_held_out_wordings_occur_in_one_part_only(rules: Grammar) -> None:
    lines = {part: {text for kind in rules.kinds for text in kind.lines.of(part)} for part in PARTS}
    replies = {part: {text for kind in rules.kinds for text in kind.replies.of(part)} for part in PARTS}
    questions = {part: {text for kind in rules.kinds for text in kind.questions.of(part)} for part in PARTS}
    for held_out in ("stop", "test"):
        for other in PARTS:
            if other != held_out:
                assert not lines[held_out] & (lines[other] | replies[other])
                assert not replies[held_out] & (lines[other] | replies[other])
                assert not questions[held_out] & questions[other]


def test_held_out_wordings_use_only_words_of_training_wordings(rules: Grammar) -> None:
    trained = words(rules, [text for kind in rules.kinds for text in everything_of(kind, parts=("train",))])
    trained |= words(rules, list(rules.talk()))
    for kind in rules.kinds:
        assert words(rules, everything_of(kind, parts=("stop", "test"))) <= trained, kind.name


def test_each_question_has_a_word_that_only_its_kind_asks_with(rules: Grammar) -> None:
    asked = {
        kind.name: words(rules, [text for part in PARTS for text in kind.questions.of(part)])
        for kind in rules.kinds
    }
    for kind in rules.kinds:
        others = set().union(*(asked[name] for name in asked if name != kind.name))
        own = words(rules, list(kind.questions.train)) - others
        for part in PARTS:
            for question in kind.questions.of(part):
                assert words(rules, [question]) & own, question


@pytest.mark.parametrize(("language", "most"), [("en", 420), ("zh", 450)])
def test_the_vocabulary_is_small_sorted_and_holds_every_value(language: str, most: int) -> None:
    found = vocabulary(language)
    assert len(found) <= most
    assert found == sorted(set(found))
    values = [value for kind in grammar(language).kinds for value in kind.seen + kind.unseen]
    assert set(tokens(" ".join(values), language=language)) <= set(found)
    assert "{}" not in found
    assert not any(character.isspace() for token in found for character in token)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(PersonalignError, match="write en or zh"):
        grammar("fr")
