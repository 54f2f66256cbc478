"""Opening a model for use: a run, a published model, or any causal language model."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from personalign._mini import shipped_model
from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection
from personalign.errors import PersonalignError
from personalign.methods.idl_recipe import Sessions
from personalign.methods.models import CARD, PUBLISHED, SESSIONS
from personalign.methods.recipe import LEARN, PRETRAIN, Decoding, Selector
from personalign.methods.selectors import open_scorer
from personalign.methods.steps import undone
from personalign.methods.trained_selector import SELECTOR_FILES
from personalign.models import LoadedModel, load_model
from personalign.models.hub import CONFIGS, hub_arguments
from personalign.models.precision import Dtype
from personalign.prompts import Prompter, PromptSettings

RECIPE = "recipe.yaml"


@dataclass(frozen=True, slots=True)
class Model:
    """A model with everything that its prompts, its selection and its decoding need.

    `examples` are personas to begin a chat with; `sessions` are told before it, of the person whom the model learnt;
    `remembers` says how sessions are told; `source` is what was opened. What learnt from sessions highlights no line:
    the strategy of its `selection` is `unselected`.
    """

    source: str
    loaded: LoadedModel
    prompter: Prompter
    selection: Selection
    decoding: DecodingSettings
    examples: tuple[tuple[str, ...], ...] = ()
    sessions: tuple[Dialogue, ...] = ()
    remembers: Sessions = field(default_factory=Sessions)


class _Card(BaseModel):
    """What stands in `personalign.json` beside a published model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: PromptSettings
    prompt_hash: str
    none_bias: float
    share_of_none: float
    selector: Selector
    decoding: Decoding
    examples: tuple[tuple[str, ...], ...] = ()
    remembers: Sessions | None = None


def open_model(source: str | Path, *, device: str = "auto", dtype: Dtype = "auto", seed: int = 0) -> Model:
    """Open a run folder, a model folder, an adapter folder, a hub id or `personalign-mini`, which comes along.

    A model with a `personalign.json` brings its prompts, its selector with the bias of "none", its decoding and
    example personas. Any other causal language model gets the defaults: the template `trunk-first` in English, selection
    by the model itself without a bias, greedy decoding.

    Raises PersonalignError for what cannot be found or loaded, a run that is not finished, a damaged
    `personalign.json`, and one written for other prompts than this version makes.
    """
    place = _model_of_run(shipped_model(source))
    loaded = load_model(place, device=device, dtype=dtype, seed=seed)
    path = _card_path(place)
    if path is None:
        settings = _default_prompts(loaded)
        longest = min(DecodingSettings().max_new_tokens, settings.reserve)
        decoding = DecodingSettings(max_new_tokens=longest, seed=seed)
        return Model(
            str(source), loaded, Prompter(loaded.tokenizer, settings), Selection(seed=seed), decoding
        )
    card = _read_card(path)
    prompter = Prompter(loaded.tokenizer, card.prompts)
    if prompter.hash != card.prompt_hash:
        raise PersonalignError(
            f"{path}: prompt_hash is {card.prompt_hash[:12]}..., but this version of personalign makes prompts with "
            f"the hash {prompter.hash[:12]}...: the model was trained on other prompts (wording, settings or chat "
            "template changed since), and would answer worse without a word; use the version that trained it, "
            "or train it again"
        )
    return Model(
        source=str(source),
        loaded=loaded,
        prompter=prompter,
        selection=Selection(
            "predicted" if card.remembers is None else "unselected",
            scorer=open_scorer(card.selector, _selector_folder(place, card.selector, path)),
            none_bias=card.none_bias,
            share_of_none=card.share_of_none,
            seed=seed,
        ),
        decoding=DecodingSettings(**card.decoding.model_dump(exclude={"engine"}), seed=seed),
        examples=card.examples,
        remembers=card.remembers or Sessions(),
        sessions=tuple(read_dialogues(str(path.with_name(SESSIONS))))
        if path.with_name(SESSIONS).is_file()
        else (),
    )


def _model_of_run(source: str | Path) -> str | Path:
    folder = Path(source).expanduser()
    if not (folder / RECIPE).is_file():
        _check_for_runs(folder)
        return source
    left = undone(folder)
    if left or not (folder / PUBLISHED).is_dir():
        lines = (folder / RECIPE).read_text(encoding="utf-8").splitlines()
        command = ["run", str(folder / RECIPE)]
        if f"method: {PRETRAIN}" in lines:
            command = ["pretrain", str(folder / RECIPE)]
        elif f"method: {LEARN}" in lines:
            command = ["learn", "EXPORT", "--person", "NAME"]
        again = shlex.join(["personalign", *command, "--out", str(folder), "--resume"])
        what = f"is not finished: {left[0]} is to be done" if left else "has no model yet: it is not finished"
        raise PersonalignError(f"the run '{source}' {what}; go on with `{again}`")
    return folder / PUBLISHED


def _check_for_runs(folder: Path) -> None:
    """Refuse a folder of runs, such as `runs`, by naming some of them."""
    if not folder.is_dir() or any((folder / name).is_file() for name in CONFIGS):
        return
    runs = sorted(str(path.parent) for path in folder.glob(f"*/{RECIPE}"))
    if runs:
        shown = ", ".join(runs[:4]) + (", ..." if len(runs) > 4 else "")
        raise PersonalignError(f"'{folder}' is no model, but a folder with runs; write one of them: {shown}")


def _card_path(place: str | Path) -> Path | None:
    """The card of a folder, or of a hub model, from the cache where there is no network."""
    from transformers.utils import cached_file

    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder / CARD if (folder / CARD).is_file() else None
    found = cached_file(
        str(place),
        CARD,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_arguments(place),
    )
    return None if found is None else Path(found)


def _selector_folder(place: str | Path, selector: Selector, card: Path) -> Path:
    """Where a trained selector lies: beside the card. Of a hub model its files are fetched first."""
    if selector.kind == "trained" and not Path(place).expanduser().is_dir():
        from transformers.utils import cached_file

        for file in SELECTOR_FILES:
            cached_file(str(place), file, **hub_arguments(place))
    return card.parent


def _read_card(path: Path) -> _Card:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return _Card.model_validate(values)
    except (ValidationError, ValueError) as error:
        raise PersonalignError(f"{path}: {_problem(error)}; copy the file from the run again") from None


def _problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"is not JSON: {error}"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def _default_prompts(loaded: LoadedModel) -> PromptSettings:
    """As long as the model allows, up to the default."""
    default = PromptSettings()
    longest = min(default.max_tokens, loaded.plan.longest or default.max_tokens)
    return PromptSettings(max_tokens=longest, reserve=min(default.reserve, longest // 4))
