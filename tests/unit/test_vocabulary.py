from typing import get_args

from torchclas.engines.engine import PACKAGES, PRECISIONS
from torchclas.exporting.formats import FORMATS
from torchclas.vocabulary import ENGINES, EXPORT_FORMATS, EngineChoice, EngineName, Precision


def test_every_engine_and_format_that_can_be_chosen_is_there() -> None:
    assert get_args(EngineChoice) == ("auto", *ENGINES)
    assert (set(PACKAGES), set(PRECISIONS)) == (set(get_args(EngineName)), set(ENGINES))
    assert {each for several in PRECISIONS.values() for each in several} == set(get_args(Precision))
    assert tuple(FORMATS) == EXPORT_FORMATS
