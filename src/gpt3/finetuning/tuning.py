"""A fine-tuning run: gather the data, build model and samples, train with TRL, write the model folder."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import json
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import yaml

from gpt3 import work_folder
from gpt3.adaptive_threads import set_threads
from gpt3.durable import discard, replacing, utf8, write_text
from gpt3.errors import InputError, require
from gpt3.finetuning.gathering import gather, replay_texts
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.samples import add_texts, add_tokens, learned_template, samples_for, set_ends
from gpt3.model_folder.adapter import merge, save_adapter
from gpt3.model_folder.load import choose_dtype, load_transformers
from gpt3.model_folder.locate import CARD, HUB_ID, locate
from gpt3.model_folder.write import card_text
from gpt3.progress import say
from gpt3.report.page import write_report
from gpt3.report.run_folder import CONFIG, DATA, ENVIRONMENT, METRICS, read_metrics
from gpt3.report.run_folder import FINAL_MODEL as MODEL
from gpt3.tables import counted
from gpt3.training.checkpoint import STATE, discard_partial, newest_whole, step_of
from gpt3.training.panel import Panel
from gpt3.training.run_folder import ASKED, CHECKPOINTS, environment
from gpt3.training.step_threads import StepThreads
from gpt3.training.tracking import check_trackers, open_trackers
from gpt3.work_folder import interruptible, locked_folder, requested, stored

ADAPTER = "adapter"
FREE_TO_CHANGE = ("resume", "out", "track", "show", "merge", "threads")
"""Options that may differ when an interrupted run is resumed."""


@dataclass(frozen=True)
class FinetuneResult:
    """A run, finished or interrupted."""

    folder: Path
    """The run folder, which is also a model to load once the run is finished."""
    steps: int
    seconds: float
    before: dict[str, float]
    """The evaluation of the model as it was, by the names in metrics.jsonl, such as ``val/loss``."""
    after: dict[str, float]
    """The evaluation of the model that was kept."""
    finished: bool = True
    """False: interrupted after a checkpoint; the same options resume it."""
    exit_code: int = 0
    """130 or 143 after a signal."""
    question: str = ""
    """The first question of the held-out conversations, or of those trained on."""

    def held_out(self) -> list[tuple[str, float, float]]:
        """What was measured on held-out data: name, before, after."""
        names = sorted(name for name in self.before if name.startswith("val/") and name in self.after)
        return [(name[4:].replace("_", " "), self.before[name], self.after[name]) for name in names]


def finetune(options: FinetuneOptions) -> FinetuneResult:
    """Fine-tune a model, or resume an interrupted run of the same options.

    Raises:
        InputError: data, template or model cannot be used; the folder holds something else.
    """
    for module in ("trl", "peft"):
        require(module, extra="finetune", purpose="fine-tuning")
    check_trackers(options.track)
    folder = choose_folder(options)
    tuning = Tuning(options, folder)  # reads only: what is wrong with the input leaves no folder behind
    threads = torch.get_num_threads()
    try:
        with locked_folder(folder):
            return tuning.run()
    finally:
        torch.set_num_threads(threads)


def choose_folder(options: FinetuneOptions) -> Path:
    """The run folder: a new one, or that of an interrupted run of these options.

    Raises:
        InputError: --out holds something else.
    """
    base = Path(options.model).name if options.model else "newest"
    folder, _ = work_folder.choose_folder(
        options.out,
        Path("runs") / f"{options.method}-{base}",
        requested(options, FREE_TO_CHANGE),
        before=lambda folder: stored(folder / ASKED),
        finished=lambda folder: (folder / MODEL).exists() or (folder / ADAPTER).exists(),
        resume=options.resume == "auto",
    )
    return folder


class Tuning:
    """One run: making it gathers the data and builds model and samples, `run` trains and writes.

    Raises:
        InputError: data, template or model cannot be used.
    """

    def __init__(self, options: FinetuneOptions, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.base = str(locate(options.model))
        self.collection = gather(options)
        for report in self.collection.reports:
            say(report.line())
        transformers.set_seed(options.seed)
        self.model, self.tokenizer = load_transformers(options.model, device=options.device, dtype="fp32")
        template, new, end = learned_template(options.chat_template, self.tokenizer)
        positions = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        self.context = min(options.context or 10**9, positions)
        self.train = samples_for(options, self.collection.train, template, self.context)
        say(f"training: {self.train.line(self.context)}")
        if options.replayed:
            texts = replay_texts(options.validation_fraction, options.seed)
            tokens = round(options.replayed * self.train.tokens)
            rows = add_texts(self.train, texts, template, self.context, tokens)
            say(f"replay: {counted(rows, 'row')} of Wikipedia text, {rows * self.context:,} tokens")
        self.validation = None
        if self.collection.validation:
            self.validation = samples_for(options, self.collection.validation, template, self.context)
            say(f"held out: {self.validation.line(self.context)}")
        self.new_ids = add_tokens(self.model, self.tokenizer, new)
        set_ends(self.model, self.tokenizer, end)
        self.rate = options.rate(self.model.num_parameters())
        self.micro = options.micro_batch or math.gcd(options.batch, 8)
        self.accumulate = options.batch // self.micro
        samples = max(1, self.train.tokens // self.context) if options.packing else self.train.samples
        self.steps = options.steps or max(1, math.ceil(math.ceil(samples / options.batch) * options.epochs))
        self.every = options.evaluate_every or max(1, self.steps // 10)

    def run(self) -> FinetuneResult:
        """Train, keep the best model, write the model folder and the report; or, after a signal, save and end."""
        from gpt3.finetuning.trainers import ORDER, Recorder

        quiet()
        metrics = self.folder / METRICS
        discard_partial(self.folder / CHECKPOINTS)
        checkpoint, damaged = newest_whole(self.folder / CHECKPOINTS)
        for path, reason in damaged:
            say(f"skipped {path}: {reason}")
        step, seconds = 0, 0.0
        if checkpoint is not None:
            step = step_of(checkpoint)
            earlier = read_metrics(metrics, step)
            seconds = float(earlier[-1]["seconds"]) if earlier else 0.0
            say(f"Resuming {self.folder} from step {step:,}")
        adaptive = set_threads(self.options.threads, adapt=self.model.device.type == "cpu")
        threads = StepThreads(self.folder, step, adaptive)
        self._write_settings()
        trackers = open_trackers(self.options.track, self.folder, dataclasses.asdict(self.options), step)
        try:
            panel = Panel(f"fine-tuning {self.folder.name}", self.steps, start=step)
            with interruptible() as interruption, panel:
                recorder = Recorder(trackers, panel, seconds, interruption, threads)
                trainer = self._trainer(recorder, first=checkpoint is None)
                if checkpoint is not None:
                    trainer.old_order = ORDER not in json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            for tracker in trackers:
                tracker.close()
            threads.close()
            self._report()
        records = [record for record in read_metrics(metrics) if "val/loss" in record]
        best = min(records[1:] or records, key=lambda record: record["val/loss"], default={})
        before = records[0] if records else {}
        question = (self.collection.validation or self.collection.train)[0].question
        result = FinetuneResult(
            self.folder, int(trainer.state.global_step), recorder.seconds(), before, best, question=question
        )
        if recorder.interrupted:
            return dataclasses.replace(result, finished=False, exit_code=interruption.exit_code)
        self._write_model(trainer.model, result)
        self._report()
        return result

    def _write_settings(self) -> None:
        sources = [
            {"name": report.name, "documents": report.train, "tokens": None, "held_out": report.held_out}
            | {"read": report.read, "dropped": report.dropped, "licence": report.licence}
            for report in self.collection.reports
        ]
        samples = {"training": self.train.counts()}
        if self.validation is not None:
            samples["held_out"] = self.validation.counts()
        found = environment(str(self.model.device))
        found |= {name: importlib.metadata.version(name) for name in ("trl", "peft", "accelerate")}
        settled = dataclasses.asdict(self.options) | {
            "model": self.base, "context": self.context, "steps": self.steps, "lr": self.rate, "evaluate_every": self.every,
            "micro_batch": self.micro,
        }  # fmt: skip
        write_text(self.folder / ASKED, json.dumps(requested(self.options, FREE_TO_CHANGE)))
        write_text(self.folder / DATA, json.dumps({"sources": sources, "samples": samples}, indent=1))
        write_text(self.folder / ENVIRONMENT, json.dumps(found, indent=1))
        write_text(self.folder / CONFIG, yaml.safe_dump(settled, sort_keys=False))

    def _trainer(self, recorder: Any, first: bool) -> Any:
        """TRL's trainer over our samples."""
        from trl import DPOConfig, SFTConfig

        from gpt3.finetuning.trainers import ConversationTrainer, PreferenceTrainer, with_adapter

        options, evaluates, device = self.options, self.validation is not None, self.model.device
        shared: dict[str, Any] = {
            "output_dir": str(self.folder / CHECKPOINTS), "seed": options.seed, "max_steps": self.steps,
            "per_device_train_batch_size": self.micro, "per_device_eval_batch_size": self.micro,
            "gradient_accumulation_steps": self.accumulate, "learning_rate": self.rate,
            "warmup_steps": round(0.03 * self.steps), "weight_decay": options.weight_decay, "adam_beta2": 0.95,
            "bf16": choose_dtype(options.dtype, device) is torch.bfloat16, "use_cpu": device.type == "cpu",
            "gradient_checkpointing": options.gradient_checkpointing, "save_steps": self.every,
            "eval_strategy": "steps" if evaluates else "no", "eval_steps": self.every, "eval_on_start": evaluates and first,
            "load_best_model_at_end": evaluates,  # by its held-out loss
            "logging_steps": max(1, min(10, self.steps // 20)), "logging_nan_inf_filter": False,
            "report_to": "none", "disable_tqdm": True,
            "dataloader_pin_memory": device.type == "cuda", "max_length": self.context,
        }  # fmt: skip
        keywords: dict[str, Any] = {
            "model": with_adapter(self.model, options, self.new_ids) if options.lora else self.model,
            "processing_class": self.tokenizer, "callbacks": [recorder],
            "train_dataset": datasets.Dataset.from_dict(self.train.columns),
            "eval_dataset": datasets.Dataset.from_dict(self.validation.columns) if self.validation is not None else None,
        }  # fmt: skip
        if options.early_stop is not None and evaluates:
            keywords["callbacks"].append(transformers.EarlyStoppingCallback(options.early_stop))
        kind: Any = ConversationTrainer
        args: Any = SFTConfig(packing=options.packing, eval_packing=False, **shared)
        if options.method == "dpo":
            kind, args = PreferenceTrainer, DPOConfig(beta=options.beta, **shared)
            keywords["ref_model"] = None if options.lora else copy.deepcopy(self.model).requires_grad_(False).eval()
        args._n_gpu = min(args.n_gpu, 1)  # several visible GPUs are no reason for nn.DataParallel, which TRL refuses
        trainer = kind(args=args, **keywords)
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def _write_model(self, model: Any, result: FinetuneResult) -> None:
        """adapter/ and model/; then the checkpoints go."""
        if self.options.lora:
            with replacing(self.folder / ADAPTER) as temporary:
                temporary.mkdir()
                save_adapter(model, self.tokenizer, temporary, self.base)
                (temporary / CARD).write_bytes(utf8(self._card(result, "peft")))
        if self.options.merge or not self.options.lora:
            whole = merge(model) if self.options.lora else model
            with replacing(self.folder / MODEL) as temporary:
                temporary.mkdir()
                whole.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                (temporary / CARD).write_bytes(utf8(self._card(result, "transformers")))
        discard(self.folder / CHECKPOINTS)

    def _card(self, result: FinetuneResult, library: str) -> str:
        """README.md with Hugging Face's front matter; `library` is what loads the folder: transformers or peft."""
        options, train = self.options, self.train
        method = {"sft": "supervised fine-tuning", "dpo": "direct preference optimization"}[options.method] + " (TRL)"
        if options.lora:
            method += f", {'DoRA' if options.dora else 'LoRA'} of rank {options.lora_rank}"
        on_hub = HUB_ID.fullmatch(self.base) and not Path(self.base).exists()
        origin = f"base_model: {self.base}\n" if on_hub else ""
        rows = [f"| {r.name} | {r.train:,} | {r.held_out:,} | {r.licence} |" for r in self.collection.reports]
        figures = [f"| held-out {name} | {before:.4f} | {after:.4f} |" for name, before, after in result.held_out()]
        return card_text(
            "tuned", library=library, origin=origin, options=options, base=self.base, method=method, result=result, train=train,
            minutes=result.seconds / 60, sources="\n".join(rows), measured="\n".join(figures),
        )  # fmt: skip

    def _report(self) -> None:
        try:
            write_report([self.folder], self.folder / "report.html")
        except InputError as error:  # a report must not fail the run
            say(f"no report: {error}")


def quiet() -> None:
    """Our lines in place of those of four libraries."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")  # PEFT, whenever there are new tokens
