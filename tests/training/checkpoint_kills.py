"""Run by test_checkpoint_writer: fork a process that saves in a loop, kill it at a random moment, look at what is left; again.

The first kill waits for a whole checkpoint: a busy machine may need more than those moments for one.

Arguments: the folder, the number of kills. A process that dies on its own, or a damaged checkpoint, ends it with an error.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from checkpoint_case import average_of, make_model, make_optimizer, make_tokenizer, train_step

from gpt3.training.checkpoint import checkpoints, damage, discard_partial, newest_whole, step_of
from gpt3.training.checkpoint_writer import CheckpointWriter

DEAD = os.WEXITED | os.WNOHANG | os.WNOWAIT


def save_for_ever(folder: Path) -> None:
    model = make_model()
    optimizer, average = make_optimizer(model), average_of(model)
    train_step(model, model, optimizer, average, 0, slice(None))
    newest, _ = newest_whole(folder)
    step = step_of(newest) if newest else 0
    with CheckpointWriter(folder, model, make_tokenizer(), keep=3) as writer:
        while True:
            step += 1
            writer.save(optimizer, {"step": step}, extra={"ema": average})


def main(folder: Path, kills: int) -> None:
    moments = random.Random(0)
    half_written, last = 0, 0
    for number in range(kills):
        child = os.fork()
        if child == 0:
            save_for_ever(folder)
        while number == 0 and not checkpoints(folder) and os.waitid(os.P_PID, child, DEAD) is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer died on its own"
        half_written += bool(discard_partial(folder))
        for path in checkpoints(folder):
            assert damage(path) is None, (path, damage(path))
        newest, passed_over = newest_whole(folder)
        assert not passed_over
        step = step_of(newest) if newest else 0
        assert step >= last, "a checkpoint that was whole is gone"
        last = step
    print(f"kills: {kills}\nhalf-written: {half_written}\ncheckpoints: {last}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
