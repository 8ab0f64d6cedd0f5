"""The decoder scores a prompt in the forwards that read it, beside rows that only write."""

import pytest
import torch

from gpt3.inference.decoding import Decoder
from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row
from gpt3.inference.scoring import Scores, score_tokens


@pytest.mark.parametrize("prompt_tokens", [None, 1, 7, 64])
def test_scores_are_those_of_scoring_and_texts_those_of_writing(language_model, prompt_tokens) -> None:
    engine = language_model.engine
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(0, 300, (20,), generator=generator).tolist()
    prompts = [common + torch.randint(0, 300, (n,), generator=generator).tolist() for n in (1, 5, 30)] + [[5], common]

    def row(number: int, score: int | None) -> Row:
        options = SamplingOptions(logprobs=1)
        return Row(prompts[number], options, seed=1, number=number, ends=set(), vocabulary=300, score=score)

    def write(scores: list[int | None]) -> list[Row]:
        decoder = Decoder(engine, slots=3, capacity=128, prompt_tokens=prompt_tokens)
        rows = [row(number, score) for number, score in enumerate(scores)]
        for each in rows:
            decoder.join(each)
        while decoder.rows or decoder.waiting:
            for each, _ in decoder.step():
                if len(each.tokens) >= len(prompts[rows.index(each)]) + 6:
                    decoder.leave(each)
        return rows

    plain, mixed = write([None] * 5), write([2, None, 2, 2, 0])
    assert [each.tokens for each in mixed] == [each.tokens for each in plain]
    assert not any(each.scores for each in plain)
    for number in (0, 2, 4):
        found, expected = Scores.joined(mixed[number].scores), score_tokens(engine, prompts[number], top=2)
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.logprobs.tolist() == pytest.approx(expected.logprobs.tolist(), abs=1e-4, rel=1e-5)
    assert not mixed[3].scores  # nothing precedes a single token
