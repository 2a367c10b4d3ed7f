"""Which model reads handwritten digits best? Five are trained side by side on real digits.

    python examples/digits.py                          # here
    whimbrel run examples/digits.py digits --remote    # in a region, or in another if it dies

Data passes between the tasks as files; every model saves a checkpoint after each round of training.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from whimbrel import File, Resources, current_context, task, workflow


class Halves(NamedTuple):
    train: File
    test: File


@dataclass
class Score:
    model: str
    accuracy: float
    rounds: int


class Fitted(NamedTuple):
    score: Score
    predictions: File


class Rounds(NamedTuple):
    """How long to train each kind of model."""

    linear: int
    network: int
    forest: int


class Report(NamedTuple):
    best: Score
    confusion_matrix: File


def save(name: str, **arrays: Any) -> File:
    import numpy as np

    path = Path(current_context().working_directory) / name
    np.savez_compressed(path, **arrays)
    return File(path)


def read(file: File) -> Any:
    import numpy as np

    return np.load(file.path)


@task
def load() -> File:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return save("digits.npz", images=digits.data / 16.0, labels=digits.target)


@task
def split(data: File, test_share: float) -> Halves:
    from sklearn.model_selection import train_test_split

    with read(data) as digits:
        parts = train_test_split(
            digits["images"],
            digits["labels"],
            test_size=test_share,
            random_state=7,
            stratify=digits["labels"],
        )
    images, test_images, labels, test_labels = parts
    return Halves(
        train=save("train.npz", images=images, labels=labels),
        test=save("test.npz", images=test_images, labels=test_labels),
    )


@task
def plan(rounds: int) -> Rounds:
    """A forest is good after half of the rounds. Values this small survive the loss of a region."""
    return Rounds(linear=rounds, network=rounds, forest=max(rounds // 2, 1))


def new_model(kind: str) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import SGDClassifier
    from sklearn.neural_network import MLPClassifier

    match kind:
        case "linear":
            return SGDClassifier(loss="log_loss", random_state=7)
        case "narrow-network":
            return MLPClassifier((32,), random_state=7)
        case "wide-network":
            return MLPClassifier((256,), random_state=7)
        case "deep-network":
            return MLPClassifier((96, 64, 32), random_state=7)
        case "forest":
            return RandomForestClassifier(n_estimators=0, warm_start=True, random_state=7)
        case _:
            raise ValueError(f"there is no model called {kind!r}")


def one_round(model: Any, images: Any, labels: Any) -> None:
    """A few passes over the data, or a few more trees."""
    if hasattr(model, "partial_fit"):
        for _ in range(8):
            model.partial_fit(images, labels, classes=range(10))
    else:
        model.n_estimators += 5
        model.fit(images, labels)


@task(retries=1, requests=Resources(cpu="500m", mem="256Mi"), environment={"OMP_NUM_THREADS": "1"})
def train(kind: str, train: File, test: File, rounds: int) -> Fitted:
    """Goes on where the newest checkpoint stands, if an earlier try left one."""
    context = current_context()
    saved = context.checkpoint.read()
    # the checkpoint was written by this very task: nobody else's bytes are unpickled here
    done, model = pickle.loads(saved) if saved else (0, new_model(kind))
    if done:
        print(f"{kind}: resumed after round {done}", flush=True)
    with read(train) as data:
        images, labels = data["images"], data["labels"]
    with read(test) as data:
        test_images, test_labels = data["images"], data["labels"]
    for number in range(done + 1, rounds + 1):
        one_round(model, images, labels)
        if number % 5 == 0:
            context.checkpoint.write(pickle.dumps((number, model)))
            accuracy = float(model.score(test_images, test_labels))
            print(f"{kind}: round {number} of {rounds}, accuracy {accuracy:.3f}", flush=True)
    predicted = model.predict(test_images)
    return Fitted(
        score=Score(kind, float((predicted == test_labels).mean()), rounds),
        predictions=save("predictions.npz", predicted=predicted, labels=test_labels),
    )


@task
def compare(scores: list[Score]) -> Score:
    for score in sorted(scores, key=lambda score: -score.accuracy):
        print(f"{score.accuracy:.3f}  {score.model}")
    return max(scores, key=lambda score: score.accuracy)


@task
def report(best: Score, scores: list[Score], predictions: list[File]) -> Report:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from sklearn.metrics import ConfusionMatrixDisplay

    winner = predictions[[score.model for score in scores].index(best.model)]
    with read(winner) as data:
        shown = ConfusionMatrixDisplay.from_predictions(data["labels"], data["predicted"])
    shown.ax_.set_title(f"{best.model}: {best.accuracy:.1%} of the digits read right")
    path = Path(current_context().working_directory) / "confusion_matrix.png"
    shown.figure_.savefig(path, dpi=120)
    pyplot.close(shown.figure_)
    return Report(best=best, confusion_matrix=File(path))


@workflow
def digits(rounds: int = 60, test_share: float = 0.25) -> Report:
    halves = split(data=load(), test_share=test_share)
    planned = plan(rounds=rounds)
    models = {
        "linear": planned.linear,
        "narrow-network": planned.network,
        "wide-network": planned.network,
        "deep-network": planned.network,
        "forest": planned.forest,
    }
    fitted = [
        train(kind=kind, train=halves.train, test=halves.test, rounds=rounds)
        for kind, rounds in models.items()
    ]
    scores = [one.score for one in fitted]
    best = compare(scores=scores)
    return report(best=best, scores=scores, predictions=[one.predictions for one in fitted])


if __name__ == "__main__":
    result = digits()
    print(result.best)
    print(result.confusion_matrix.path)
