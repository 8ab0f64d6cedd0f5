"""A tiny random model, and one live server for the tests that need nothing special of it."""

import importlib.util
import shutil

import pytest
from live_server import CONTEXT, fixtures, serving

if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
    collect_ignore_glob = ["test_*.py"]

one_thread, tokenizer = fixtures.one_thread, fixtures.tokenizer


@pytest.fixture(scope="session")
def language_model(tokenizer):
    """End-of-text is all but impossible, so that a text goes on for long."""
    from gpt3.inference.language_model import LanguageModel, make_engine
    from gpt3.serving.host import WARM_UP

    model = fixtures.make_model(tokenizer, max_position_embeddings=CONTEXT)
    end = model.transformer.wte.weight.data[tokenizer.eos_token_id]
    model.transformer.ln_f.bias.data -= 12 * end / end.square().sum()
    language_model = LanguageModel(model, tokenizer, make_engine(model, "fp32"))
    language_model.complete(
        WARM_UP, max_new_tokens=2
    )  # as `load_models` does: kernels are not compiled in a test's time
    return language_model


@pytest.fixture(scope="session")
def live(language_model):
    with serving(language_model) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; its tests are slow ones."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
