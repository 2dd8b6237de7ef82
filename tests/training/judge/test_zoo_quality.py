"""The decibels that the cards promise, on the benchmark that they name."""

import pytest

from engine.shipped import shipped_checkpoint, zoo
from tests.conftest import shared
from training.cards.model import read_model
from training.judge.contenders import open_contender
from training.judge.evaluate import evaluate


@pytest.mark.parametrize("model", zoo())
def test_int8_is_as_good_as_float32_and_that_as_its_card_has_it(model: str) -> None:
    set5 = shared("data/Set5/HR")
    whole = open_contender(str(shipped_checkpoint(model)), None, "openvino", "float32")
    quantised = open_contender(model, None, "openvino", "int8")
    float32_db, int8_db = (
        evaluate(contender.upscale, contender.scale, set5).psnr_db for contender in (whole, quantised)
    )
    assert int8_db > float32_db - 0.03
    evaluation = read_model(model).evaluation
    assert evaluation is not None
    assert float32_db == pytest.approx(evaluation.float32.scores["Set5"].psnr_db, abs=0.005)
