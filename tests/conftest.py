"""One thread a test process: the tensors are tiny, and threads that wait for a busy core take many times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
