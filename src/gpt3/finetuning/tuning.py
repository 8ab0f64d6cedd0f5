"""A whole fine-tuning run: data, template, model, TRL's trainer, run folder, final model folder."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpt3.durable import discard, replacing, write_text
from gpt3.errors import InputError, require
from gpt3.finetuning.adapter import with_adapter
from gpt3.finetuning.gathering import Collection, gather, rehearsal
from gpt3.finetuning.new_tokens import add_tokens, positions, set_ends
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.samples import Rows, conversation_rows, preference_rows, shown, text_rows
from gpt3.finetuning.template import ChatTemplate, prepare_tokenizer, read_template
from gpt3.model_folder.adapter import merge, save_adapter
from gpt3.progress import say
from gpt3.work_folder import is_locked, locked_folder

CHECKPOINTS, MODEL, ADAPTER, CARD = "checkpoints", "model", "adapter", "README.md"
FREE_TO_CHANGE = ("resume", "out", "track", "show", "merge")


@dataclass(frozen=True)
class TuningResult:
    """What a run came to."""

    folder: Path
    before: dict[str, float]
    """The evaluation of the model as it was (its records' names)."""
    after: dict[str, float]
    """The evaluation of the model that was kept."""
    seconds: float
    steps: int
    finished: bool = True
    """False: interrupted after a checkpoint; the same command goes on."""
    exit_code: int = 0
    """130 or 143 after a signal."""


def run(options: FinetuneOptions) -> int:
    """``gpt3 finetune``: train, then say what was made and what to do next."""
    if options.show is not None:
        show(options)
        return 0
    result = finetune(options)
    if not result.finished:
        how = "the same command" if options.resume == "auto" else "the same command without --resume"
        say(f"saved in {result.folder} at step {result.steps:,}; {how} goes on from there")
        return result.exit_code
    print(
        f"\nmodel: {result.folder / (MODEL if options.merge or not options.lora else ADAPTER)}   ({result.seconds:.0f} s)"
    )
    for name in sorted(set(result.before) & set(result.after)):
        if name.startswith("val/"):
            print(f"held-out {name[4:].replace('_', ' ')}: {result.before[name]:.3f} -> {result.after[name]:.3f}")
    print(f"report: {result.folder / 'report.html'}")
    print(f"try next: gpt3 chat --model {result.folder}")
    return 0


def show(options: FinetuneOptions) -> None:
    """Print the report of the data and its first samples as they are trained."""
    from gpt3.model_folder.locate import locate
    from gpt3.tokenizer.loading import load_tokenizer

    place = locate(options.model)
    tokenizer = load_tokenizer(place) if isinstance(place, Path) else load(options)[1]
    template = chat_template(options, tokenizer)[0]
    collection = gathered(options)
    for report in collection.reports:
        print(report.line())
    limit = options.context or 10**9
    assert options.show is not None
    if options.method == "dpo":
        rows = preference_rows(collection.train[: options.show], template, limit).columns
        for prompt, chosen, rejected in zip(*rows.values(), strict=True):
            for name, answer in (("chosen", chosen), ("rejected", rejected)):
                print(f"--- {name} ---\n{shown(template, prompt + answer, [-100] * len(prompt) + answer)}")
        return
    rows = conversation_rows(collection.train[: options.show], template, limit, options.train_on).columns
    for number, (ids, labels) in enumerate(zip(rows["input_ids"], rows["labels"], strict=True), 1):
        print(f"--- sample {number}: {len(ids)} tokens, {sum(label >= 0 for label in labels)} trained ---")
        print(shown(template, ids, labels))


def finetune(options: FinetuneOptions | None = None, **overrides: Any) -> TuningResult:
    """Fine-tune a model.

    Args:
        options: what to do; `overrides` are fields of it given by name.

    Raises:
        InputError: data, template or model cannot be used; the folder holds something else.
    """
    options = dataclasses.replace(options or FinetuneOptions(), **overrides)
    for module in ("trl", "peft"):
        require(module, extra="finetune", purpose="gpt3 finetune")
    for tracker in ("wandb", "tensorboard"):
        if tracker in options.track:
            require(tracker, extra=tracker, purpose=f"--track {tracker}")
    folder = choose_folder(options)
    tuning = Tuning(options, folder)  # reads only: what is wrong with the input leaves no folder behind
    with locked_folder(folder):
        return tuning.run()


def gathered(options: FinetuneOptions) -> Collection:
    """The data that the options name."""
    return gather(
        options.data, val=options.val, preferences=options.method == "dpo", filters=options.filter,
        validation_fraction=options.validation_fraction, skip_malformed=options.skip_malformed, seed=options.seed,
    )  # fmt: skip


def load(options: FinetuneOptions) -> tuple[Any, Any]:
    """The base model in fp32 and its tokenizer."""
    from gpt3.model_folder.load import load_transformers

    return load_transformers(options.model, device=options.device, dtype="fp32")


def chat_template(options: FinetuneOptions, tokenizer: Any) -> tuple[ChatTemplate, list[str]]:
    """The checked template, put into the tokenizer, and its special tokens that are new to it."""
    source = read_template(options.chat_template, tokenizer)
    new = prepare_tokenizer(tokenizer, source)
    return ChatTemplate(tokenizer), new


def asked(options: FinetuneOptions) -> dict[str, Any]:
    """What decides what is computed."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in FREE_TO_CHANGE}


def choose_folder(options: FinetuneOptions) -> Path:
    """The run folder: a new one, or that of an interrupted run of these options.

    Raises:
        InputError: --out holds something else.
    """

    def unfinished(folder: Path) -> bool:
        path = folder / "asked.json"
        if options.resume == "never" or (folder / MODEL).exists() or (folder / ADAPTER).exists() or not path.is_file():
            return False
        return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(asked(options))))

    if options.out is not None:
        folder = Path(options.out)
        fresh = not folder.exists() or (folder.is_dir() and all(path.name == ".lock" for path in folder.iterdir()))
        if fresh or unfinished(folder):
            return folder
        raise InputError(f"--out {folder} holds another run or other files; choose another --out or remove it")
    base = Path(options.model).name if options.model else "newest"
    number = 1
    while (folder := Path("runs") / (f"{options.method}-{base}" + (f"-{number}" if number > 1 else ""))).exists():
        if unfinished(folder) and not is_locked(folder):
            return folder
        number += 1
    return folder


class Tuning:
    """One run in its folder, which is locked."""

    def __init__(self, options: FinetuneOptions, folder: Path) -> None:
        from transformers import set_seed

        from gpt3.model_folder.locate import locate

        self.options, self.folder = options, folder
        self.base = str(locate(options.model))
        self.collection = gathered(options)
        for report in self.collection.reports:
            say(report.line())
        set_seed(options.seed)
        self.model, self.tokenizer = load(options)
        self.template, new = chat_template(options, self.tokenizer)
        self.context = min(options.context or 10**9, positions(self.model))
        self.train = self._rows(self.collection.train)
        self.validation = self._rows(self.collection.validation) if self.collection.validation else None
        say(f"training: {self.train.cuts.line(self.context)}")
        if options.rehearsed:
            texts = rehearsal(options.validation_fraction, options.seed)
            rows = text_rows(texts, self.template, self.context, round(options.rehearsed * self.train.cuts.tokens))
            say(f"rehearsing: {rows.cuts.samples:,} rows of Wikipedia's text, {rows.cuts.tokens:,} tokens")
            self.train.add(rows)
        if self.validation is not None:
            say(f"held out: {self.validation.cuts.line(self.context)}")
        self.new_ids = add_tokens(self.model, self.tokenizer, new)
        set_ends(self.model, self.tokenizer, self.template.end)
        self.rate = options.rate(self.model.num_parameters())
        micro = options.micro_batch or math.gcd(options.batch, 8)
        self.micro, self.accumulate = micro, options.batch // micro
        samples = self.train.cuts.samples
        if options.packing:
            samples = max(1, self.train.cuts.tokens // self.context)
        self.steps = options.steps or max(1, math.ceil(math.ceil(samples / options.batch) * options.epochs))
        self.every = options.evaluate_every or max(1, self.steps // 10)

    def _rows(self, items: list[Any]) -> Rows:
        if self.options.method == "dpo":
            return preference_rows(items, self.template, self.context)
        return conversation_rows(items, self.template, self.context, self.options.train_on)

    def run(self) -> TuningResult:
        """Train, keep the best model, write the model folder and the report; or, after a signal, save where it stands."""
        from gpt3.finetuning.checkpoints import newest_checkpoint
        from gpt3.finetuning.trainers import Recorder
        from gpt3.training.checkpoint import discard_partial, step_of
        from gpt3.training.signals import interruptible
        from gpt3.training.tracking import open_trackers, read_metrics

        self._quiet()
        discard_partial(self.folder / CHECKPOINTS)
        checkpoint, damaged = newest_checkpoint(self.folder / CHECKPOINTS)
        for line in damaged:
            say(line)
        step, seconds = 0, 0.0
        if checkpoint is not None:
            step = step_of(checkpoint)
            earlier = read_metrics(self.folder / "metrics.jsonl", step)
            seconds = float(earlier[-1]["seconds"]) if earlier else 0.0
            say(f"going on from {checkpoint.name}")
        self._write_beginning()
        trackers = open_trackers(self.options.track, self.folder, dataclasses.asdict(self.options), step)
        try:
            with interruptible() as interruption:
                recorder = Recorder(trackers, say, self.steps, seconds, interruption)
                trainer = self._trainer(recorder, first=checkpoint is None)
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            for tracker in trackers:
                tracker.close()
            self._report()
        records = [r for r in read_metrics(self.folder / "metrics.jsonl") if "val/loss" in r]
        best = min(records[1:] or records, key=lambda record: record["val/loss"], default={})
        result = TuningResult(
            self.folder, records[0] if records else {}, best, recorder.seconds(), int(trainer.state.global_step)
        )
        if recorder.interrupted:
            return dataclasses.replace(result, finished=False, exit_code=interruption.exit_code)
        self._finish(trainer.model, result)
        self._report()
        return result

    def _quiet(self) -> None:
        """Our lines in place of those of four libraries."""
        import datasets
        from transformers.utils import logging as transformers_logging

        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        logging.getLogger("trl").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")  # PEFT, whenever there are new tokens

    def _trainer(self, recorder: Any, first: bool) -> Any:
        """TRL's trainer over our samples."""
        from datasets import Dataset
        from transformers import EarlyStoppingCallback
        from trl import DPOConfig, SFTConfig

        from gpt3.finetuning.trainers import ConversationTrainer, PreferenceTrainer

        options, evaluates = self.options, self.validation is not None
        device = self.model.device.type
        bf16 = options.dtype == "bf16" or (options.dtype == "auto" and device == "cuda" and _has_bf16())
        shared: dict[str, Any] = {
            "output_dir": str(self.folder / CHECKPOINTS), "seed": options.seed, "max_steps": self.steps,
            "per_device_train_batch_size": self.micro, "per_device_eval_batch_size": self.micro,
            "gradient_accumulation_steps": self.accumulate, "learning_rate": self.rate,
            "lr_scheduler_type": "linear", "warmup_steps": round(0.03 * self.steps),
            "weight_decay": options.weight_decay, "max_grad_norm": 1.0, "adam_beta2": 0.95,
            "bf16": bf16, "fp16": False, "use_cpu": device == "cpu",
            "gradient_checkpointing": options.gradient_checkpointing,
            "eval_strategy": "steps" if evaluates else "no", "eval_steps": self.every, "eval_on_start": evaluates and first,
            "save_strategy": "steps", "save_steps": self.every,
            "load_best_model_at_end": evaluates, "metric_for_best_model": "eval_loss" if evaluates else None,
            "greater_is_better": False, "logging_strategy": "steps",
            "logging_steps": max(1, min(10, self.steps // 20)), "logging_nan_inf_filter": False,
            "report_to": "none", "disable_tqdm": True, "dataloader_num_workers": 0, "dataloader_pin_memory": device == "cuda",
            "max_length": self.context,
        }  # fmt: skip
        model = with_adapter(self.model, options, self.new_ids) if options.lora else self.model
        keywords: dict[str, Any] = {
            "model": model, "processing_class": self.tokenizer, "callbacks": [recorder],
            "train_dataset": Dataset.from_dict(self.train.columns),
            "eval_dataset": Dataset.from_dict(self.validation.columns) if self.validation is not None else None,
        }  # fmt: skip
        if options.early_stop is not None and evaluates:
            keywords["callbacks"].append(EarlyStoppingCallback(options.early_stop))
        kind: Any = PreferenceTrainer if options.method == "dpo" else ConversationTrainer
        if options.method == "dpo":
            args: Any = DPOConfig(beta=options.beta, **shared)
            keywords["ref_model"] = None if options.lora else copy.deepcopy(self.model).requires_grad_(False).eval()
        else:
            args = SFTConfig(packing=options.packing, eval_packing=False, **shared)
        args._n_gpu = min(args.n_gpu, 1)  # several visible GPUs are no reason for nn.DataParallel, which TRL refuses
        trainer = kind(args=args, **keywords)
        for callback in ("PrinterCallback", "ProgressCallback"):
            for found in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == callback]:
                trainer.remove_callback(found)
        return trainer

    def _write_beginning(self) -> None:
        from gpt3.training.run_folder import environment

        sources = [
            {"name": report.name, "documents": report.train, "tokens": None, "held_out": report.held_out}
            | {"read": report.read, "dropped": report.dropped, "licence": report.licence}
            for report in self.collection.reports
        ]
        cuts = {"training": dataclasses.asdict(self.train.cuts)}
        if self.validation is not None:
            cuts["held_out"] = dataclasses.asdict(self.validation.cuts)
        found = environment(str(self.model.device)) | versions()
        settled = dataclasses.asdict(self.options) | {
            "model": self.base, "context": self.context, "steps": self.steps, "lr": self.rate, "evaluate_every": self.every,
            "micro_batch": self.micro,
        }  # fmt: skip
        write_text(self.folder / "asked.json", json.dumps(asked(self.options)))
        write_text(self.folder / "data.json", json.dumps({"sources": sources, "samples": cuts}, indent=1))
        write_text(self.folder / "environment.json", json.dumps(found, indent=1))
        write_text(self.folder / "config.yaml", yaml.safe_dump(settled, sort_keys=False))

    def _finish(self, model: Any, result: TuningResult) -> None:
        """adapter/ and model/, and no checkpoints any more."""
        from gpt3.finetuning.card import model_card

        facts = (self.folder.name, self.options, self.base, self.collection.reports, self.train.cuts, result)
        if self.options.lora:
            with replacing(self.folder / ADAPTER) as temporary:
                temporary.mkdir()
                save_adapter(model, self.tokenizer, temporary, self.base)
                (temporary / CARD).write_text(model_card(*facts, library="peft"), encoding="utf-8")
        if self.options.merge or not self.options.lora:
            whole = merge(model) if self.options.lora else model
            with replacing(self.folder / MODEL) as temporary:
                temporary.mkdir()
                whole.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                (temporary / CARD).write_text(model_card(*facts), encoding="utf-8")
        discard(self.folder / CHECKPOINTS)

    def _report(self) -> None:
        from gpt3.report import write_report

        try:
            write_report([self.folder], self.folder / "report.html")
        except InputError as error:  # a report must not fail the run
            say(f"no report: {error}")


def versions() -> dict[str, str]:
    """Of the packages that train."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("trl", "peft", "accelerate")}


def _has_bf16() -> bool:
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)
