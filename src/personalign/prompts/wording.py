"""Every literal text that the templates write, per language. Raise VERSION with any change of it."""

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]

VERSION = 1
LINE_END = "\n"


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of one language.

    `gap` stands between a cue and what follows it. `none` answers "which line?" when no line is relevant.
    The `chat_*` texts serve models with a chat template, the `paper_*` texts the template `paper`.
    """

    gap: str
    persona: str
    user: str
    assistant: str
    select: str
    none: str
    chat_task: str
    chat_task_without: str
    chat_reply: str
    chat_opening: str
    paper_select: str
    paper_reply: str
    paper_highlight: str
    paper_without: str
    paper_history: str
    paper_none: str


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        gap=" ",
        persona="Persona:",
        user="User:",
        assistant="Assistant:",
        select="Relevant persona:",
        none="none",
        chat_task="You are the person whom the lines below describe. Chat as this person, in short turns.",
        chat_task_without="You are a person. Chat as this person, in short turns.",
        chat_reply="Reply:",
        chat_opening="(The conversation begins.)",
        paper_select=(
            "You speak as the assistant in a casual conversation, and your persona is given below. Look at "
            "the conversation so far and decide whether one line of the persona matters for what you say "
            "next. Answer with that line. If no line matters, answer: No persona line is relevant."
        ),
        paper_reply=(
            "You speak as the assistant in a casual conversation, and your persona is given below. Look at "
            "the conversation so far and say what you say next, in keeping with the persona."
        ),
        paper_highlight="Pay attention above all to:",
        paper_without=(
            "You speak as the assistant in a casual conversation. Say what you say next, going by the "
            "conversation alone."
        ),
        paper_history="Conversation:",
        paper_none="No persona line is relevant.",
    ),
    "zh": Wording(
        gap="",
        persona="人物设定：",
        user="用户：",
        assistant="助手：",
        select="相关设定：",
        none="无",
        chat_task="下面几行描述的人就是你。请以这个人的身份聊天，每次说得简短一些。",
        chat_task_without="你是一个普通人。请以自己的身份聊天，每次说得简短一些。",
        chat_reply="回复：",
        chat_opening="（对话开始。）",
        paper_select=(
            "你在一段闲聊中扮演助手，你的人物设定见下文。请阅读到目前为止的对话，判断你接下来要说的话是否与"
            "其中某一条设定有关。若有关，请写出这一条设定；若都无关，请写：没有相关的设定。"
        ),
        paper_reply=(
            "你在一段闲聊中扮演助手，你的人物设定见下文。请阅读到目前为止的对话，说出你接下来要说的话，"
            "并与人物设定保持一致。"
        ),
        paper_highlight="请特别注意：",
        paper_without="你在一段闲聊中扮演助手。请只根据对话内容，说出你接下来要说的话。",
        paper_history="对话：",
        paper_none="没有相关的设定。",
    ),
}
