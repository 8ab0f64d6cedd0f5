"""The paper's experiments on one's own machine (``gpt3 paper``): one file per experiment, and the page that shows them."""
