import numpy as np
import pytest

from personalign.errors import PersonalignError
from personalign.models.encoder import Encoder, load_encoder, offline_encoder_folder

TEXTS = ["i have a dog .", "hello", "i own a puppy and two cats , all of them loud .", "hello"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(batch_size=2)


def test_vectors_equal_those_of_sentence_transformers(encoder: Encoder) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    oracle = sentence_transformers.SentenceTransformer(str(offline_encoder_folder()), device="cpu")
    assert encoder.encode(TEXTS) == pytest.approx(oracle.encode(TEXTS), abs=1e-5)


def test_order_and_batches_change_nothing(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (vectors[1] == vectors[3]).all()
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert vectors == pytest.approx(alone, abs=1e-5)


def test_meaning_is_nearer_than_chance(encoder: Encoder) -> None:
    dog, hello, puppy, _ = encoder.encode(TEXTS)
    assert dog @ puppy > dog @ hello


def test_no_text_gives_no_vector(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_what_is_no_encoder_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(PersonalignError, match="cannot be loaded as an encoder"):
        load_encoder(tmp_path_factory.mktemp("empty"))
