"""`gpt3 serve`: listen, load models, serve until Ctrl-C or SIGTERM, and let running requests finish."""

from __future__ import annotations

from gpt3.cli.numba_alone import import_numba
from gpt3.device import in_passing_thread
from gpt3.errors import require
from gpt3.progress import say
from gpt3.serving.host import address_of, listen, load_models, serve
from gpt3.serving.options import ServeOptions

NO_MODEL = "no model is in ./runs yet, choose one in the Playground"


def run(options: ServeOptions) -> None:
    """Serve until a signal ends it; then requests get `options.grace` seconds to finish.

    Raises:
        InputError: no such model, or an address that is not available.
    """
    for module in ("fastapi", "uvicorn"):
        require(module, extra="serve", purpose="the server")
    listening = listen(options.host, options.port)  # before the model, whose loading takes seconds
    with listening:
        import_numba()
        from gpt3.serving.app import assemble  # after `listen`: it takes seconds, too

        models = in_passing_thread(lambda: load_models(options))
        app, compute = assemble(models, options)
        key = "a key is needed" if options.key is not None else "no key"
        names = f"{', '.join(models)} {'is' if len(models) == 1 else 'are'} ready" if models else NO_MODEL
        address = address_of(listening)
        ready = f"gpt3 serve: {names} ({key}): Playground {address}/, API {address}/v1, reference {address}/docs"
        serve(app, compute, listening, options, lambda _: say(ready))
