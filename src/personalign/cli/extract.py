"""`personalign extract train | eval | show`: find the facts in what people say."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from personalign.cli._counting import counting
from personalign.cli._output import clean, emit_json, quieten
from personalign.errors import PersonalignError

app = typer.Typer(
    help="Train, evaluate and use extractors of facts.", no_args_is_help=True, add_completion=False
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Folder = Annotated[Path, typer.Argument(help="Folder of an extractor.")]
Facts = Annotated[
    Path,
    typer.Argument(
        help="Sentences with facts {text, triples: [[subject, relation, object]]}, JSON or JSON Lines."
    ),
]
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="What to compute in.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:0 or mps.")]


@app.command()
def train(
    facts: Facts,
    out: Annotated[Path, typer.Argument(help="Folder for the extractor; must not exist yet.")],
    dialogues: Annotated[
        Path | None,
        typer.Option(help="Dialogues whose messages without I, my or we teach that some state nothing."),
    ] = None,
    others: Annotated[int, typer.Option(min=0, help="So many of them per hundred facts.")] = 20,
    encoder: Annotated[
        str | None, typer.Option(help="Folder or hub id to fine-tune; default: the offline MiniLM.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead, a causal language model that learns to write the facts: folder or hub id."
        ),
    ] = None,
    held_out: Annotated[
        float, typer.Option(min=0.001, max=0.9, help="Share of the sentences to measure on.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="What is held out, the order of sentences, new heads.")] = 0,
    json: Json = False,
) -> None:
    """Fine-tune an encoder into a tagger: of each sentence one fact, cut out of its words."""
    quieten()
    shared: dict[str, Any] = {
        "facts": facts,
        "out": out,
        "dialogues": dialogues,
        "others": others,
        "held_out": held_out,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "dtype": dtype,
        "device": device,
        "seed": seed,
    }
    if model is not None and encoder is not None:
        raise PersonalignError(
            "a tagger is made of an encoder, a generative extractor of a model; name one of both"
        )
    with counting("extractor training") as report:
        if model is None:
            from personalign.personas.tagger_training import TaggerTraining, train_tagger

            record = train_tagger(TaggerTraining(encoder=encoder, **shared), progress=report)
        else:
            from personalign.methods.extractor_training import GenerativeTraining, train_generative

            record = train_generative(GenerativeTraining(model=model, **shared), progress=report)
    if json:
        emit_json({"out": str(out), **record})
        return
    _print_scores(record["held_out"])
    typer.echo(f"{out}: {record['rows']['facts']:,} facts learnt in {record['seconds'] / 60:.0f} minutes")


@app.command(name="eval")
def evaluate(folder: Folder, facts: Facts, device: Device = "cpu", json: Json = False) -> None:
    """Compare what an extractor finds with what is right: exact match, and F1 per element."""
    from personalign.evaluation.nli_triples import read_facts
    from personalign.methods.extractors import load_extractor
    from personalign.personas.tagger_training import evaluate_extractor

    quieten()
    scores = evaluate_extractor(load_extractor(folder, device=device), read_facts(facts))
    if json:
        emit_json(scores)
    else:
        _print_scores(scores)


@app.command()
def show(
    folder: Folder,
    source: Annotated[
        str, typer.Argument(help="Dialogues: a file, a folder of a saved data set, or a hub id.")
    ],
    person: Annotated[str | None, typer.Option(help="Only the sessions of this person.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many facts.")] = 50,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Print the facts that people state in dialogues, each with the sentence that it comes from."""
    from personalign.data.formats import read_dialogues
    from personalign.methods.extractors import load_extractor
    from personalign.personas.extraction import BySentence

    quieten()
    extractor = BySentence(load_extractor(folder, device=device))
    said = [
        (dialogue.person or dialogue.id, text)
        for dialogue in read_dialogues(source)
        if person is None or dialogue.person == person
        for text in dialogue.said()
    ]
    found = extractor.triples([text for _, text in said])
    rows = [
        {"person": who, "triple": list(triple), "text": text}
        for (who, text), triples in zip(said, found, strict=True)
        for triple in triples
    ]
    if json:
        emit_json({"facts": rows[:limit], "messages": len(said), "found": len(rows)})
        return
    for row in rows[:limit]:
        typer.echo(clean(f"{row['person']}: {' | '.join(row['triple'])}    <- {row['text']}"))
    typer.echo(
        f"{len(rows):,} facts in {len(said):,} messages" + (f", {limit} shown" if len(rows) > limit else "")
    )


def _print_scores(scores: dict[str, float]) -> None:
    typer.echo(
        f"exact match {scores['exact_match']:.3f} of {scores['gold']:,.0f} facts; F1 {scores['f1']:.3f}: subjects "
        f"{scores['subject_f1']:.3f}, relations {scores['relation_f1']:.3f}, objects {scores['object_f1']:.3f}"
    )
