"""Give a language model a person to be, and keep it in character.

Public names are imported when they are first asked for: `import personalign` alone loads neither torch nor
transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from personalign._version import __version__

if TYPE_CHECKING:
    from personalign.api import load, reply, score, select, train
    from personalign.data.dialogue import Dialogue, Turn
    from personalign.errors import PersonalignError

__all__ = [
    "Dialogue",
    "PersonalignError",
    "Turn",
    "__version__",
    "load",
    "reply",
    "score",
    "select",
    "train",
]

_MODULES = {
    "Dialogue": "personalign.data.dialogue",
    "PersonalignError": "personalign.errors",
    "Turn": "personalign.data.dialogue",
    "load": "personalign.api",
    "reply": "personalign.api",
    "score": "personalign.api",
    "select": "personalign.api",
    "train": "personalign.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'personalign' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
