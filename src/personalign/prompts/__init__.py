"""From dialogues to prompts: templates in English and Chinese, and the one truncation."""

from personalign.prompts.prompter import PrefixReport, Prompter, structure_texts
from personalign.prompts.settings import UNSELECTED, PromptSettings, Unselected
from personalign.prompts.truncation import Window
from personalign.prompts.wording import Language

__all__ = [
    "UNSELECTED",
    "Language",
    "PrefixReport",
    "PromptSettings",
    "Prompter",
    "Unselected",
    "Window",
    "structure_texts",
]
