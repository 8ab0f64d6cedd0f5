"""Beam search finds what transformers' finds, and with beams enough what trying everything finds."""

import itertools

import pytest
import torch

from gpt3.inference.beam import beam_search
from gpt3.inference.torch_engine import ReferenceEngine


def their_beams(model, prompt, end, width, length_penalty, max_new_tokens):
    model.generation_config.pad_token_id = end
    found = model.generate(
        torch.tensor([prompt]),
        num_beams=width,
        num_return_sequences=width,
        length_penalty=length_penalty,
        early_stopping="never",
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=end,
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = [[*ids[len(prompt) :], end] for ids in found.sequences.tolist()]
    return [ids[: ids.index(end)] for ids in texts], found.sequences_scores.tolist()


@pytest.mark.parametrize(("width", "length_penalty"), [(2, 0.0), (4, 0.6), (4, 2.0), (6, 1.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_beams_are_transformers(new_model, tokenizer, width, length_penalty, seed):
    model = new_model(seed=seed, initializer_range=0.2, real_vocab_size=None, vocab_size=len(tokenizer))
    with torch.no_grad():  # end-of-text is often near the top, so that beams end at many lengths
        scores = model(torch.tensor([[5, 6, 7]])).logits[0, -1]
        end = int(scores.topk(2).indices[-1])
    prompt = tokenizer("Once upon a sea", add_special_tokens=False)["input_ids"]
    theirs, their_scores = their_beams(model, prompt, end, width, length_penalty, 12)
    ours = beam_search(
        ReferenceEngine(model),
        prompt,
        width=width,
        length_penalty=length_penalty,
        max_new_tokens=12,
        ends={end},
        penalty="power",
    )
    assert [ids for ids, _ in ours] == theirs
    assert [score for _, score in ours] == pytest.approx(their_scores, rel=1e-4)


def test_one_beam_is_greedy(model, tokenizer):
    prompt = tokenizer("Once upon a sea", add_special_tokens=False)["input_ids"]
    theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=None)[0].tolist()
    assert beam_search(ReferenceEngine(model), prompt, width=1, max_new_tokens=12)[0][0] == theirs[len(prompt) :]


def logprob(model, prompt, ids):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).sum())


@pytest.fixture(scope="module")
def tiny():
    """Five tokens; 0 ends a text."""
    from gpt3 import GPT3Config, GPT3ForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "sliding_window": 3}
    config = GPT3Config(
        vocab_size=5, max_position_embeddings=10, initializer_range=0.5, bos_token_id=0, eos_token_id=0, **shape
    )
    return GPT3ForCausalLM(config).eval()


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_wide_search_finds_what_trying_everything_finds(tiny, alpha):
    prompt, most = [1, 2], 4
    expected = {}
    for length in range(1, most + 1):
        for ids in itertools.product(range(1, 5), repeat=length - 1):
            last = [0] if length < most else range(5)
            for token in last:
                score = logprob(tiny, prompt, [*ids, token]) / ((5 + length) / 6) ** alpha
                expected[(*ids, token) if token else ids] = score
    best = sorted(expected.items(), key=lambda pair: -pair[1])[:20]
    found = beam_search(ReferenceEngine(tiny), prompt, width=400, length_penalty=alpha, max_new_tokens=most, ends={0})
    assert [tuple(ids) for ids, _ in found[:20]] == [ids for ids, _ in best]
    assert [score for _, score in found[:20]] == pytest.approx([score for _, score in best], rel=1e-4)


def test_a_predicate_ends_a_text(tiny):
    found = beam_search(ReferenceEngine(tiny), [1], width=3, max_new_tokens=6, stop=lambda ids: ids[-1] == 3)
    assert found
    for ids, score in found:
        assert len(ids) == 6 or ids.index(3) == len(ids) - 1
        assert score == pytest.approx(logprob(tiny, [1], ids) / ((5 + len(ids)) / 6) ** 0.6, rel=1e-4)


def test_a_search_ends_where_the_context_ends(tiny):
    found = beam_search(ReferenceEngine(tiny), [1] * 8, width=2, max_new_tokens=50)
    assert {len(ids) for ids, _ in found} == {3}
    assert all(len(ids) == 1 for ids, _ in beam_search(ReferenceEngine(tiny), [1] * 10, width=2))


@pytest.mark.parametrize("bad", [{"width": 0}, {"length_penalty": -1}, {"max_new_tokens": 0}])
def test_bounds_are_checked(tiny, bad):
    with pytest.raises(ValueError, match="out of bounds"):
        beam_search(ReferenceEngine(tiny), [1], **bad)
    with pytest.raises(ValueError, match="must have 1 to 10"):
        beam_search(ReferenceEngine(tiny), [])
